"""The training loop: deterministic batches, metrics, checkpoints, exact resume."""

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
from reprojax.training.metrics import MetricsFile
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
    with Session(run, stop, log) as session:
        train_alone(session, on_step)
    return to_host(session.state.ema_params)


class Session:
    """One run under way: its state from the newest checkpoint on, and what it writes.

    A context manager that closes its files. `train` has one; a pack has one for each of its models,
    so that a run leaves the same artefacts either way and can go on either way.

    Args:
        run: what is trained.
        stop: asked before each save.
        log: takes lines for the user.

    Attributes:
        run: the same.
        stop: the same.
        root: its root key.
        done: steps that have been taken.
        state: the train state after them, laid out on the run's own mesh; None before the session
            is entered and while a pack holds it.

    Raises:
        InputError: the batch does not divide over the devices.
    """

    def __init__(self, run: Run, stop: StopRequest, log: Callable[[str], None] = print):
        training, mesh = run.spec.training, run.spec.mesh
        check_devices(training.batch_size, batch_devices(mesh), training.accumulate)
        self.run, self.stop, self.root = run, stop, root_key(run.seed)
        self.done, self.state = 0, None
        self._snapshots = set(snapshot_steps(training.steps, run.loop.snapshots))
        self._log = log

    def __enter__(self) -> Session:
        run = self.run
        with ExitStack() as opened:
            checkpoints = Checkpoints(run.directory / CHECKPOINTS, run.loop.keep)
            self._checkpoints = opened.enter_context(checkpoints)
            self.done = agree(self._checkpoints.latest or 0)
            self.state = self._first_state()
            self._metrics = MetricsFile(run.directory / "metrics.jsonl", self.done)
            opened.callback(self._metrics.close)
            self._watch = _Watch(run, self._metrics, self.done)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *exc) -> None:
        self._opened.__exit__(*exc)

    def _first_state(self) -> TrainState:
        run = self.run
        state = run.spec.init(run.train.shape, self.root)
        if run.teacher_params is not None:
            state = run.spec.adopt(state, run.teacher_params)
        if self.done:
            state = self._checkpoints.restore(self.done, state)
            self._log(f"{run.name}: resumed at step {self.done}")
        else:
            table = run.directory / "parameters.txt"
            write_bytes(table, (overview(state.params) + "\n").encode())
            self._log(f"{run.name}: parameters are listed in {table}")
        return state

    @property
    def finished(self) -> bool:
        """Whether the last step was taken."""
        return self.done >= self.run.spec.training.steps

    def after_step(
        self,
        values: dict[str, jax.Array],
        state_fn: Callable[[], TrainState],
        *,
        stopping: bool,
        row: int | None = None,
    ) -> None:
        """Notes a step, and logs, evaluates and saves where that is due.

        Args:
            values: of the step, still on the device.
            state_fn: gives the state after the step; called only where it is needed.
            stopping: whether a stop was asked for: the state is saved.
            row: which entry of ``values`` is this run's, or None where all is.

        Raises:
            DivergedError: a loss or gradient is not finite; nothing of it was saved.
        """
        run, loop, last = self.run, self.run.loop, self.run.spec.training.steps
        self.done = done = self.done + 1
        self._watch.add(done, values, row)
        due = done % loop.checkpoint_every == 0 or done == last or stopping
        evaluating = done % loop.eval_every == 0 or done == last
        keeping = done in self._snapshots
        if due or evaluating or keeping or done % loop.log_every == 0:
            self._watch.flush()  # first: what is not finite is neither saved nor evaluated
        evaluating = evaluating and not run.spec.objective.flow_map
        if not (due or evaluating or keeping):
            return
        state = state_fn()
        if evaluating:
            self._metrics.write(step=done, **evaluate(run, state, self.root))
        if due or keeping:
            self.stop.require_claim()
        if keeping:
            write_snapshot(run.directory, done, state.ema_params)
        if due:
            self._checkpoints.save(done, state, {"seed": run.seed, "steps": last})


def train_alone(session: Session, on_step: OnStep | None = None) -> None:
    """Takes the steps that a session still lacks, one jitted step per call; see `train`."""
    run, stop, last = session.run, session.stop, session.run.spec.training.steps
    for images, labels in _batches(run, session.done):
        state, values = train_step(session.state, images, labels, session.root, spec=run.spec)
        session.state = state
        stop.look()
        # Read once: what asks to stop later is saved a step later.
        stopping = stop.at_step(session.done + 1)
        session.after_step(values, lambda: session.state, stopping=stopping)
        if on_step:
            on_step(session.done, last)
        if stopping and not session.finished:
            stop.check(f"in training {run.name} at step {session.done} of {last}")


def schedule_of(run: Run) -> BatchSchedule:
    """Which images each step of a run sees."""
    return BatchSchedule(len(run.train), run.spec.training.batch_size, run.seed)


def read_batch(
    run: Run, schedule: BatchSchedule, step: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Images uint8 `[batch, h, w, c]` and labels int32 `[batch]` (or None) of a step."""
    positions = schedule.indices(step)
    return run.train.take(positions), run.train.labels[positions] if run.conditional else None


def read_ahead(read: Callable[[int], Any], first: int, last: int) -> Iterator[Any]:
    """read(first) to read(last - 1), each read in a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(read, first)
        for step in range(first, last):
            got = ahead.result()
            if step + 1 < last:
                ahead = pool.submit(read, step + 1)
            yield got


def _batches(run: Run, first: int) -> Iterator[tuple[jax.Array, jax.Array | None]]:
    """Batches of the steps from ``first`` on, on the devices."""
    schedule, sharding = schedule_of(run), batch_sharding(run.spec.mesh)

    def read(step: int):
        positions = schedule.indices(step)
        images = place_rows(run.train.take, positions, sharding)
        if not run.conditional:
            return images, None
        return images, place_rows(lambda rows: run.train.labels[rows], positions, sharding)

    return read_ahead(read, first, run.spec.training.steps)


def evaluate(run: Run, state: TrainState, root: jax.Array) -> dict[str, Any]:
    """Denoising loss of the EMA network per noise level, on training and on held-out images.

    Both are means over equally many images with the same noises; where there are fewer training
    images they are taken again, each time with another noise.
    """
    denoise = NetworkDenoiser(state.ema_params, run.spec.module, run.spec.precondition)
    sigmas = jnp.asarray(EVAL_SIGMAS, jnp.float32)
    key = stream(root, "evaluate")
    count = min([run.loop.eval_images] + [len(s) for s in [run.heldout] if s])

    def losses(subset: Subset | None) -> list[float] | None:
        if subset is None:
            return None
        chosen = subset.cycle(count)
        labels = jnp.asarray(subset.labels[chosen]) if run.conditional else None
        values = denoising_losses(denoise, subset.take(chosen), labels, sigmas, key)
        return [float(f"{v:.6g}") for v in fetch(values)]

    levels = [float(f"{s:.6g}") for s in EVAL_SIGMAS]
    return {"sigma": levels, "loss_train": losses(run.train), "loss_heldout": losses(run.heldout)}


class _Watch:
    """Holds the values of the last steps on the device; fetches, checks and writes them at once."""

    def __init__(self, run: Run, metrics: MetricsFile, first: int):
        self._run, self._metrics = run, metrics
        self._pending: list[tuple[int, dict, int | None]] = []
        self._since, self._from = time.perf_counter(), first

    def add(self, step: int, values: dict[str, jax.Array], row: int | None) -> None:
        self._pending.append((step, values, row))

    def flush(self) -> None:
        if not self._pending:
            return
        steps = [step for step, _, _ in self._pending]
        fetched = fetch([values for _, values, _ in self._pending])
        own = [row for _, _, row in self._pending]
        rows = [
            values if i is None else {k: v[i] for k, v in values.items()}
            for values, i in zip(fetched, own, strict=True)
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
