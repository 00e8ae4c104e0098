"""The stages of one cell: train, sample, describe. Each leaves one whole artefact or none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from reprojax.data.transform import to_uint8
from reprojax.errors import DivergedError, InputError
from reprojax.models.families import count_params
from reprojax.runtime import job
from reprojax.runtime.files import write_json, write_npz
from reprojax.runtime.mesh import make_mesh
from reprojax.sampling.flow import sample_batches
from reprojax.scoring.descriptors import Descriptor
from reprojax.scoring.scores import GIVEN_FEATURES
from reprojax.study.cells import Cell
from reprojax.study.context import Context
from reprojax.study.models import Contrast, External
from reprojax.study.study import Study
from reprojax.training.loop import Run, train
from reprojax.training.packed import train_packed
from reprojax.training.step import StepSpec
from reprojax.training.weights import save_weights

PART = 1024  # noises per part file, so that a killed run of many noises loses few


def is_trained(context: Context, cell: Cell) -> bool:
    """Returns True if a cell's parameters are there, or it needs none."""
    return not cell.model.trains or context.files(cell).weights.exists()


def is_sampled(context: Context, cell: Cell) -> bool:
    """Returns True if all of a cell's samples are there."""
    return isinstance(cell.model, External) or context.files(cell).samples.exists()


def together(context: Context, stage: str, cell: Cell) -> bool:
    """Trains or samples a cell on all processes of the job. Process 0 chooses the cell.

    Args:
        context: The context of process 0, with its own devices.
        stage: "train" or "sample".
        cell: A cell of which this stage is not done.
    """
    order = [stage, cell.name]
    return job.together(order, lambda: take_part(context, *order))


def take_part(context: Context, stage: str, name: str) -> bool:
    """Does this process's part of what `together` has ordered, on the devices of all processes."""
    work = {"train": _train, "sample": _sample}[stage]
    if not job.is_alone():
        context = replace(context, mesh=make_mesh(fsdp=context.study.loop.fsdp))
        job.meet(context.mesh)
    return work(context, context.study.cell(name))


def train_cell(context: Context, cell: Cell) -> bool:
    """Trains a model to its exported weights, unless they are there.

    Returns:
        True if anything was done.
    """
    if is_trained(context, cell):
        return False
    return together(context, "train", cell)


def _train(context: Context, cell: Cell) -> bool:
    if isinstance(cell.model, Contrast):
        return _fit(context, cell)
    run = training_run(context, cell)
    size = count_params(run.spec.module, context.images.shape)
    title = f"train {cell.name} ({size:,} parameters)"
    with context.reporter.task(title, cell.model.training.steps, "steps") as advance:
        params = train(run, stop=context.stop, on_step=advance, log=context.reporter.say)
    _export(context, cell, params)
    return True


def _fit(context: Context, cell: Cell) -> bool:
    """Fits a contrast model."""
    context.files(cell).own_training(with_snapshots=False)
    context.reporter.say(f"fit {cell.name}")
    try:
        params = cell.model.fit(context.images.train(cell))
    except InputError as error:
        raise cell.named(error) from error
    _export(context, cell, params)
    return True


def train_pack(context: Context, cells: Sequence[Cell]) -> dict[str, DivergedError]:
    """Trains untrained networks of equal shape in one program, each to its exported EMA weights.

    Args:
        context: The study's context.
        cells: Claimed cells. They leave the same artefacts as with `train_cell`.

    Returns:
        The errors of cells that diverged, and have no weights, by name.
    """
    runs = [training_run(context, cell) for cell in cells]
    names = ", ".join(cell.name for cell in cells)
    total = sum(cell.model.training.steps for cell in cells)
    title = f"train {len(cells)} packed ({names})"
    with context.reporter.task(title, total, "steps") as advance:
        trained = train_packed(runs, stop=context.stop, on_step=advance, log=context.reporter.say)
    errors = {}
    for cell, params in zip(cells, trained, strict=True):
        if isinstance(params, DivergedError):
            errors[cell.name] = params
        else:
            _export(context, cell, params)
    return errors


def training_run(context: Context, cell: Cell) -> Run:
    """Returns the training run of a cell; lists its files in the manifest and makes its folder."""
    files, model = context.files(cell), cell.model
    files.own_training(with_snapshots=bool(context.study.loop.snapshots))
    teacher = context.study.cell(model.teacher) if model.teacher else None
    return Run(
        name=cell.name,
        spec=training_step(context, cell),
        loop=context.study.loop,
        seed=model.seed,
        train=context.images.train(cell),
        heldout=context.images.heldout,
        directory=files.path,
        conditional=model.num_classes > 0,
        teacher_params=context.params(teacher) if teacher else None,
    )


def training_step(context: Context, cell: Cell) -> StepSpec:
    """Returns the static side of a cell's train step: cells with equal ones can be packed."""
    return cell_step_spec(context.study, context.images.shape, cell, context.mesh)


def cell_step_spec(study: Study, shape: tuple[int, int, int], cell: Cell, mesh: Mesh) -> StepSpec:
    """Returns the static side of a cell's train step.

    Args:
        study: The study.
        shape: (h, w, c) of its images.
        cell: A network that the study trains.
        mesh: The devices.
    """
    model = cell.model
    teacher = study.cell(model.teacher).model if model.teacher else None
    return StepSpec(
        module=cell.network(shape, model.training.dtype),
        precondition=model.precondition(),
        objective=model.make_objective(),
        training=model.training,
        mesh=mesh,
        sharding=study.loop.state_sharding,
        teacher_precondition=teacher.precondition() if teacher else None,
    )


def _export(context: Context, cell: Cell, params: Any) -> None:
    """Writes the facts and the weights of a cell whose training is done."""
    files, model, shape = context.files(cell), cell.model, context.images.shape
    description = {"name": cell.name, "hash": context.hashes[cell.name], "family": model.family}
    facts = {
        **description,
        "params": model.size(shape),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }
    context.stop.require_claim()
    write_json(files.facts, facts)
    metadata = {**description, **model.weights_metadata(), "image_shape": list(shape)}
    save_weights(files.weights, params, metadata)


def sample_cell(context: Context, cell: Cell) -> bool:
    """Samples the whole noise bank, unless that is done; goes on after the last whole part.

    Returns:
        True if anything was done.
    """
    if is_sampled(context, cell):
        context.files(cell).remove_parts()
        return False
    return together(context, "sample", cell)


def _batches(context: Context, cell: Cell, start: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields float images and evaluations of the noises from ``start`` on, in order."""
    function = context.function(cell)
    sampler = context.study.sampler_of(cell)
    if cell.model.samples == "map":
        for first in range(start, context.noise.n, sampler.batch_size):
            z = context.noise.block(first, min(first + sampler.batch_size, context.noise.n))
            yield np.asarray(function(z)), np.ones(len(z))
        return
    conditions = context.conditions(cell)
    options = {"mesh": context.mesh, "start": start, "conditions": conditions}
    yield from sample_batches(function, context.noise, sampler, **options)


def _sample(context: Context, cell: Cell) -> bool:
    files, total = context.files(cell), context.noise.n
    files.own(files.samples, files.parts)
    files.parts.mkdir(parents=True, exist_ok=True)
    images, nfe = files.read_parts()
    images, nfe, done = [images] if len(nfe) else [], [nfe], job.agree(len(nfe))
    fresh: list[tuple[np.ndarray, np.ndarray]] = []
    with context.reporter.task(f"sample {cell.name}", total, "noises") as advance:
        for batch, evaluations in _batches(context, cell, done):
            fresh.append((to_uint8(batch), evaluations))
            done += len(batch)
            context.stop.look()
            stopping = context.stop.requested = job.any_of(context.stop.requested)
            if sum(len(b) for b, _ in fresh) >= PART or done == total or stopping:
                images.append(np.concatenate([b for b, _ in fresh]))
                nfe.append(np.concatenate([e for _, e in fresh]))
                context.stop.require_claim()
                write_npz(files.parts / f"{done:09d}.npz", images=images[-1], nfe=nfe[-1])
                fresh = []
            advance(done, total)
            if stopping and done < total:
                context.stop.check(f"in sampling {cell.name} at {done} of {total}")
    mean = np.mean(np.concatenate(nfe))
    context.stop.require_claim()
    write_npz(files.samples, images=np.concatenate(images), nfe=np.float64(mean))
    files.remove_parts()
    return True


def describe_cell(context: Context, cell: Cell, descriptor: Descriptor) -> bool:
    """Computes the features of a cell's samples, unless they are there or were given.

    Args:
        context: The study's context.
        cell: A cell that is sampled.
        descriptor: From images to features.

    Returns:
        True if anything was done.
    """
    files = context.files(cell)
    path = files.features(descriptor)
    if path.exists() or descriptor.name == GIVEN_FEATURES:
        return False
    images, _ = context.samples(cell)
    files.own(path)
    write_npz(path, features=descriptor(images))
    return True
