"""Measures whether encodings are unique: images to noises with one model, and back with each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from reprojax.analyses.common import progress, study_ruler
from reprojax.data.subset import Subset
from reprojax.data.transform import to_float, to_uint8
from reprojax.errors import InputError, require_number
from reprojax.runtime.programs import make_room
from reprojax.sampling.conditions import ConditionBank
from reprojax.sampling.flow import SamplerSpec, encode, sample
from reprojax.sampling.noise import NoiseBank
from reprojax.scoring.distances import per_image_r2
from reprojax.scoring.ruler import Ruler
from reprojax.scoring.stats import mean_interval
from reprojax.study.cells import Cell
from reprojax.study.context import Context
from reprojax.study.images import Images
from reprojax.study.study import AnalysisSettings, Study
from reprojax.types import DenoiseFn

SOURCES = ("heldout", "samples")


@dataclass(frozen=True)
class Encoding(AnalysisSettings):
    """Settings for round trips, and for decoding with another model than the encoding one.

    Attributes:
        num_steps: The number of solver steps each way. The grid ends at sigma_min.
    """

    num_steps: int = 200

    def __post_init__(self):
        super().__post_init__()
        require_number("num_steps", self.num_steps, at_least=1)


def check_encoding(study: Study, images: Images, settings: Encoding) -> None:
    """Raises InputError unless the study's solver can run backwards over fixed steps."""
    sampler = study.sampler
    if sampler.adaptive or sampler.stochastic:
        requirement = "must be deterministic, with fixed steps, for the analysis 'encoding'"
        raise InputError("sampling.solver", sampler.solver, requirement)


def encode_and_decode(context: Context, settings: Encoding, identity: str) -> dict[str, Any]:
    """Encodes real images and own samples with each cell, and decodes them with each.

    Returns:
        ``round_trips`` (the same cell both ways), ``transplants`` (cell a encodes, cell b decodes)
        and ``latents`` (how alike two cells' noises of the same image are), each per source.
    """
    ruler, cells = study_ruler(context, identity), context.cells_named(settings.cells)
    functions = {cell.name: context.function(cell) for cell in cells}
    grid = replace(context.study.sampler.grid, num_steps=settings.num_steps, end="sigma_min")
    sampler = replace(context.study.sampler, grid=grid)
    rows: dict[str, list] = {"round_trips": [], "transplants": [], "latents": []}
    total = len(SOURCES) * len(cells) * (len(cells) + 1)
    with progress(context, "encoding", total, "passes") as step:
        for source in SOURCES:
            noises: dict[str, np.ndarray] = {}
            for a in cells:
                images = _images(context, a, source, settings.n)
                encoded = _conditions(context, a, source, len(images))
                noise, _ = encode(functions[a.name], images, sampler, conditions=encoded)
                noises[a.name] = noise
                step()
                for b in cells:
                    make_room()
                    conditions = _conditions(context, b, source, len(images))
                    decoded = _decode(functions[b.name], sampler, noise, conditions)
                    if source == "samples" and encoded is None:
                        conditions = None  # the images have none, so chance has no groups
                    row = {"source": source, **_comparison(ruler, decoded, images, conditions)}
                    if a is b:
                        facts = _noise_facts(context, noise, source)
                        rows["round_trips"].append({"cell": a.name, **row, **facts})
                    else:
                        rows["transplants"].append({"a": a.name, "b": b.name, **row})
                    step()
            if source == "heldout":  # two cells' own samples are not the same images
                rows["latents"] += [
                    {"a": a, "b": b, "source": source, **_latent_facts(noises[a], noises[b])}
                    for a, b in combinations(noises, 2)
                ]
    return {
        "n": len(images),
        "steps": settings.num_steps,
        "solver": sampler.solver,
        "sigma_min": grid.sigma_min,
        "threshold": ruler.tau,
        **rows,
    }


def _images(context: Context, cell: Cell, source: str, n: int) -> np.ndarray:
    """Returns the images to encode, float32 `[n, h, w, c]`: the cell's samples, or real images."""
    if source == "samples":
        return to_float(context.samples(cell)[0][:n])
    return to_float(_real(context).images(0, n))


def _real(context: Context) -> Subset:
    return context.images.heldout or context.images.largest


def _conditions(context: Context, cell: Cell, source: str, n: int) -> ConditionBank | None:
    """Returns the conditions of the images for a conditional model, None for another.

    Real images have the conditions of their labels, samples those of their noises.
    """
    if source == "samples":
        bank = context.conditions(cell)
        return None if bank is None else bank.first(n)
    labels = _real(context).labels
    return context.image_conditions(cell, None if labels is None else labels[:n])


def _decode(
    denoise: DenoiseFn, sampler: SamplerSpec, noise: np.ndarray, conditions: ConditionBank | None
) -> np.ndarray:
    bank = NoiseBank(seed=-1, n=len(noise), shape=noise.shape[1:], array=noise)
    return sample(denoise, bank, sampler, conditions=conditions).images


def _comparison(
    ruler: Ruler, decoded: np.ndarray, images: np.ndarray, conditions: ConditionBank | None
) -> dict[str, Any]:
    r2, interval = mean_interval(per_image_r2(to_uint8(decoded), to_uint8(images)))
    return {
        **ruler.compare(decoded, images, conditions),
        "max_abs": float(np.abs(decoded - images).max()),
        "r2": r2,
        "r2_ci95": list(interval),
    }


def _noise_facts(context: Context, noise: np.ndarray, source: str) -> dict[str, float]:
    """Returns the deviation of encodings, and how near own samples come to their noises."""
    facts = {"noise_std": float(noise.std())}
    if source == "samples":
        facts["noise_correlation"] = _correlation(noise, context.noise.block(0, len(noise)))
    return facts


def _latent_facts(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    rmse = float(np.sqrt(np.mean((a - b) ** 2)))
    return {"correlation": _correlation(a, b), "rmse": rmse}


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
