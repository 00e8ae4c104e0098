"""Runs a study: what is missing, stage by stage, up to the stage asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reprojax.errors import InputError
from reprojax.models.families import param_shapes
from reprojax.runtime import job
from reprojax.runtime.claims import FOLDER as CLAIMS
from reprojax.runtime.claims import Claims
from reprojax.runtime.console import Reporter
from reprojax.runtime.mesh import batch_devices, make_mesh
from reprojax.runtime.stop import StopRequest
from reprojax.sampling.noise import NoiseBank, load_noise
from reprojax.scoring.descriptors import descriptor_class
from reprojax.study.analyses.run import check_analyses
from reprojax.study.board import State, forget_failures
from reprojax.study.cells import Cell, DataSpec, Study
from reprojax.study.images import StudyImages
from reprojax.study.joint import check_shared, local_mesh, same_study
from reprojax.study.stages import Context, cell_network, take_part
from reprojax.study.workdir import Workdir
from reprojax.study.workers import Outcome, Patience, Share, alone, raise_failed, work
from reprojax.training.loop import check_devices
from reprojax.training.weights import load_weights, weights_metadata

STAGES = ("train", "sample", "score", "analyse")
DONE = ("trained", "sampled", "described", "scored", "analysed")  # what is counted


@dataclass
class Prepared:
    """A study whose every input has been checked; nothing is written yet.

    Args:
        study: the cells.
        images: its images, opened.
        bank: its noises.
        hashes: of each cell by name.
        noise_fingerprint: of the bank.
        identity: hash of the whole study, to which its folder belongs.
        conditions: hash of all but the cells: its folder goes on when it gains some.
        marks: of each cell by name, what must stay the same for that.
    """

    study: Study
    images: StudyImages
    bank: NoiseBank
    hashes: dict[str, str]
    noise_fingerprint: str
    identity: str
    conditions: str
    marks: dict[str, str]


def prepare(study: Study) -> Prepared:
    """Opens the images, builds the networks, reads given weights: all that can be a user's mistake.

    Raises:
        InputError: naming the field.
    """
    descriptor_class(study.scoring.descriptor)
    images = StudyImages(study)
    check_analyses(study, images)
    devices = batch_devices(make_mesh(fsdp=study.loop.fsdp))
    for cell in study.cells:
        if cell.kind != "closed_form":
            _check_network(cell, images, devices)
    noise = study.noise
    if noise.path:
        bank = load_noise(noise.path, noise.n, images.shape)
    else:
        bank = NoiseBank(noise.seed, noise.n, images.shape)
    prints: dict[DataSpec, str] = {}
    for cell in study.cells:
        if cell.data not in prints:
            prints[cell.data] = images.train(cell).fingerprint
    hashes: dict[str, str] = {}
    for cell in study.cells:  # a teacher stands before its students
        hashes[cell.name] = cell.hash(prints[cell.data], hashes.get(cell.teacher, ""))
    heldout = images.heldout.fingerprint if images.heldout else ""
    fingerprint = bank.fingerprint()
    identity = study.hash(list(hashes.values()), fingerprint, heldout)
    return Prepared(
        study=study,
        images=images,
        bank=bank,
        hashes=hashes,
        noise_fingerprint=fingerprint,
        identity=identity,
        conditions=study.conditions(fingerprint, heldout),
        marks=study.cell_marks(hashes),
    )


def _check_network(cell: Cell, images: StudyImages, devices: int) -> None:
    shape = images.shape
    if cell.num_classes:
        _check_labels(cell, images)
    like = param_shapes(cell_network(cell, shape), shape)
    if not cell.weights:
        check_devices(cell.training.batch_size, devices, cell.training.accumulate)
        return
    field = f"models.{cell.name}.weights"
    load_weights(cell.weights, like, field)
    stored, wanted = weights_metadata(cell.weights), cell.weights_facts()
    for name in stored.keys() & wanted.keys():
        if stored[name] != wanted[name]:
            allowed = f"weights trained with {name} {wanted[name]!r}, not {stored[name]!r}"
            raise InputError(field, cell.weights, allowed)


def _check_labels(cell: Cell, images: StudyImages) -> None:
    """Raises InputError unless the training images have labels below the number of classes."""
    labels = images.train(cell).labels
    most = -1 if labels is None else int(labels.max())
    if not 0 <= most < cell.num_classes:
        allowed = f"labels go up to {most}" if most >= 0 else "these images have no labels"
        raise InputError(f"models.{cell.name}.network.num_classes", cell.num_classes, allowed)


def run_study(
    prepared: Prepared,
    workdir: str | Path,
    *,
    last: str = "analyse",
    overwrite: bool = False,
    reporter: Reporter | None = None,
    share: Share | None = None,
    report: Callable[[Context], None] | None = None,
) -> Context:
    """Does what is missing of every stage up to ``last``, beside any number of other workers.

    Args:
        prepared: from `prepare`.
        workdir: folder of the study; claimed before anything is written.
        last: a name of `STAGES`.
        overwrite: remove another config's artefacts first.
        reporter: takes progress.
        share: which cells are this worker's, by default all.
        report: called at the end, by one worker at a time, where all that was asked for is there.

    Returns:
        The context, through which artefacts are read.

    Raises:
        InputError: the workdir is another's, or cannot be written.
        DivergedError: every training run diverged.
        FailedCellsError: all is done but for cells that failed.
        InterruptedRunError: a stop was asked for.
    """
    share, upto = share or Share(), STAGES.index(last)
    folder = _claimed(prepared, workdir, overwrite)
    with StopRequest() as stop:
        context = Context(
            study=prepared.study,
            images=prepared.images,
            workdir=folder,
            bank=prepared.bank,
            noise_fingerprint=prepared.noise_fingerprint,
            hashes=prepared.hashes,
            mesh=local_mesh(prepared.study.loop),
            reporter=reporter or Reporter(),
            stop=stop,
            claims=Claims(folder.own(CLAIMS), stop),
        )
        if not job.is_first():
            job.follow(partial(take_part, context))
            return context
        if share.retry_failed:
            forget_failures(context, share.cells(prepared.study))
        outcome = work(
            context,
            share,
            prepared.identity,
            sample=upto >= STAGES.index("sample"),
            score=upto >= STAGES.index("score"),
            analyse=upto >= STAGES.index("analyse"),
        )
        _say_outcome(context, outcome, last)
        missing = outcome.board.missing
        if not outcome.board.settled:  # others are still at it, and will answer for theirs
            own = {cell.name for cell in share.cells(prepared.study)}
            missing = [name for name in missing if name in own]
        raise_failed(context, outcome.board, missing)
        if report is not None and outcome.complete:
            patience = Patience(context, share.wait_seconds)
            alone(context, "report", lambda: report(context), patience=patience)
    return context


def _claimed(prepared: Prepared, workdir: str | Path, overwrite: bool) -> Workdir:
    """The study's folder, claimed by this process or by process 0 for all of the job."""
    folder = Workdir(
        workdir, prepared.study.name, prepared.identity, prepared.conditions, prepared.marks
    )
    same_study(prepared.identity)
    if job.is_first():
        folder.claim(overwrite)
    check_shared(folder.path)
    return folder


def _say_outcome(context: Context, outcome: Outcome, last: str) -> None:
    total = len(context.study.cells)
    counts = ", ".join(f"{name} {outcome.done[name]}" for name in DONE)
    if any(outcome.done.values()):
        line = f"{total} cells; done this time: {counts}"
        line += "; the rest was there" if outcome.complete else ""
    elif outcome.complete:
        line = f"{total} cells were complete up to the stage {last!r}: nothing recomputed"
    else:
        line = f"{total} cells; nothing done this time"
    if not outcome.complete:
        finished = len(outcome.board.named(State.DONE))
        line += f"; {finished} of {total} cells are done, the rest is left to other workers"
    context.reporter.say(line)
