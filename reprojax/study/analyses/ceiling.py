"""What no score with theory can exceed: the closed form against itself, solved another way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from reprojax.data.transform import to_uint8
from reprojax.scoring.rows import flat
from reprojax.scoring.similarity import two_nearest
from reprojax.scoring.stats import wilson
from reprojax.study.analyses.common import cells_named, float_samples, lazy_denoiser, study_ruler
from reprojax.study.analyses.solvers import with_steps
from reprojax.study.analyses.specs import Ceiling
from reprojax.study.cells import Cell
from reprojax.study.stages import Context


def ceilings(context: Context, spec: Ceiling, identity: str) -> dict[str, Any]:
    """Compares few steps with many, and native ranges of noise with the first.

    Returns:
        ``rows`` per (cell, change): for an empirical optimum the share of noises that land on
        another training image; RP, MAE score and PFD for any cell.
    """
    ruler, rows = study_ruler(context, identity), []
    few, many = spec.num_steps
    base = with_steps(context.study.sampler, "heun", many)
    start = lambda s, high: replace(s, grid=replace(s.grid, sigma_max=high))  # noqa: E731
    base = start(base, spec.sigma_max[0])
    changes = {f"{few} against {many} Heun steps": with_steps(base, "heun", few)}
    for high in spec.sigma_max[1:]:
        changes[f"sigma_max {high:g} against {spec.sigma_max[0]:g}"] = start(base, high)
    cells = cells_named(context, spec.cells)
    total = len(cells) * len(changes)
    with context.reporter.task("analyse ceiling", total, "comparisons") as advance:
        for cell in cells:
            denoiser = lazy_denoiser(context, cell)
            truth, _ = float_samples(context, cell, base, spec.n, denoiser)
            for change, sampler in changes.items():
                images, _ = float_samples(context, cell, sampler, spec.n, denoiser)
                rows.append(
                    {
                        "cell": cell.name,
                        "n_train": len(context.images.train(cell)),
                        "change": change,
                        **_landings(context, cell, images, truth),
                        **ruler.compare(images, truth),
                    }
                )
                advance(len(rows), total)
    return {"n": len(truth), "threshold": ruler.tau, "rows": rows}


def _landings(context: Context, cell: Cell, a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """The share of rows whose nearest training images differ; only the optimum lands on them."""
    if cell.family != "optimum":
        return {"other_image": None, "other_ci95": None}
    train = flat(context.images.train(cell).images())
    nearest = [two_nearest(flat(to_uint8(x)), train)[1][:, 0] for x in (a, b)]
    n, other = len(a), int(np.count_nonzero(nearest[0] != nearest[1]))
    return {"other_image": other / n, "other_ci95": list(wilson(other, n))}
