"""The stage that turns the samples of all cells into ``scores.json``."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from reprojax.interop.samples import GivenFeatures
from reprojax.runtime.files import write_json
from reprojax.sampling.flow import MATMUL_PRECISION
from reprojax.scoring.calibration import Thresholds, choose_thresholds
from reprojax.scoring.descriptors import ROWS, Descriptor, make_descriptor
from reprojax.scoring.maker import make_scores
from reprojax.scoring.scores import FILE, GIVEN_FEATURES, CellRow, Scores
from reprojax.scoring.sets import RealSet, SampleSet
from reprojax.scoring.transport import MAX_POINTS
from reprojax.study.cells import Cell
from reprojax.study.context import Context
from reprojax.study.stages import describe_cell


def read_scores(workdir: str | Path, identity: str) -> Scores | None:
    """Returns the scores in a study's folder, or None if they are absent or another study's."""
    try:
        value = json.loads((Path(workdir) / FILE).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    if value.get("study", {}).get("hash") != identity:
        return None
    return Scores.from_json(value)


def study_descriptor(context: Context) -> Descriptor:
    """Returns the study's descriptor, fitted on its largest training set.

    Without training images it is fitted on all samples together.
    """
    name = context.study.scoring.descriptor
    if name == GIVEN_FEATURES:
        return GivenFeatures()
    if context.images.largest is not None:
        return make_descriptor(name, context.images.largest.blocks())
    sets = [context.samples(cell)[0] for cell in context.study.cells]
    blocks = (images[i : i + ROWS] for images in sets for i in range(0, len(images), ROWS))
    return make_descriptor(name, blocks)


def score_study(context: Context, identity: str, missing: Collection[str] = ()) -> int:
    """Describes all cells, scores them together and writes ``scores.json``.

    Args:
        context: A context whose cells are all sampled.
        identity: The identity of these scores, which is recorded.
        missing: Names of cells that are left out, which is recorded.

    Returns:
        The number of cells that were described.
    """
    study, images = context.study, context.images
    cells = [cell for cell in study.cells if cell.name not in missing]
    descriptor = study_descriptor(context)
    described = 0
    with context.reporter.task("describe", len(cells), "cells") as advance:
        for i, cell in enumerate(cells):
            described += describe_cell(context, cell, descriptor)
            advance(i + 1, len(cells))
            context.stop.check("in describing")
    trained = {key: cell for cell in study.cells if (key := images.key(cell))}
    train_sets = {key: images.real_set(cell, descriptor) for key, cell in trained.items()}
    heldout = images.heldout_set(descriptor)
    samples = [_sample_set(context, cell, descriptor) for cell in cells]
    noises = None if context.noise is None else context.noise.first(MAX_POINTS).all()
    with context.reporter.task("score", 1, "comparisons") as advance:

        def progress(done: int, total: int) -> None:
            advance(done, total)
            context.stop.check("in scoring")

        scores = make_scores(
            samples,
            {cell.name: cell_row(context, cell) for cell in cells},
            train_sets,
            heldout,
            descriptor.name,
            study_thresholds(context, descriptor, heldout, samples),
            noises=noises,
            header=_header(context, identity, missing),
            progress=progress,
        )
    context.stop.require_claim()
    write_json(context.workdir.own(FILE), scores.to_json())
    return described


def _sample_set(context: Context, cell: Cell, descriptor: Descriptor) -> SampleSet:
    conditions = context.conditions(cell)
    images, _ = context.samples(cell)
    return SampleSet(
        name=cell.name,
        images=images,
        features=context.features(cell, descriptor),
        train=context.images.key(cell),
        groups=None if conditions is None else conditions.groups(),
    )


def study_thresholds(
    context: Context,
    descriptor: Descriptor,
    heldout: RealSet | None,
    samples: list[SampleSet] | None = None,
) -> Thresholds:
    """Returns the thresholds: given, published with the descriptor, or calibrated on real images.

    Args:
        context: The study's context.
        descriptor: The study's descriptor.
        heldout: The held-out images with their features, or None.
        samples: The samples of all models, of which the first calibrate RP where there are no
            training images.

    Raises:
        InputError: There is nothing to calibrate on.
    """
    scoring = context.study.scoring
    first = samples[0] if samples else None
    own = first and (f"samples of {first.name}", RealSet(first.images, first.features, first.n))
    return choose_thresholds(
        context.images.largest_set(descriptor),
        heldout,
        descriptor=descriptor.name,
        published=descriptor.tau,
        given=scoring.threshold,
        samples=own,
        rp_rate=scoring.rp_rate,
        gl_target=scoring.gl_target,
    )


def _header(context: Context, identity: str, missing: Collection[str]) -> dict[str, Any]:
    study, images, banks = context.study, context.images, context.banks
    header = {
        "study": {"name": study.name, "hash": identity},
        "noise": banks.record,
        "conditions": banks.conditions.describe() if banks.conditions else None,
        "data": {"source": images.source, "shape": list(images.shape)},
        "missing": tuple(missing),
    }
    if banks.noise is not None:
        precision = {"matmul_precision": MATMUL_PRECISION}
        header["sampling"] = {**study.sampler.identity(), **precision}
    return header


def cell_row(context: Context, cell: Cell) -> CellRow:
    """Returns what ``scores.json`` says of a cell that is sampled."""
    _, nfe = context.samples(cell)
    solved = cell.model.samples in ("denoiser", "flow_map")
    return CellRow(
        hash=context.hashes[cell.name],
        n_train=context.images.n_train(cell),
        subset=cell.data.part if cell.data else "",
        solver=context.study.sampler_of(cell).solver if solved else "",
        nfe=round(nfe),
        sampling=cell.sampler.identity() if cell.sampler else None,
        **cell.model.facts(context.images.shape),
    )
