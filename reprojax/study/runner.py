"""Runs a study: what is missing, stage by stage, up to the stage asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reprojax.errors import InputError
from reprojax.mesh import DATA_AXIS, make_mesh
from reprojax.models.families import param_shapes
from reprojax.sampling.noise import NoiseBank, load_noise
from reprojax.scoring.descriptors import descriptor_class
from reprojax.study.analyses.run import check_analyses, run_analyses
from reprojax.study.cells import Cell, DataSpec, Study
from reprojax.study.images import StudyImages
from reprojax.study.progress import Reporter
from reprojax.study.scores import read_scores, score_study
from reprojax.study.stages import Context, cell_network, sample_cell, train_cell
from reprojax.study.workdir import Workdir
from reprojax.training.loop import check_devices
from reprojax.training.signals import StopRequest
from reprojax.training.weights import load_weights, weights_metadata

STAGES = ("train", "sample", "score", "analyse")


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
    """

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
    check_analyses(study, images)
    devices = make_mesh().shape[DATA_AXIS]
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
    return Prepared(study, images, bank, hashes, fingerprint, identity)


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
            reporter=reporter or Reporter(),
            stop=stop,
        )
        done = _run_stages(context, STAGES.index(last), prepared.identity)
    total = len(prepared.study.cells)
    if not any(done.values()):
        line = f"{total} cells were complete up to the stage {last!r}: nothing recomputed"
    else:
        counts = ", ".join(f"{name} {n}" for name, n in done.items())
        line = f"{total} cells; done this time: {counts}; the rest was there"
    context.reporter.say(line)
    return context


def _run_stages(context: Context, last: int, identity: str) -> dict[str, int]:
    done = dict.fromkeys(("trained", "sampled", "described", "scored", "analysed"), 0)
    for cell in context.study.cells:
        done["trained"] += train_cell(context, cell)
        context.stop.check(f"after training {cell.name}")
        if last >= STAGES.index("sample"):
            done["sampled"] += sample_cell(context, cell)
            context.stop.check(f"after sampling {cell.name}")
    scored = read_scores(context.workdir.path, identity) is not None
    if last >= STAGES.index("score") and not scored:
        done["described"] = score_study(context, identity)
        done["scored"] = 1
    if last >= STAGES.index("analyse"):
        done["analysed"] = run_analyses(context, identity)
    return done
