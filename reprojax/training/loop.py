"""The training loop: deterministic batches, metrics, checkpoints, exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview

from reprojax.data.batches import BatchSchedule
from reprojax.data.subset import Subset
from reprojax.denoisers.network import NetworkDenoiser
from reprojax.errors import DivergedError, InputError
from reprojax.files import write_bytes
from reprojax.mesh import DATA_AXIS, batch_sharding
from reprojax.rng import root_key, stream
from reprojax.training.checkpoints import Checkpoints
from reprojax.training.metrics import MetricsFile
from reprojax.training.signals import StopRequest
from reprojax.training.snapshots import snapshot_steps, write_snapshot
from reprojax.training.spec import LoopSpec
from reprojax.training.step import StepSpec, TrainState, denoising_losses, train_step
from reprojax.training.weights import to_host

EVAL_SIGMAS = np.geomspace(0.02, 20.0, 10)  # bins of the loss per noise level, data units
OnStep = Callable[[int, int], None]


@dataclass
class Run:
    """One training run.

    Args:
        name: for messages.
        spec: the static side of its step.
        loop: how it is watched and saved.
        seed: of initialisation, batches and noise.
        train: images to train on.
        heldout: images to evaluate on beside them, or None.
        directory: where checkpoints and metrics.jsonl go.
        conditional: whether labels are fed to the network.
        teacher_params: of a trained network of the same module that this one starts from (and
            distils, where its loss does), or None.
    """

    name: str
    spec: StepSpec
    loop: LoopSpec
    seed: int
    train: Subset
    heldout: Subset | None
    directory: Path
    conditional: bool = False
    teacher_params: Any = None


def check_devices(batch_size: int, devices: int, accumulate: int = 1) -> None:
    """Raises InputError unless each device gets an equal share of each micro-batch."""
    if (batch_size // accumulate) % devices:
        raise InputError(
            "training.batch_size",
            batch_size,
            f"batch_size / accumulate must be a multiple of the {devices} devices",
        )


def overview(params: Any) -> str:
    """A table of the parameters: names, shapes, sizes, and their total."""
    return parameter_overview.get_parameter_overview(params, include_stats=False)


def train(
    run: Run,
    *,
    stop: StopRequest,
    on_step: OnStep | None = None,
    log: Callable[[str], None] = print,
) -> Any:
    """Trains from the newest checkpoint (or from the start) to the last step.

    Args:
        run: what to train.
        stop: asked after every step, and before each save.
        on_step: called with (steps done, steps in all).
        log: takes lines for the user.

    Returns:
        The EMA parameters as numpy arrays.

    Raises:
        DivergedError: a loss or gradient is not finite; the last good checkpoint is kept.
        InterruptedRunError: a stop was asked for; the state is saved.
        LostClaimError: another worker trains it now; nothing more is saved.
        InputError: the batch does not divide over the devices.
    """
    training, mesh = run.spec.training, run.spec.mesh
    check_devices(training.batch_size, mesh.shape[DATA_AXIS], training.accumulate)
    root = root_key(run.seed)
    with Checkpoints(run.directory / "checkpoints", run.loop.keep) as checkpoints:
        state = run.spec.init(run.train.shape, root)
        if run.teacher_params is not None:
            state = run.spec.adopt(state, run.teacher_params)
        first = checkpoints.latest or 0
        if first:
            state = checkpoints.restore(first, state)
            log(f"{run.name}: resumed at step {first}")
        else:
            table = run.directory / "parameters.txt"
            write_bytes(table, (overview(state.params) + "\n").encode())
            log(f"{run.name}: parameters are listed in {table}")
        metrics = MetricsFile(run.directory / "metrics.jsonl", first)
        try:
            state = _steps(run, state, first, root, metrics, checkpoints, stop, on_step)
        finally:
            metrics.close()
    return to_host(state.ema_params)


def _steps(run, state, first, root, metrics, checkpoints, stop, on_step) -> TrainState:
    loop, last = run.loop, run.spec.training.steps
    watch = _Watch(run, metrics, first)
    kept = set(snapshot_steps(last, loop.snapshots))
    for step, images, labels in _batches(run, first):
        state, values = train_step(state, images, labels, root, spec=run.spec)
        done = step + 1
        watch.add(done, values)
        stop.look()
        stopping = stop.requested  # read once: what asks to stop later is saved a step later
        due = done % loop.checkpoint_every == 0 or done == last or stopping
        evaluating = done % loop.eval_every == 0 or done == last
        if due or evaluating or done in kept or done % loop.log_every == 0:
            watch.flush()  # first: what is not finite is neither saved nor evaluated
        if evaluating and not run.spec.objective.flow_map:
            metrics.write(step=done, **evaluate(run, state, root))
        if due or done in kept:
            stop.require_claim()
        if done in kept:
            write_snapshot(run.directory, done, state.ema_params)
        if due:
            checkpoints.save(done, state, {"seed": run.seed, "steps": last})
        if on_step:
            on_step(done, last)
        if stopping and done < last:
            stop.check(f"in training {run.name} at step {done} of {last}")
    return state


def _batches(run: Run, first: int) -> Iterator[tuple[int, jax.Array, jax.Array | None]]:
    """Batches of the steps from ``first`` on, read one step ahead in a thread."""
    training = run.spec.training
    schedule = BatchSchedule(n=len(run.train), batch_size=training.batch_size, seed=run.seed)
    sharding = batch_sharding(run.spec.mesh)

    def read(step):
        positions = schedule.indices(step)
        labels = run.train.labels[positions] if run.conditional else None
        images = jax.device_put(run.train.take(positions), sharding)
        return images, None if labels is None else jax.device_put(labels, sharding)

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(read, first)
        for step in range(first, training.steps):
            images, labels = ahead.result()
            if step + 1 < training.steps:
                ahead = pool.submit(read, step + 1)
            yield step, images, labels


def evaluate(run: Run, state: TrainState, root: jax.Array) -> dict[str, Any]:
    """Denoising loss of the EMA network per noise level, on training and on held-out images."""
    denoise = NetworkDenoiser(state.ema_params, run.spec.module, run.spec.precondition)
    sigmas = jnp.asarray(EVAL_SIGMAS, jnp.float32)
    key = stream(root, "evaluate")
    count = min([run.loop.eval_images, len(run.train)] + [len(s) for s in [run.heldout] if s])

    def losses(subset: Subset | None) -> list[float] | None:
        if subset is None:
            return None
        labels = jnp.asarray(subset.labels[:count]) if run.conditional else None
        values = denoising_losses(denoise, subset.images(0, count), labels, sigmas, key)
        return [float(f"{v:.6g}") for v in np.asarray(values)]

    levels = [float(f"{s:.6g}") for s in EVAL_SIGMAS]
    return {"sigma": levels, "loss_train": losses(run.train), "loss_heldout": losses(run.heldout)}


class _Watch:
    """Holds the values of the last steps on the device; fetches, checks and writes them at once."""

    def __init__(self, run: Run, metrics: MetricsFile, first: int):
        self._run, self._metrics = run, metrics
        self._pending: list[tuple[int, dict]] = []
        self._since, self._from = time.perf_counter(), first

    def add(self, step: int, values: dict[str, jax.Array]) -> None:
        self._pending.append((step, values))

    def flush(self) -> None:
        if not self._pending:
            return
        steps = [step for step, _ in self._pending]
        rows = jax.device_get([values for _, values in self._pending])
        self._pending = []
        for name in ("loss", "grad_norm"):
            bad = [s for s, row in zip(steps, rows, strict=True) if not math.isfinite(row[name])]
            if bad:
                raise DivergedError(
                    f"{self._run.name}: {name} is not finite at step {bad[0]}"
                    f" ({len(bad)} of the steps {steps[0]}-{steps[-1]}); the last good checkpoint"
                    " is kept; lower training.learning_rate or training.grad_clip"
                )
        batch = self._run.spec.training.batch_size
        now = time.perf_counter()
        speed = (steps[-1] - self._from) * batch / (now - self._since)
        self._since, self._from = now, steps[-1]
        mean = {k: float(np.mean([row[k] for row in rows])) for k in ("loss", "grad_norm")}
        self._metrics.write(
            step=steps[-1],
            images=steps[-1] * batch,
            loss=float(f"{mean['loss']:.6g}"),
            grad_norm=float(f"{mean['grad_norm']:.6g}"),
            lr=float(f"{float(rows[-1]['lr']):.6g}"),
            images_per_sec=round(speed, 1),
        )
