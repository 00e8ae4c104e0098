"""Runs a study: what is missing, stage by stage, up to the stage asked for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprojax.errors import InputError
from reprojax.files import content_hash, write_json
from reprojax.mesh import DATA_AXIS, make_mesh
from reprojax.models.families import count_params
from reprojax.sampling.noise import NoiseBank, load_noise
from reprojax.scoring.descriptors import descriptor_class
from reprojax.scoring.scoreboard import SampleSet, TrainSet, score_all
from reprojax.scoring.thresholds import calibrate_gl, calibrate_rp
from reprojax.study.cells import Cell, DataSpec, Study
from reprojax.study.images import StudyImages, image_blocks
from reprojax.study.progress import Reporter
from reprojax.study.stages import (
    Context,
    cell_network,
    describe_cell,
    param_shapes,
    read_features,
    read_samples,
    sample_cell,
    train_cell,
)
from reprojax.study.workdir import Workdir
from reprojax.training.loop import check_devices
from reprojax.training.signals import StopRequest
from reprojax.training.weights import load_weights

STAGES = ("train", "sample", "score")
SCORES = "scores.json"


@dataclass
class Prepared:
    """A study whose every input has been checked; nothing is written yet."""

    study: Study
    images: StudyImages
    bank: NoiseBank
    hashes: dict[str, str]
    noise_fingerprint: str
    identity: str


def prepare(study: Study) -> Prepared:
    """Opens the images, builds the networks, reads given weights: all that can be a user's mistake.

    Raises:
        InputError: naming the field.
    """
    descriptor_class(study.scoring.descriptor)
    images = StudyImages(study)
    mesh = make_mesh()
    for cell in study.cells:
        if cell.kind != "network":
            continue
        module = cell_network(cell, images.shape)
        if cell.weights:
            like = param_shapes(module, images.shape)
            load_weights(cell.weights, like, f"models.{cell.name}.weights")
        else:
            training = cell.training
            check_devices(training.batch_size, mesh.shape[DATA_AXIS], training.accumulate)
    noise = study.noise
    if noise.path:
        bank = load_noise(noise.path, noise.n, images.shape)
    else:
        bank = NoiseBank(noise.seed, noise.n, images.shape)
    prints: dict[DataSpec, str] = {}
    for cell in study.cells:
        prints.setdefault(cell.data, images.train(cell).fingerprint)
    hashes = {cell.name: cell.hash(prints[cell.data]) for cell in study.cells}
    heldout = images.heldout.fingerprint if images.heldout else ""
    fingerprint = bank.fingerprint()
    identity = study.hash(list(hashes.values()), fingerprint, heldout)
    return Prepared(study, images, bank, hashes, fingerprint, identity)


def run_study(
    prepared: Prepared,
    workdir: str | Path,
    *,
    last: str = "score",
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Context:
    """Does what is missing of every stage up to ``last``.

    Args:
        prepared: from `prepare`.
        workdir: folder of the study; claimed before anything is written.
        last: a name of `STAGES`.
        overwrite: remove another config's artefacts first.
        reporter: takes progress.

    Returns:
        The context, through which artefacts are read.

    Raises:
        InputError: the workdir is another's, or cannot be written.
        DivergedError: a training run diverged.
        InterruptedRunError: a stop was asked for.
    """
    reporter = reporter or Reporter()
    folder = Workdir(workdir, prepared.study.name, prepared.identity)
    folder.claim(overwrite)
    with StopRequest() as stop:
        context = Context(
            study=prepared.study,
            images=prepared.images,
            workdir=folder,
            bank=prepared.bank,
            noise_fingerprint=prepared.noise_fingerprint,
            hashes=prepared.hashes,
            mesh=make_mesh(),
            reporter=reporter,
            stop=stop,
        )
        done = _run_stages(context, STAGES.index(last), prepared.identity)
    total = len(prepared.study.cells)
    if not any(done.values()):
        reporter.say(f"{total} cells were complete up to the stage {last!r}: nothing recomputed")
    else:
        counts = ", ".join(f"{name} {n}" for name, n in done.items())
        reporter.say(f"{total} cells; done this time: {counts}; the rest was there")
    return context


def _run_stages(context: Context, last: int, identity: str) -> dict[str, int]:
    done = dict.fromkeys(("trained", "sampled", "described", "scored"), 0)
    for cell in context.study.cells:
        done["trained"] += train_cell(context, cell)
        context.stop.check(f"after training {cell.name}")
        if last >= 1:
            done["sampled"] += sample_cell(context, cell)
            context.stop.check(f"after sampling {cell.name}")
    if last >= 2 and read_scores(context, identity) is None:
        done["described"] = _score(context, identity)
        done["scored"] = 1
    return done


def read_scores(context: Context, identity: str) -> dict[str, Any] | None:
    """The study's scores.json, or None if it is absent or another study's."""
    try:
        scores = json.loads((context.workdir.path / SCORES).read_text())
    except FileNotFoundError:
        return None
    return scores if scores["study"]["hash"] == identity else None


def _score(context: Context, identity: str) -> int:
    """Describes all cells and writes scores.json; returns how many were described."""
    study, images = context.study, context.images
    largest = images.split(images.largest).train
    descriptor = descriptor_class(study.scoring.descriptor).fit(image_blocks(largest))
    tag = content_hash([descriptor.name, hashlib.sha256(descriptor.mean.tobytes()).hexdigest()], 8)
    described = 0
    with context.reporter.task("describe", len(study.cells), "cells") as advance:
        for i, cell in enumerate(study.cells):
            described += describe_cell(context, cell, descriptor, tag)
            advance(i + 1, len(study.cells))

    def real(subset) -> TrainSet | None:
        if subset is None:
            return None
        pixels = subset.images()
        return TrainSet(pixels, descriptor(pixels), len(pixels))

    keys = {cell.data: _train_key(cell.data) for cell in study.cells}
    train_sets = {key: real(images.split(data).train) for data, key in keys.items()}
    heldout = real(images.heldout)
    reference = train_sets[keys[images.largest]].features
    tau_rp = calibrate_rp(reference, study.scoring.rp_rate)
    tau_gl = calibrate_gl(heldout.features if heldout else None, reference, study.scoring.gl_target)
    samples = [
        SampleSet(
            name=cell.name,
            images=read_samples(context, cell)[0],
            features=read_features(context, cell, tag),
            train=keys[cell.data],
        )
        for cell in study.cells
    ]
    with context.reporter.task("score", 1, "study") as advance:
        pairs, models = score_all(
            samples,
            train_sets,
            heldout,
            descriptor.name,
            tau_rp,
            tau_gl,
            progress=lambda what, i, total: advance(i, total),
        )
        context.stop.check("in scoring")
    scores = {
        "schema": 1,
        "study": {"name": study.name, "hash": identity},
        "noise": {"fingerprint": context.noise_fingerprint, **context.bank.describe()},
        "data": {"source": study.data.source.name, "shape": list(images.shape)},
        "cells": {cell.name: _cell_row(context, cell) for cell in study.cells},
        "pairs": pairs,
        "models": models,
    }
    write_json(context.workdir.own(SCORES), scores)
    return described


def _train_key(data: DataSpec) -> str:
    return f"{data.part}-{data.n_train}"


def _cell_row(context: Context, cell: Cell) -> dict[str, Any]:
    network = cell.kind == "network"
    keywords = dict(cell.network)
    _, nfe = read_samples(context, cell)
    row = {
        "hash": context.hashes[cell.name],
        "kind": cell.kind,
        "family": cell.family,
        "width": int(keywords.get("width", 0)),
        "n_train": len(context.images.train(cell)),
        "subset": cell.data.part,
        "kernel": cell.kernel if network else "",
        "seed": cell.seed,
        "solver": context.study.sampler.solver,
        "nfe": round(nfe),
    }
    if network:
        row["params"] = count_params(context.network(cell), context.images.shape)
        row["preconditioning"] = cell.preconditioning
        row["objective"] = "" if cell.weights else cell.objective
        row["steps"] = 0 if cell.weights else cell.training.steps
    return row


def cell_samples_for_report(context: Context, count: int) -> dict[str, Any]:
    """The first ``count`` images of each sampled cell."""
    found = {cell.name: read_samples(context, cell) for cell in context.study.cells}
    return {name: samples[0][:count] for name, samples in found.items() if samples}


def require_scores(context: Context, identity: str) -> dict[str, Any]:
    """The study's scores.

    Raises:
        InputError: it has not been scored.
    """
    scores = read_scores(context, identity)
    if scores is None:
        raise InputError("mode", "report", "a scored workdir: run --mode=study or --mode=score")
    return scores
