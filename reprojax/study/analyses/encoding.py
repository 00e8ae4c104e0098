"""Is the encoding unique? Images to noises with one model, and back with it or another."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from reprojax.data.transform import to_float, to_uint8
from reprojax.errors import InputError
from reprojax.runtime.programs import make_room
from reprojax.sampling.flow import SamplerSpec, encode, sample
from reprojax.sampling.noise import NoiseBank
from reprojax.scoring.distances import per_image_r2
from reprojax.scoring.stats import mean_interval
from reprojax.study.analyses.common import Ruler, cells_named, study_ruler
from reprojax.study.analyses.specs import Encoding
from reprojax.study.cells import Cell, Study
from reprojax.study.images import StudyImages
from reprojax.study.stages import Context, cell_denoiser, read_samples
from reprojax.types import DenoiseFn

SOURCES = ("heldout", "samples")


def check_encoding(study: Study, images: StudyImages, spec: Encoding) -> None:
    """Raises InputError where the study's solver has no way back over fixed steps."""
    sampler = study.sampler
    if sampler.adaptive or sampler.stochastic:
        allowed = "a deterministic solver of fixed steps, for the analysis 'encoding'"
        raise InputError("sampling.solver", sampler.solver, allowed)


def encode_and_decode(context: Context, spec: Encoding, identity: str) -> dict[str, Any]:
    """Encodes real images and own samples with each cell, decodes them with each.

    Returns:
        ``round_trips`` (the same cell both ways), ``transplants`` (a encodes, b decodes) and
        ``latents`` (how alike two cells' noises of the same image are), each per source.
    """
    ruler, cells = study_ruler(context, identity), cells_named(context, spec.cells)
    sampler = context.study.sampler
    denoisers = {cell.name: cell_denoiser(context, cell) for cell in cells}
    grid = replace(sampler.grid, num_steps=spec.num_steps, end="sigma_min")
    sampler = replace(sampler, grid=grid)
    found = {"round_trips": [], "transplants": [], "latents": []}
    total, done = len(SOURCES) * len(cells) * (len(cells) + 1), 0
    with context.reporter.task("analyse encoding", total, "passes") as advance:
        for source in SOURCES:
            noises: dict[str, np.ndarray] = {}
            for a in cells:
                images = _images(context, a, source, spec.n)
                noises[a.name] = encode(denoisers[a.name], images, sampler).images
                done += 1
                advance(done, total)
                context.stop.check(f"in encoding with {a.name}")
                for b in cells:
                    make_room()
                    row = _decode(ruler, sampler, denoisers[b.name], noises[a.name], images)
                    row = {"source": source, **row}
                    if a is b:
                        row |= _noise_facts(context, noises[a.name], source)
                        found["round_trips"].append({"cell": a.name, **row})
                    else:
                        found["transplants"].append({"a": a.name, "b": b.name, **row})
                    done += 1
                    advance(done, total)
                    context.stop.check(f"in decoding with {b.name}")
            if source == "heldout":  # two cells' own samples are not the same images
                found["latents"] += [
                    {"a": a, "b": b, "source": source, **_alike(noises[a], noises[b])}
                    for a, b in combinations(noises, 2)
                ]
    return {
        "n": len(images),
        "steps": spec.num_steps,
        "solver": sampler.solver,
        "sigma_min": grid.sigma_min,
        "threshold": ruler.tau,
        **found,
    }


def _images(context: Context, cell: Cell, source: str, n: int) -> np.ndarray:
    if source == "samples":
        return to_float(read_samples(context, cell)[0][:n])
    subset = context.images.heldout or context.images.split(context.images.largest).train
    return to_float(subset.images(0, min(n, len(subset))))


def _decode(
    ruler: Ruler,
    sampler: SamplerSpec,
    denoise: DenoiseFn,
    noise: np.ndarray,
    images: np.ndarray,
) -> dict[str, Any]:
    bank = NoiseBank(seed=-1, n=len(noise), shape=noise.shape[1:], array=noise)
    back = sample(denoise, bank, sampler).images
    r2, interval = mean_interval(per_image_r2(to_uint8(back), to_uint8(images)))
    return {
        **ruler.compare(back, images),
        "max_abs": float(np.abs(back - images).max()),
        "r2": r2,
        "r2_ci95": list(interval),
    }


def _noise_facts(context: Context, noise: np.ndarray, source: str) -> dict[str, float]:
    """How Gaussian the encodings are; for own samples, how near to the noises they came from."""
    facts = {"noise_std": float(noise.std())}
    if source == "samples":
        drawn = context.bank.block(0, len(noise))
        facts["noise_correlation"] = float(np.corrcoef(noise.ravel(), drawn.ravel())[0, 1])
    return facts


def _alike(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    return {
        "correlation": float(np.corrcoef(a.ravel(), b.ravel())[0, 1]),
        "rmse": float(np.sqrt(np.mean((a - b) ** 2))),
    }
