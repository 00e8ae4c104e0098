"""Measures the solver's own error: a model against itself, solved another way.

Scores between a network and a closed form are to be read beside it, since both are solved by the
same solver.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reprojax.analyses.common import float_samples, lazy_denoiser, progress, study_ruler
from reprojax.data.transform import to_uint8
from reprojax.errors import InputError, require_number
from reprojax.sampling.flow import SamplerSpec
from reprojax.scoring.rows import flat
from reprojax.scoring.similarity import two_nearest
from reprojax.scoring.stats import wilson
from reprojax.study.cells import Cell
from reprojax.study.context import Context
from reprojax.study.study import AnalysisSettings


@dataclass(frozen=True)
class Ceiling(AnalysisSettings):
    """Settings for the solver's own error: other steps, and other ranges of noise.

    Attributes:
        num_steps: The few Heun steps, and the many that they are compared with.
        sigma_max: The noise levels at which sampling starts, in data units. Each is compared with
            the first one, with the many steps.
    """

    num_steps: tuple[int, int] = (18, 800)
    sigma_max: tuple[float, ...] = (80.0, 100.0, 152.0)

    def __post_init__(self):
        super().__post_init__()
        for steps in self.num_steps:
            require_number("num_steps", steps, at_least=1)
        if len(self.num_steps) != 2:
            raise InputError("num_steps", self.num_steps, "must be two numbers, few and many")
        if not self.sigma_max:
            raise InputError("sigma_max", self.sigma_max, "must have at least one noise level")
        for sigma in self.sigma_max:
            require_number("sigma_max", sigma, above=0)


def solver_errors(context: Context, settings: Ceiling, identity: str) -> dict[str, Any]:
    """Compares few steps with many, and other ranges of noise with the first.

    Returns:
        ``rows`` per (cell, change): RP, MAE score and PFD between both samplers, and for an
        empirical optimum the share of noises that lead to another training image.
    """
    ruler, rows = study_ruler(context, identity), []
    few, many = settings.num_steps
    first, *others = settings.sigma_max
    base = _from(context.study.sampler.with_solver("heun", many), first)
    changes = {f"{few} against {many} Heun steps": base.with_solver("heun", few)}
    changes |= {f"sigma_max {high:g} against {first:g}": _from(base, high) for high in others}
    cells = context.cells_named(settings.cells)
    with progress(context, "ceiling", len(cells) * len(changes), "comparisons") as step:
        for cell in cells:
            denoiser = lazy_denoiser(context, cell)
            truth, _ = float_samples(context, cell, base, settings.n, denoiser)
            for change, sampler in changes.items():
                images, _ = float_samples(context, cell, sampler, settings.n, denoiser)
                row = {"cell": cell.name, "n_train": len(context.images.train(cell))}
                row |= {"change": change, **_landings(context, cell, images, truth)}
                rows.append(row | ruler.compare(images, truth, context.conditions(cell)))
                step()
    return {"n": len(truth), "threshold": ruler.tau, "rows": rows}


def _from(sampler: SamplerSpec, sigma_max: float) -> SamplerSpec:
    """Returns a sampler that starts at another noise level."""
    return replace(sampler, grid=replace(sampler.grid, sigma_max=sigma_max))


def _landings(context: Context, cell: Cell, a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """Returns the share of rows whose nearest training images differ, for an optimum's samples."""
    if cell.model.family != "optimum":  # only its samples are training images
        return {"other_image": None, "other_ci95": None}
    train = flat(context.images.train(cell).images())
    nearest = [two_nearest(flat(to_uint8(x)), train)[1][:, 0] for x in (a, b)]
    n, other = len(a), int(np.count_nonzero(nearest[0] != nearest[1]))
    return {"other_image": other / n, "other_ci95": list(wilson(other, n))}
