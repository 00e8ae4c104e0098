"""Several models of equal shape in one program: the train step under ``jax.vmap``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from reprojax.errors import DivergedError
from reprojax.runtime.mesh import MODEL_AXIS, batch_sharding, pack_mesh, stacked_sharding
from reprojax.runtime.stop import StopRequest
from reprojax.training.loop import (
    OnStep,
    Run,
    Session,
    read_ahead,
    read_batch,
    schedule_of,
    train_alone,
)
from reprojax.training.step import StepSpec, TrainState, step_body
from reprojax.training.weights import to_host


def packed_spec(spec: StepSpec, k: int) -> StepSpec:
    """The spec of ``k`` models in one program: the same step on the mesh of `pack_mesh`."""
    return replace(spec, mesh=pack_mesh(k, spec.mesh))


@partial(jax.jit, static_argnames=("spec",))
def _stack(states: list[TrainState], *, spec: StepSpec) -> TrainState:
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    shardings = jax.tree.map(stacked_sharding, spec.shardings(states[0]))
    return jax.lax.with_sharding_constraint(stacked, shardings)


def stack_states(states: Sequence[TrainState], spec: StepSpec) -> TrainState:
    """The states of several models on one leading axis, which lies over the mesh's "model" axis.

    Args:
        states: of equal shape.
        spec: from `packed_spec`.
    """
    return _stack(list(states), spec=spec)


@jax.jit
def _row(stacked: Any, i: jax.Array) -> Any:
    return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, i, keepdims=False), stacked)


def unstack_state(stacked: TrainState, i: int, spec: StepSpec) -> TrainState:
    """The state of model ``i``, laid out as `StepSpec.init` of its own ``spec`` does."""
    row = _row(stacked, jnp.asarray(i, jnp.int32))
    return jax.device_put(row, spec.shardings(row))


def stacked_batch_sharding(spec: StepSpec) -> NamedSharding:
    """Of `[k, batch, ...]`: models over "model", each one's batch over the rest of the mesh."""
    return stacked_sharding(batch_sharding(spec.mesh))


@partial(jax.jit, static_argnames=("spec",), donate_argnames=("state",))
def packed_step(
    state: TrainState,
    images: jax.Array,
    labels: jax.Array | None,
    roots: jax.Array,
    *,
    spec: StepSpec,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimiser step of each of k models.

    A model draws the very random numbers that it draws alone, and what is not finite in one stays
    there. Rounding differs: XLA turns the convolutions of k models into a grouped one.

    Args:
        state: from `stack_states`; donated. Its models may stand at different steps.
        images: uint8 `[k, batch, h, w, c]`.
        labels: int32 `[k, batch]` or None.
        roots: keys `[k]`, the root key of each.
        spec: from `packed_spec`; static.

    Returns:
        As of `train_step`, all with a leading axis k.
    """
    body = partial(step_body, spec=spec)
    return jax.vmap(body, spmd_axis_name=MODEL_AXIS)(state, images, labels, roots)


def stack_roots(roots: Sequence[jax.Array], spec: StepSpec) -> jax.Array:
    """Root keys of several models, keys `[k]`, laid out as `packed_step` takes them."""
    return jax.device_put(jnp.stack(list(roots)), NamedSharding(spec.mesh, PartitionSpec()))


def train_packed(
    runs: Sequence[Run],
    *,
    stop: StopRequest,
    on_step: OnStep | None = None,
    log: Callable[[str], None] = print,
) -> list[Any | DivergedError]:
    """Trains runs of equal shape in one program, each from its newest checkpoint to its last step.

    Each run has its own checkpoints, metrics and parameter table, the same as `train` leaves, so
    that what was begun packed can go on alone and the other way round. Where one leaves the pack,
    because it is done (one that was resumed further on than the others) or has diverged, the
    others go on as a smaller pack, which is compiled anew; the last one goes on alone.

    Args:
        runs: with equal specs; they differ in data, seed and directory.
        stop: asked after every step, and before each save.
        on_step: called with (steps done, steps in all), summed over the runs.
        log: takes lines for the user.

    Returns:
        For each run the EMA parameters as numpy arrays, or the DivergedError that ended it.

    Raises:
        InterruptedRunError: a stop was asked for; all states are saved.
        LostClaimError: another worker trains one of them now; nothing more is saved of any.
        InputError: the batch does not divide over the devices.
        ValueError: the specs differ.
    """
    if len({run.spec for run in runs}) != 1:
        raise ValueError("runs of one pack have equal specs")
    errors: dict[str, DivergedError] = {}
    with ExitStack() as opened:
        sessions = [opened.enter_context(Session(run, stop, log)) for run in runs]
        total = sum(run.spec.training.steps for run in runs)

        def advance(*_: int) -> None:
            if on_step:
                on_step(sum(s.done for s in sessions), total)

        while left := [s for s in sessions if not s.finished and s.run.name not in errors]:
            try:
                if len(left) == 1:
                    train_alone(left[0], advance)
                else:
                    errors |= _train_together(left, stop, advance)
            except DivergedError as error:
                errors[left[0].run.name] = error
    return [errors.get(s.run.name) or to_host(s.state.ema_params) for s in sessions]


def _train_together(
    sessions: list[Session], stop: StopRequest, advance: Callable[[], None]
) -> dict[str, DivergedError]:
    """Takes packed steps until a session is finished or diverges; the errors by name of run."""
    runs = [s.run for s in sessions]
    spec = packed_spec(runs[0].spec, len(runs))
    state = stack_states([s.state for s in sessions], spec)
    roots = stack_roots([s.root for s in sessions], spec)
    for session in sessions:
        session.state = None  # not twice in memory
    errors: dict[str, DivergedError] = {}
    for images, labels in _stacked_batches(sessions, spec):
        state, values = packed_step(state, images, labels, roots, spec=spec)
        stop.look()
        stopping = stop.requested  # read once: what asks to stop later is saved a step later
        for i, session in enumerate(sessions):
            own = partial(unstack_state, state, i, session.run.spec)
            try:
                session.after_step(values, own, stopping=stopping, row=i)
            except DivergedError as error:
                errors[session.run.name] = error
        advance()
        going = [s for s in sessions if not s.finished and s.run.name not in errors]
        if stopping and going:
            names = ", ".join(s.run.name for s in going)
            stop.check(f"in training {names} at step {going[0].done} of their pack")
        if len(going) < len(sessions):
            break
    for i, session in enumerate(sessions):
        session.state = unstack_state(state, i, session.run.spec)
    return errors


def _stacked_batches(sessions: list[Session], spec: StepSpec):
    """Batches `[k, batch, ...]` of the next steps of each, until the first of them is done."""
    runs, firsts = [s.run for s in sessions], [s.done for s in sessions]
    schedules = [schedule_of(run) for run in runs]
    sharding = stacked_batch_sharding(spec)

    def read(step: int):
        parts = [
            read_batch(run, schedule, first + step)
            for run, schedule, first in zip(runs, schedules, firsts, strict=True)
        ]
        images = np.stack([x for x, _ in parts])
        labels = None if parts[0][1] is None else np.stack([y for _, y in parts])
        return jax.device_put((images, labels), sharding)

    return read_ahead(read, 0, spec.training.steps - max(firsts))
