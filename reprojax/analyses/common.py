"""Shared parts of the analyses: progress, samples of any sampler, and their comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import count
from typing import Any

import numpy as np

from reprojax.data.subset import Subset
from reprojax.runtime.files import content_hash, write_npz
from reprojax.runtime.programs import make_room
from reprojax.sampling.flow import SamplerSpec, sample_batches
from reprojax.scoring.ruler import Ruler
from reprojax.scoring.scores import CellRow
from reprojax.study.analysing import FOLDER
from reprojax.study.cells import Cell
from reprojax.study.context import Context
from reprojax.study.images import Images
from reprojax.study.scores import read_scores, study_descriptor
from reprojax.study.study import Study
from reprojax.types import DenoiseFn


def study_ruler(context: Context, identity: str) -> Ruler:
    """Returns the ruler that the study's own scores were made with."""
    scores = read_scores(context.workdir.path, identity)
    return Ruler(study_descriptor(context), scores.threshold("rp"))


def lazy_denoiser(context: Context, cell: Cell) -> Callable[[], DenoiseFn]:
    """Returns a function that makes the cell's denoiser at its first call and keeps it."""
    return cache(lambda: context.function(cell))


def image_cond(context: Context, cell: Cell, subset: Subset, positions: Any) -> Any:
    """Returns the ``cond`` that a model denoises real images with, or None if it takes none.

    Args:
        context: The study's context.
        cell: The model.
        subset: The set of images.
        positions: The positions of the images in the set, a slice or an int array.
    """
    labels = None if subset.labels is None else subset.labels[positions]
    conditions = context.image_conditions(cell, labels)
    return None if conditions is None else conditions.values


@contextmanager
def progress(context: Context, name: str, total: int, unit: str) -> Iterator[Callable[[], None]]:
    """Shows the progress of an analysis.

    Args:
        context: The study's context.
        name: The name of the analysis.
        total: The number of units of work.
        unit: The name of the units, e.g. "samplers".

    Yields:
        A function to call after each unit. It raises InterruptedRunError if a stop is requested.
    """
    numbers = count(1)
    with context.reporter.task(f"analyse {name}", total, unit) as advance:

        def step() -> None:
            advance(next(numbers), total)
            context.stop.check(f"in the analysis {name!r}")

        yield step


def float_samples(
    context: Context,
    cell: Cell,
    sampler: SamplerSpec,
    n: int,
    make_denoiser: Callable[[], DenoiseFn],
    tag: str = "",
) -> tuple[np.ndarray, float]:
    """Returns samples from the first noises, not rounded to uint8.

    The samples are kept in the workdir, so that an interrupted analysis does not sample again.

    Args:
        context: The study's context.
        cell: The model.
        sampler: The sampler, which may differ from the study's.
        n: The number of noises.
        make_denoiser: A function that returns the cell's denoiser, or another one in its place. It
            is called only if the samples are not there yet.
        tag: The identity of the other denoiser, or "".

    Returns:
        The images, float32 `[n, h, w, c]`, and the mean number of evaluations per image.
    """
    bank, conditions = context.noise.first(n), context.conditions(cell)
    prints = context.banks.fingerprints
    facts = [context.hashes[cell.name], tag, prints["noise"], bank.n, sampler.identity()]
    facts += [] if conditions is None else [prints["conditions"]]
    path = context.workdir.own(f"{FOLDER}/samples/{content_hash(facts)}.npz")
    if path.exists():
        with np.load(path, allow_pickle=False) as data:
            return data["images"], float(data["nfe"])
    make_room()
    images, nfe = [], []
    options = {"mesh": context.mesh, "conditions": conditions}
    for batch, evaluations in sample_batches(make_denoiser(), bank, sampler, **options):
        images.append(batch)
        nfe.append(evaluations)
        context.stop.check(f"in sampling {cell.name} for an analysis")
    images, mean = np.concatenate(images), float(np.mean(np.concatenate(nfe)))
    write_npz(path, images=images, nfe=np.float64(mean))
    return images, mean


def cell_rows(study: Study, images: Images, names: Sequence[str]) -> dict[str, CellRow]:
    """Returns the rows that ``scores.json`` will have for cells, as far as a grid needs them."""
    rows = {}
    for name in names:
        cell = study.cell(name)
        rows[name] = CellRow(
            hash="",
            n_train=images.n_train(cell),
            subset=cell.data.part if cell.data else "",
            **cell.model.facts(images.shape),
        )
    return rows
