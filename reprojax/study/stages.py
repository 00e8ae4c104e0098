"""The stages of one cell: train, sample, describe. Each leaves one whole artefact or none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from reprojax.data.mixture import mixture_of
from reprojax.data.transform import to_float, to_uint8
from reprojax.denoisers.gaussian import gaussian_denoiser
from reprojax.denoisers.mixture import population_denoiser
from reprojax.denoisers.network import network_function
from reprojax.denoisers.optimum import empirical_optimum
from reprojax.errors import DivergedError, InputError
from reprojax.models.families import Network, build_network, count_params, param_shapes
from reprojax.runtime import job
from reprojax.runtime.claims import Claims
from reprojax.runtime.console import Reporter
from reprojax.runtime.files import content_hash, remove, write_json, write_npz
from reprojax.runtime.mesh import make_mesh
from reprojax.runtime.stop import StopRequest
from reprojax.sampling.conditions import ConditionBank, class_conditions
from reprojax.sampling.flow import sample_batches
from reprojax.sampling.noise import NoiseBank
from reprojax.scoring.descriptors import Descriptor
from reprojax.study.cells import Cell, Study
from reprojax.study.images import StudyImages, image_blocks
from reprojax.study.workdir import Workdir
from reprojax.training.checkpoints import FOLDER as CHECKPOINTS
from reprojax.training.checkpoints import newest_step
from reprojax.training.loop import Run, train
from reprojax.training.packed import train_packed
from reprojax.training.snapshots import FOLDER as SNAPSHOTS
from reprojax.training.step import StepSpec
from reprojax.training.weights import load_weights, save_weights
from reprojax.types import DenoiseFn

SPLIT_BYTES = 1 << 30  # of training images, from which on devices share the optimum's
PART = 1024  # noises per part file, so that a killed run of many noises loses few


@dataclass
class Context:
    """What all stages of a study share.

    Args:
        study: the cells.
        images: its images.
        workdir: claimed.
        bank: the noises.
        noise_fingerprint: of the bank.
        hashes: of each cell by name.
        mesh: devices of this process; `together` is on those of all.
        reporter: takes progress.
        stop: asked between units of work, and before each write.
        claims: on what this worker does.
    """

    study: Study
    images: StudyImages
    workdir: Workdir
    bank: NoiseBank
    noise_fingerprint: str
    hashes: dict[str, str]
    mesh: Mesh
    reporter: Reporter
    stop: StopRequest
    claims: Claims

    def folder(self, cell: Cell) -> str:
        """The cell's folder in the workdir: its name, and the head of its hash."""
        return f"cells/{self.claim_name(cell)}"

    def claim_name(self, cell: Cell) -> str:
        """Under which the cell is claimed."""
        return f"{cell.name}-{self.hashes[cell.name][:8]}"


def cell_network(cell: Cell, shape: tuple[int, int, int], dtype: str = "float32") -> Network:
    """The network of a cell for images of this shape; errors name the model.

    Training may compute in another dtype; sampling is float32 for all, for a fair comparison.
    """
    try:
        return build_network(cell.family, shape, dict(cell.network), dtype)
    except InputError as error:
        if error.field.startswith("data."):
            allowed = f"{error.requirement} (models.{cell.name})"
            raise InputError(error.field, error.value, allowed) from error
        raise error.under(f"models.{cell.name}.") from error


def is_trained(context: Context, cell: Cell) -> bool:
    """Whether a cell's parameters are there, or it needs none."""
    weights = context.workdir.path / context.folder(cell) / "weights.safetensors"
    return cell.kind == "closed_form" or bool(cell.weights) or weights.exists()


def steps_done(context: Context, cell: Cell) -> int:
    """The step that a cell's training would go on from."""
    return newest_step(context.workdir.path / context.folder(cell) / CHECKPOINTS)


def is_sampled(context: Context, cell: Cell) -> bool:
    """Whether all of a cell's samples are there."""
    return (context.workdir.path / _samples_name(context, cell)).exists()


def together(context: Context, what: str, cell: Cell) -> bool:
    """Has all processes of the job train or sample a cell, which process 0 has chosen.

    Args:
        context: of process 0, on its own devices.
        what: "train" or "sample".
        cell: its stage is not done.
    """
    order = [what, cell.name]
    return job.together(order, lambda: take_part(context, *order))


def take_part(context: Context, what: str, name: str) -> bool:
    """This process's part in what `together` has ordered, on the devices of all processes."""
    work = {"train": _train, "sample": _sample}[what]
    if not job.is_alone():
        context = replace(context, mesh=make_mesh(fsdp=context.study.loop.fsdp))
        job.meet(context.mesh)
    return work(context, context.study.cell(name))


def train_cell(context: Context, cell: Cell) -> bool:
    """Trains a network to its exported EMA weights, unless they are there.

    Returns:
        Whether anything was done.
    """
    if is_trained(context, cell):
        return False
    return together(context, "train", cell)


def _train(context: Context, cell: Cell) -> bool:
    run = training_run(context, cell)
    size = count_params(run.spec.module, context.images.shape)
    title = f"train {cell.name} ({size:,} parameters)"
    with context.reporter.task(title, cell.training.steps, "steps") as advance:
        params = train(run, stop=context.stop, on_step=advance, log=context.reporter.say)
    _export(context, cell, params)
    return True


def train_pack(context: Context, cells: Sequence[Cell]) -> dict[str, DivergedError]:
    """Trains untrained networks of equal shape in one program, each to its exported EMA weights.

    Args:
        context: of the study.
        cells: claimed; they leave the same artefacts as `train_cell`.

    Returns:
        By name the errors of those that diverged, which have no weights.
    """
    runs = [training_run(context, cell) for cell in cells]
    names = ", ".join(cell.name for cell in cells)
    total = sum(cell.training.steps for cell in cells)
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
    """The training run of a cell; its files are listed in the manifest and its folder is made."""
    folder = context.folder(cell)
    files = (CHECKPOINTS, "metrics.jsonl", "parameters.txt", "cell.json", "weights.safetensors")
    for name in (*files, *([SNAPSHOTS] if context.study.loop.snapshots else [])):
        context.workdir.own(f"{folder}/{name}")
    directory = context.workdir.path / folder
    directory.mkdir(parents=True, exist_ok=True)
    teacher = context.study.cell(cell.teacher) if cell.teacher else None
    return Run(
        name=cell.name,
        spec=training_step(context, cell),
        loop=context.study.loop,
        seed=cell.seed,
        train=context.images.train(cell),
        heldout=context.images.heldout,
        directory=directory,
        conditional=cell.num_classes > 0,
        teacher_params=cell_params(context, teacher) if teacher else None,
    )


def training_step(context: Context, cell: Cell) -> StepSpec:
    """The static side of a cell's train step: cells for which it is equal can be packed."""
    return cell_step_spec(context.study, context.images.shape, cell, context.mesh)


def cell_step_spec(study: Study, shape: tuple[int, int, int], cell: Cell, mesh: Mesh) -> StepSpec:
    """The static side of a cell's train step.

    Args:
        study: of the cell.
        shape: (h, w, c) of its images.
        cell: a network that is trained.
        mesh: devices.
    """
    teacher = study.cell(cell.teacher) if cell.teacher else None
    return StepSpec(
        module=cell_network(cell, shape, cell.training.dtype),
        precondition=cell.precondition(),
        objective=cell.make_objective(),
        training=cell.training,
        mesh=mesh,
        sharding=study.loop.state_sharding,
        teacher_precondition=teacher.precondition() if teacher else None,
    )


def _export(context: Context, cell: Cell, params: Any) -> None:
    """Writes the facts and the EMA weights of a cell whose training is done."""
    directory, shape = context.workdir.path / context.folder(cell), context.images.shape
    size = count_params(cell_network(cell, shape), shape)
    description = {"name": cell.name, "hash": context.hashes[cell.name], "family": cell.family}
    facts = {
        **description,
        "params": size,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }
    context.stop.require_claim()
    write_json(directory / "cell.json", facts)
    network = {"network": dict(cell.network), "image_shape": list(shape)}
    metadata = {**description, **cell.weights_facts(), **network}
    save_weights(directory / "weights.safetensors", params, metadata)


def cell_params(context: Context, cell: Cell) -> Any:
    """The trained or given parameters of a network."""
    like = param_shapes(cell_network(cell, context.images.shape), context.images.shape)
    trained = context.workdir.path / context.folder(cell) / "weights.safetensors"
    return load_weights(cell.weights or trained, like, f"models.{cell.name}.weights")


def cell_denoiser(context: Context, cell: Cell) -> DenoiseFn:
    """The cell's denoiser (or flow map): its trained or given weights, or its closed form."""
    subset = context.images.train(cell)
    if cell.family == "optimum":
        images = to_float(subset.images())
        return empirical_optimum(images, mesh=context.mesh if _is_large(images, context) else None)
    if cell.family == "gaussian":
        return gaussian_denoiser(to_float(block) for block in image_blocks(subset))
    if cell.family == "population":
        return population_denoiser(mixture_of(context.study.data.source))
    bind = network_function(cell.kind)
    module = cell_network(cell, context.images.shape)
    return bind(cell_params(context, cell), module, cell.precondition())


def bank_conditions(cell: Cell, n: int) -> ConditionBank | None:
    """The conditions of the noises; None for an unconditional model."""
    return class_conditions(n, cell.num_classes) if cell.num_classes else None


def _is_large(images: np.ndarray, context: Context) -> bool:
    """Whether a training set is worth the exchange between devices that dividing it costs."""
    adaptive = context.study.sampler.adaptive  # solves a batch per device, with all images on each
    return images.nbytes >= SPLIT_BYTES and context.mesh.devices.size > 1 and not adaptive


def read_samples(context: Context, cell: Cell) -> tuple[np.ndarray, float] | None:
    """The cell's images uint8 `[n, h, w, c]` and evaluations per image, or None before sampling."""
    path = context.workdir.path / _samples_name(context, cell)
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as data:
        return data["images"], float(data["nfe"])


def _samples_id(context: Context, cell: Cell) -> str:
    sampler = context.study.sampler_of(cell)
    return content_hash([context.noise_fingerprint, sampler.identity()], 8)


def _samples_name(context: Context, cell: Cell) -> str:
    return f"{context.folder(cell)}/samples-{_samples_id(context, cell)}.npz"


def _parts_name(context: Context, cell: Cell) -> str:
    return f"{context.folder(cell)}/parts-{_samples_id(context, cell)}"


def sample_cell(context: Context, cell: Cell) -> bool:
    """Samples the whole bank, unless that is done; goes on after the last whole part.

    Returns:
        Whether anything was done.
    """
    if is_sampled(context, cell):
        remove_parts(context, cell)
        return False
    return together(context, "sample", cell)


def _sample(context: Context, cell: Cell) -> bool:
    target = context.workdir.own(_samples_name(context, cell))
    parts = context.workdir.own(_parts_name(context, cell))
    parts.mkdir(parents=True, exist_ok=True)
    images, nfe = _read_parts(parts)
    images, nfe, done = [images] if len(nfe) else [], [nfe], job.agree(len(nfe))
    fresh: list[tuple[np.ndarray, np.ndarray]] = []
    total = context.bank.n
    with context.reporter.task(f"sample {cell.name}", total, "noises") as advance:
        denoise = cell_denoiser(context, cell)
        batches = sample_batches(
            denoise,
            context.bank,
            context.study.sampler_of(cell),
            mesh=context.mesh,
            start=done,
            conditions=bank_conditions(cell, total),
        )
        for batch, evaluations in batches:
            fresh.append((to_uint8(batch), evaluations))
            done += len(batch)
            context.stop.look()
            stopping = context.stop.requested = job.any_of(context.stop.requested)
            if sum(len(b) for b, _ in fresh) >= PART or done == total or stopping:
                images.append(np.concatenate([b for b, _ in fresh]))
                nfe.append(np.concatenate([e for _, e in fresh]))
                context.stop.require_claim()
                write_npz(parts / f"{done:09d}.npz", images=images[-1], nfe=nfe[-1])
                fresh = []
            advance(done, total)
            if stopping and done < total:
                context.stop.check(f"in sampling {cell.name} at {done} of {total}")
    mean = np.mean(np.concatenate(nfe))
    context.stop.require_claim()
    write_npz(target, images=np.concatenate(images), nfe=np.float64(mean))
    remove_parts(context, cell)
    return True


def remove_parts(context: Context, cell: Cell) -> None:
    """Removes the parts of a sampled cell: a run killed before it could leaves them."""
    remove(context.workdir.path / _parts_name(context, cell))


def _read_parts(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    images, nfe = [], [np.zeros(0)]
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as data:
            images.append(data["images"])
            nfe.append(data["nfe"])
    return np.concatenate(images) if images else np.zeros(0, np.uint8), np.concatenate(nfe)


def describe_cell(context: Context, cell: Cell, descriptor: Descriptor) -> bool:
    """Computes the features of a cell's samples, unless they are there.

    Args:
        context: of the study.
        cell: sampled already.
        descriptor: from images to features.

    Returns:
        Whether anything was done.
    """
    name = _features_name(context, cell, descriptor)
    if (context.workdir.path / name).exists():
        return False
    images, _ = read_samples(context, cell)
    write_npz(context.workdir.own(name), features=descriptor(images))
    return True


def read_features(context: Context, cell: Cell, descriptor: Descriptor) -> np.ndarray:
    """The features of a described cell, float32 `[n, d]`."""
    with np.load(context.workdir.path / _features_name(context, cell, descriptor)) as data:
        return data["features"]


def _features_name(context: Context, cell: Cell, descriptor: Descriptor) -> str:
    tag = content_hash([descriptor.name, descriptor.identity()], 8)
    return f"{context.folder(cell)}/features-{_samples_id(context, cell)}-{tag}.npz"


def cell_facts(context: Context, cell: Cell) -> dict[str, Any]:
    """What training wrote about a cell (parameters, device), or nothing."""
    try:
        return json.loads((context.workdir.path / context.folder(cell) / "cell.json").read_text())
    except FileNotFoundError:
        return {}
