"""The last stage: from the samples of all cells to scores.json."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from reprojax.data.subset import Subset
from reprojax.models.families import count_params
from reprojax.runtime.files import write_json
from reprojax.sampling.flow import MATMUL_PRECISION
from reprojax.scoring.descriptors import Descriptor, descriptor_class
from reprojax.scoring.distance_rows import curve_rows, distance_rows, transport_rows
from reprojax.scoring.scoreboard import SampleSet, TrainSet, score_all
from reprojax.scoring.thresholds import calibrate_gl, calibrate_rp
from reprojax.scoring.transport import MAX_POINTS
from reprojax.study.cells import Cell, DataSpec
from reprojax.study.images import StudyImages, image_blocks, image_rows
from reprojax.study.stages import (
    Context,
    cell_network,
    describe_cell,
    read_features,
    read_samples,
)

SCORES = "scores.json"


def read_scores(workdir: str | Path, identity: str) -> dict[str, Any] | None:
    """The scores.json of a study's folder, or None if it is absent or another study's."""
    try:
        scores = json.loads((Path(workdir) / SCORES).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return scores if scores.get("study", {}).get("hash") == identity else None


def study_descriptor(context: Context) -> Descriptor:
    """The study's descriptor, fitted on its largest training set."""
    largest = context.images.split(context.images.largest).train
    return descriptor_class(context.study.scoring.descriptor).fit(image_blocks(largest))


def real_set(subset: Subset, descriptor: Descriptor) -> TrainSet:
    """Real images with their features, read block by block when they are compared."""
    images = image_rows(subset)
    width = descriptor(subset.images(0, 1)).shape[1:]
    return TrainSet(images, images.map(width, descriptor), len(subset))


def score_study(context: Context, identity: str, missing: Collection[str] = ()) -> int:
    """Describes all cells, scores them together and writes scores.json.

    Args:
        context: of a study whose cells are all sampled.
        identity: of these scores, recorded.
        missing: names of cells that are left out, recorded.

    Returns:
        How many cells were described.
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
    train_sets = {_key(c.data): real_set(images.train(c), descriptor) for c in study.cells}
    heldout = _heldout(images, descriptor)
    taus = _thresholds(context, descriptor, train_sets[_key(images.largest)], heldout)
    sampled = {cell.name: read_samples(context, cell) for cell in cells}
    samples = [
        SampleSet(
            name=cell.name,
            images=sampled[cell.name][0],
            features=read_features(context, cell, descriptor),
            train=_key(cell.data),
        )
        for cell in cells
    ]
    comparisons = len(samples) * (len(samples) - 1) // 2 + len(samples)
    with context.reporter.task("score", comparisons, "comparisons") as advance:

        def progress(what: str, done: int, total: int) -> None:
            advance(done, total)
            context.stop.check("in scoring")

        pairs, models = score_all(
            samples, train_sets, heldout, descriptor.name, *taus, progress=progress
        )
    scores = {
        "schema": 1,
        "study": {"name": study.name, "hash": identity},
        "noise": {"fingerprint": context.noise_fingerprint, **context.bank.describe()},
        "data": {"source": study.data.source.name, "shape": list(images.shape)},
        "sampling": {**study.sampler.identity(), "matmul_precision": MATMUL_PRECISION},
        "cells": {c.name: _cell_row(context, c, sampled[c.name][1]) for c in cells},
        **({"missing": list(missing)} if missing else {}),
        "pairs": pairs,
        "models": models,
        **_beyond_thresholds(context, samples),
    }
    context.stop.require_claim()
    write_json(context.workdir.own(SCORES), scores)
    return described


def _beyond_thresholds(context: Context, samples: list[SampleSet]) -> dict[str, Any]:
    """Distances, RP curves, and transport from the first noises."""
    check = lambda: context.stop.check("in scoring")  # noqa: E731
    with context.reporter.task("distances", 3, "tables") as advance:
        distances = distance_rows(samples)
        advance(1, 3)
        check()
        curves = curve_rows(samples)
        advance(2, 3)
        noises = context.bank.first(MAX_POINTS).all()
        transports = transport_rows(samples, noises, check)
        advance(3, 3)
    return {"distances": distances, "rp_curves": curves, "transport": transports}


def _heldout(images: StudyImages, descriptor: Descriptor) -> TrainSet | None:
    """Held-out images are queries as samples are, and are held like them."""
    if images.heldout is None:
        return None
    pixels = images.heldout.images()
    return TrainSet(pixels, descriptor(pixels), len(pixels))


def _thresholds(
    context: Context, descriptor: Descriptor, largest: TrainSet, heldout: TrainSet | None
) -> tuple[float, float]:
    """(RP, GL): published with the descriptor, or calibrated on the largest training set."""
    if descriptor.tau is not None:
        return descriptor.tau, descriptor.tau
    scoring = context.study.scoring
    real = heldout.features if heldout else None
    return (
        calibrate_rp(largest.features, scoring.rp_rate),
        calibrate_gl(real, largest.features, scoring.gl_target),
    )


def _key(data: DataSpec) -> str:
    return f"{data.part}-{data.n_train}"


def _cell_row(context: Context, cell: Cell, nfe: float) -> dict[str, Any]:
    network = cell.kind != "closed_form"
    sampler = context.study.sampler_of(cell)
    keywords = dict(cell.network)
    row = {
        "hash": context.hashes[cell.name],
        "kind": cell.kind,
        "family": cell.family,
        "width": int(keywords.get("width", 0)),
        "n_train": len(context.images.train(cell)),
        "subset": cell.data.part,
        "kernel": cell.kernel if network else "",
        "seed": cell.seed,
        "solver": sampler.solver,
        "nfe": round(nfe),
    }
    if network:
        module = cell_network(cell, context.images.shape)
        row["params"] = count_params(module, context.images.shape)
        row["preconditioning"] = cell.preconditioning
        row["objective"] = "" if cell.weights else cell.objective
        row["steps"] = 0 if cell.weights else cell.training.steps
    if cell.teacher:
        row["teacher"] = cell.teacher
    if cell.sampler:
        row["sampling"] = sampler.identity()
    return row
