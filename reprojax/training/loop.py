"""Trains a run with deterministic batches, metrics, checkpoints and exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
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
from reprojax.rng import root_key, stream
from reprojax.runtime.files import write_bytes
from reprojax.runtime.job import agree, fetch, place_rows
from reprojax.runtime.mesh import batch_devices, batch_sharding
from reprojax.runtime.stop import StopRequest
from reprojax.training.checkpoints import FOLDER as CHECKPOINTS
from reprojax.training.checkpoints import Checkpoints
from reprojax.training.metrics import METRICS, PARAMETERS, MetricsFile
from reprojax.training.snapshots import snapshot_steps, write_snapshot
from reprojax.training.spec import LoopSpec
from reprojax.training.step import StepSpec, TrainState, denoising_losses, train_step
from reprojax.training.weights import to_host

EVAL_SIGMAS = np.geomspace(0.02, 20.0, 10)  # noise levels of an evaluation, in data units
OnStep = Callable[[int, int], None]


@dataclass
class Run:
    """A description of one training run.

    Args:
        name: The name of the run, for messages.
        spec: The static part of its train step.
        loop: The intervals of logs, evaluations and checkpoints.
        seed: The seed of initialisation, batches and noise.
        train: The images to train on.
        heldout: Images to evaluate on as well, or None.
        directory: The folder for checkpoints and metrics.jsonl.
        conditional: Whether the network takes labels.
        teacher_params: The parameters of a network of the same module that this one starts from,
            and distils if its loss does, or None.
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
    """Raises InputError unless each micro-batch divides over the devices."""
    if (batch_size // accumulate) % devices:
        times = f" times accumulate = {accumulate}" if accumulate > 1 else ""
        requirement = f"must be a multiple of the {devices} devices{times}"
        raise InputError("training.batch_size", batch_size, requirement)


def overview(params: Any) -> str:
    """Returns a table of the parameters: names, shapes, sizes, and their total."""
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
        run: The run to train.
        stop: The request to stop, checked after every step and before each save.
        on_step: A function called with the steps taken and the total.
        log: A function that takes a line for the user.

    Returns:
        The EMA parameters as numpy arrays.

    Raises:
        DivergedError: A loss or gradient is not finite; the last good checkpoint is kept.
        InterruptedRunError: A stop was requested; the state is saved.
        LostClaimError: Another worker trains the run now; nothing more is saved.
        InputError: The batch does not divide over the devices.
    """
    with Session(run, stop, log) as session:
        train_alone(session, on_step)
    return to_host(session.state.ema_params)


class Session:
    """The progress of one run: its state and the files that it writes.

    It is a context manager that restores the newest checkpoint and closes the files at the end.
    `train` uses one; a pack uses one for each of its models, so that a run writes the same files
    and can resume either way.

    Args:
        run: The run to train.
        stop: The request to stop, checked before each save.
        log: A function that takes a line for the user.

    Attributes:
        run: The run to train.
        stop: The request to stop.
        root: The run's root key.
        step: The number of steps taken.
        state: The train state after these steps, on the run's own mesh; None before the session
            is entered and while a pack holds the state.

    Raises:
        InputError: The batch does not divide over the devices.
    """

    def __init__(self, run: Run, stop: StopRequest, log: Callable[[str], None] = print):
        training, mesh = run.spec.training, run.spec.mesh
        check_devices(training.batch_size, batch_devices(mesh), training.accumulate)
        self.run, self.stop, self.root = run, stop, root_key(run.seed)
        self.step, self.state = 0, None
        self._snapshots = set(snapshot_steps(training.steps, run.loop.snapshots))
        self._log = log

    def __enter__(self) -> Session:
        run = self.run
        with ExitStack() as stack:
            checkpoints = Checkpoints(run.directory / CHECKPOINTS, run.loop.keep)
            self._checkpoints = stack.enter_context(checkpoints)
            self.step = agree(self._checkpoints.latest or 0)
            self.state = self._first_state()
            self._metrics = MetricsFile(run.directory / METRICS, self.step)
            stack.callback(self._metrics.close)
            self._buffer = _MetricsBuffer(run, self._metrics, self.step)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc) -> None:
        self._stack.__exit__(*exc)

    def _first_state(self) -> TrainState:
        run = self.run
        state = run.spec.init(run.train.shape, self.root)
        if run.teacher_params is not None:
            state = run.spec.adopt(state, run.teacher_params)
        if self.step:
            state = self._checkpoints.restore(self.step, state)
            self._log(f"{run.name}: resumed at step {self.step}")
        else:
            table = run.directory / PARAMETERS
            write_bytes(table, (overview(state.params) + "\n").encode())
            self._log(f"{run.name}: parameters are listed in {table}")
        return state

    @property
    def finished(self) -> bool:
        """Whether the run has taken its last step."""
        return self.step >= self.run.spec.training.steps

    def after_step(
        self,
        values: dict[str, jax.Array],
        state_fn: Callable[[], TrainState],
        *,
        stopping: bool,
        row: int | None = None,
    ) -> None:
        """Counts a step, and logs, evaluates and saves at the intervals of `LoopSpec`.

        Args:
            values: The step's metrics, still on the device.
            state_fn: A function that returns the state after the step. It is called only where
                the state is needed.
            stopping: Whether a stop was requested, so that the state must be saved.
            row: The index of this run in ``values``, or None if all of it is this run's.

        Raises:
            DivergedError: A loss or gradient is not finite; no state after it was saved.
        """
        run, loop, last = self.run, self.run.loop, self.run.spec.training.steps
        self.step = step = self.step + 1
        self._buffer.add(step, values, row)
        checkpoint = step % loop.checkpoint_every == 0 or step == last or stopping
        evaluation = step % loop.eval_every == 0 or step == last
        snapshot = step in self._snapshots
        if checkpoint or evaluation or snapshot or step % loop.log_every == 0:
            self._buffer.flush()  # first, as it raises before a diverged state is saved
        evaluation = evaluation and not run.spec.objective.flow_map
        if not (checkpoint or evaluation or snapshot):
            return
        state = state_fn()
        if evaluation:
            self._metrics.write(step=step, **evaluate(run, state, self.root))
        if checkpoint or snapshot:
            self.stop.require_claim()
        if snapshot:
            write_snapshot(run.directory, step, state.ema_params)
        if checkpoint:
            self._checkpoints.save(step, state, {"seed": run.seed, "steps": last})


def train_alone(session: Session, on_step: OnStep | None = None) -> None:
    """Takes the remaining steps of a session, one jitted call per step; see `train`."""
    run, stop, last = session.run, session.stop, session.run.spec.training.steps
    for images, labels in _batches(run, session.step):
        state, values = train_step(session.state, images, labels, session.root, spec=run.spec)
        session.state = state
        stop.look()
        # Read once: a later request saves the state a step later.
        stopping = stop.at_step(session.step + 1)
        session.after_step(values, lambda: session.state, stopping=stopping)
        if on_step:
            on_step(session.step, last)
        if stopping and not session.finished:
            stop.check(f"in training {run.name} at step {session.step} of {last}")


def batch_schedule(run: Run) -> BatchSchedule:
    """Returns the schedule of the images that each step of a run trains on."""
    return BatchSchedule(len(run.train), run.spec.training.batch_size, run.seed)


def read_batch(
    run: Run, schedule: BatchSchedule, step: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns a step's images, uint8 `[batch, h, w, c]`, and labels, int32 `[batch]` or None."""
    positions = schedule.indices(step)
    return run.train.take(positions), run.train.labels[positions] if run.conditional else None


def read_ahead(read: Callable[[int], Any], first: int, last: int) -> Iterator[Any]:
    """Yields read(first) to read(last - 1); a thread reads one while the caller uses another."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(read, first)
        for step in range(first, last):
            batch = future.result()
            if step + 1 < last:
                future = pool.submit(read, step + 1)
            yield batch


def _batches(run: Run, first: int) -> Iterator[tuple[jax.Array, jax.Array | None]]:
    """Yields the batches of the steps from ``first`` on, on the devices."""
    schedule, sharding = batch_schedule(run), batch_sharding(run.spec.mesh)

    def read(step: int):
        positions = schedule.indices(step)
        images = place_rows(run.train.take, positions, sharding)
        if not run.conditional:
            return images, None
        return images, place_rows(lambda rows: run.train.labels[rows], positions, sharding)

    return read_ahead(read, first, run.spec.training.steps)


def evaluate(run: Run, state: TrainState, root: jax.Array) -> dict[str, Any]:
    """Returns the EMA network's denoising loss per noise level, on training and held-out images.

    Both are means over equally many images with the same noises. If there are fewer training
    images, they are repeated, each time with another noise.
    """
    denoise = NetworkDenoiser(state.ema_params, run.spec.module, run.spec.precondition)
    sigmas = jnp.asarray(EVAL_SIGMAS, jnp.float32)
    key = stream(root, "evaluate")
    count = min([run.loop.eval_images] + [len(s) for s in [run.heldout] if s])

    def losses(subset: Subset | None) -> list[float] | None:
        if subset is None:
            return None
        positions = subset.cycle(count)
        labels = jnp.asarray(subset.labels[positions]) if run.conditional else None
        values = denoising_losses(denoise, subset.take(positions), labels, sigmas, key)
        return [float(f"{v:.6g}") for v in fetch(values)]

    levels = [float(f"{s:.6g}") for s in EVAL_SIGMAS]
    return {"sigma": levels, "loss_train": losses(run.train), "loss_heldout": losses(run.heldout)}


class _MetricsBuffer:
    """A buffer that keeps the metrics of the last steps on the device until they are written."""

    def __init__(self, run: Run, metrics: MetricsFile, first: int):
        self._run, self._metrics = run, metrics
        self._pending: list[tuple[int, dict, int | None]] = []
        self._last_time, self._last_step = time.perf_counter(), first

    def add(self, step: int, values: dict[str, jax.Array], row: int | None) -> None:
        self._pending.append((step, values, row))

    def flush(self) -> None:
        if not self._pending:
            return
        steps = [step for step, _, _ in self._pending]
        host_values = fetch([values for _, values, _ in self._pending])
        indices = [row for _, _, row in self._pending]
        rows = [
            values if i is None else {k: v[i] for k, v in values.items()}
            for values, i in zip(host_values, indices, strict=True)
        ]
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
        speed = (steps[-1] - self._last_step) * batch / (now - self._last_time)
        self._last_time, self._last_step = now, steps[-1]
        mean = {k: float(np.mean([row[k] for row in rows])) for k in ("loss", "grad_norm")}
        self._metrics.write(
            step=steps[-1],
            images=steps[-1] * batch,
            loss=float(f"{mean['loss']:.6g}"),
            grad_norm=float(f"{mean['grad_norm']:.6g}"),
            lr=float(f"{float(rows[-1]['lr']):.6g}"),
            images_per_sec=round(speed, 1),
        )
