"""Runs a study: what is missing, stage by stage, up to the stage asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from reprojax.data.subset import DataSpec
from reprojax.errors import InputError
from reprojax.runtime import job
from reprojax.runtime.claims import FOLDER as CLAIMS
from reprojax.runtime.claims import Claims
from reprojax.runtime.console import Reporter
from reprojax.runtime.joint import check_shared, local_mesh, same_study
from reprojax.runtime.mesh import batch_devices, make_mesh
from reprojax.runtime.stop import StopRequest
from reprojax.runtime.workdir import Workdir
from reprojax.sampling.conditions import class_conditions
from reprojax.sampling.noise import NoiseBank, load_noise
from reprojax.scoring.descriptors import check_descriptor
from reprojax.scoring.scores import GIVEN_FEATURES
from reprojax.study.analysing import Analyses, check_analyses
from reprojax.study.board import State, forget_failures
from reprojax.study.context import Banks, Context
from reprojax.study.images import Images, StudyImages
from reprojax.study.models import External
from reprojax.study.stages import take_part
from reprojax.study.study import Study
from reprojax.study.workers import Outcome, Share, Worker

COUNTED = ("trained", "sampled", "described", "scored", "analysed")


@dataclass
class Prepared:
    """A study whose every input has been checked; nothing is written yet.

    Attributes:
        study: The study.
        images: Its images, opened.
        banks: Its noises and conditions.
        hashes: The content hash of every cell, by cell name.
        identity: The hash of the whole study, to which its folder belongs.
        settings_hash: The hash of all but the cells. A study that gains cells keeps its folder.
        marks: What must stay the same of every cell for that, by cell name.
        analyses: All analyses by name.
    """

    study: Study
    images: Images
    banks: Banks
    hashes: dict[str, str]
    identity: str
    settings_hash: str
    marks: dict[str, str]
    analyses: Analyses


def prepare(
    study: Study,
    analyses: Analyses = MappingProxyType({}),
    *,
    images: Images | None = None,
    banks: Banks | None = None,
) -> Prepared:
    """Opens the images, builds the networks and reads given weights: checks all that a user gives.

    Args:
        study: The study.
        analyses: All analyses by name, of which the study may ask for some.
        images: The real images where they are given; by default the study's data source is opened.
        banks: The banks where samples are given; by default the noise bank of the study, and
            conditions where it has conditional models.

    Raises:
        InputError: Something is wrong; the error names the field.
    """
    if images is None or study.scoring.descriptor != GIVEN_FEATURES:
        check_descriptor(study.scoring.descriptor)
    images = images or StudyImages(study)
    check_analyses(study, images, analyses)
    devices = batch_devices(make_mesh(fsdp=study.loop.fsdp))
    for cell in study.cells:
        try:
            cell.model.check(images.shape, images.train(cell), devices)
        except InputError as error:
            if error.field.startswith("training."):
                raise
            raise cell.named(error) from error
    banks = banks or _make_banks(study, images.shape)
    _check_given(study, images, banks)
    prints: dict[DataSpec | None, str] = {}
    hashes: dict[str, str] = {}
    for cell in study.cells:  # a teacher stands before its students
        if cell.data not in prints:
            prints[cell.data] = images.fingerprint(cell)
        hashes[cell.name] = cell.hash(prints[cell.data], hashes.get(cell.model.teacher, ""))
    fingerprints = {**banks.fingerprints, "heldout": images.heldout_fingerprint()}
    return Prepared(
        study=study,
        images=images,
        banks=banks,
        hashes=hashes,
        identity=study.hash(hashes, fingerprints),
        settings_hash=study.settings_hash(fingerprints),
        marks=study.cell_marks(hashes),
        analyses=analyses,
    )


def _make_banks(study: Study, shape: tuple[int, int, int]) -> Banks:
    noise = study.noise
    if noise.path:
        bank = load_noise(noise.path, noise.n, shape)
    else:
        bank = NoiseBank(noise.seed, noise.n, shape)
    conditions = class_conditions(bank.n, study.num_classes) if study.num_classes else None
    record = {"fingerprint": bank.fingerprint(), **bank.describe()}
    return Banks(bank, conditions, bank.n, record)


def _check_given(study: Study, images: Images, banks: Banks) -> None:
    """Raises InputError unless samples that are given have a row for each noise."""
    for cell in study.cells:
        if isinstance(cell.model, External) and banks.noise is not None:
            given, field = cell.model.images, f"models.{cell.name}.path"
            if given.images is None:
                requirement = "must hold images, as the other models of the study have"
                raise InputError(field, cell.model.path, requirement)
            if given.images.shape[1:] != images.shape:
                requirement = f"must hold images of shape {images.shape}, as the study's"
                raise InputError(field, cell.model.path, requirement)
            if len(given) < banks.n:
                requirement = f"has {len(given)} images; must have one for each of {banks.n} noises"
                raise InputError(field, cell.model.path, requirement)


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

    In a job of several processes, process 0 returns when all is done, while the others go on
    waiting for its orders until it calls `reprojax.runtime.job.release`.

    Args:
        prepared: The study, from `prepare`.
        workdir: The folder of the study. It is claimed before anything is written.
        last: The last stage, a name of `STAGES`.
        overwrite: Whether another config's artefacts are removed first.
        reporter: Takes lines and progress.
        share: The cells of this worker, by default all.
        report: Called at the end, by one worker at a time, where all that was asked for is there.

    Returns:
        The context, through which artefacts are read.

    Raises:
        InputError: The folder is another's, or cannot be written.
        DivergedError: Every training run diverged.
        FailedCellsError: All is done but for cells that failed.
        InterruptedRunError: A stop was asked for.
    """
    share = share or Share()
    folder = _claimed(prepared, workdir, overwrite)
    with StopRequest() as stop:
        context = Context(
            study=prepared.study,
            images=prepared.images,
            workdir=folder,
            banks=prepared.banks,
            hashes=prepared.hashes,
            mesh=local_mesh(prepared.study.loop.fsdp),
            reporter=reporter or Reporter(),
            stop=stop,
            claims=Claims(folder.own(CLAIMS), stop),
        )
        if not job.is_first():
            job.follow(partial(take_part, context))
            return context
        if share.retry_failed:
            forget_failures(context, share.cells(prepared.study))
        worker = Worker(context, share, last, prepared.analyses)
        outcome = worker.work(prepared.identity)
        _say_outcome(context, outcome, last)
        worker.raise_failed(outcome.board)
        if report is not None and outcome.complete:
            worker.alone("report", lambda: report(context))
    return context


def _claimed(prepared: Prepared, workdir: str | Path, overwrite: bool) -> Workdir:
    """Returns the study's folder, claimed by this process or by process 0 for all of the job."""
    name, marks = prepared.study.name, prepared.marks
    folder = Workdir(workdir, name, prepared.identity, prepared.settings_hash, marks)
    same_study(prepared.identity)
    if job.is_first():
        folder.claim(overwrite)
    check_shared(folder.path)
    return folder


def _say_outcome(context: Context, outcome: Outcome, last: str) -> None:
    total = len(context.study.cells)
    counts = ", ".join(f"{name} {outcome.counts[name]}" for name in COUNTED)
    if any(outcome.counts.values()):
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
