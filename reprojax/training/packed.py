"""Trains several models of equal shape in one program, the train step under ``jax.vmap``."""

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
    batch_schedule,
    read_ahead,
    read_batch,
    train_alone,
)
from reprojax.training.step import StepSpec, TrainState, step_body
from reprojax.training.weights import to_host


def packed_spec(spec: StepSpec, k: int) -> StepSpec:
    """Returns the spec of ``k`` models in one program: the same step on the mesh of `pack_mesh`."""
    return replace(spec, mesh=pack_mesh(k, spec.mesh))


@partial(jax.jit, static_argnames=("spec",))
def _stack(states: list[TrainState], *, spec: StepSpec) -> TrainState:
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    shardings = jax.tree.map(stacked_sharding, spec.shardings(states[0]))
    return jax.lax.with_sharding_constraint(stack, shardings)


def stack_states(states: Sequence[TrainState], spec: StepSpec) -> TrainState:
    """Stacks the states of several models on a leading axis, sharded over the mesh's "model" axis.

    Args:
        states: The states, of equal shape.
        spec: The spec of the pack, from `packed_spec`.
    """
    return _stack(list(states), spec=spec)


@jax.jit
def _row(states: Any, i: jax.Array) -> Any:
    return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, i, keepdims=False), states)


def unstack_state(states: TrainState, i: int, spec: StepSpec) -> TrainState:
    """Returns the state of model ``i`` of a stack, sharded as its own ``spec`` shards it."""
    row = _row(states, jnp.asarray(i, jnp.int32))
    return jax.device_put(row, spec.shardings(row))


def stacked_batch_sharding(spec: StepSpec) -> NamedSharding:
    """Returns the sharding of batches `[k, batch, ...]` of a pack.

    The models lie over the axis "model" of the mesh, each one's batch over the other axes.
    """
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
    """Takes one optimiser step of each of k models.

    A model draws the same random numbers as it draws alone, and values that are not finite do not
    spread from one model to another. Rounding differs: XLA turns the convolutions of k models into
    a grouped one.

    Args:
        state: The state from `stack_states`, which is donated. Its models may be at different
            steps.
        images: The images, uint8 `[k, batch, h, w, c]`.
        labels: The labels, int32 `[k, batch]`, or None.
        roots: The root key of each model, keys `[k]`.
        spec: The spec of the pack, from `packed_spec`; static.

    Returns:
        The same as `train_step`, with a leading axis k.
    """
    body = partial(step_body, spec=spec)
    return jax.vmap(body, spmd_axis_name=MODEL_AXIS)(state, images, labels, roots)


def stack_roots(roots: Sequence[jax.Array], spec: StepSpec) -> jax.Array:
    """Stacks the root keys of several models, keys `[k]`, placed as `packed_step` takes them."""
    return jax.device_put(jnp.stack(list(roots)), NamedSharding(spec.mesh, PartitionSpec()))


def train_packed(
    runs: Sequence[Run],
    *,
    stop: StopRequest,
    on_step: OnStep | None = None,
    log: Callable[[str], None] = print,
) -> list[Any | DivergedError]:
    """Trains runs of equal shape in one program, each from its newest checkpoint to its last step.

    Each run has its own checkpoints, metrics and parameter table, the same as `train` writes, so
    that a run can start in a pack and continue alone, and the other way round. When a run leaves
    the pack, because it has taken its last step (it resumed at a later step than the others) or
    has diverged, the others continue as a smaller pack, which is compiled anew. The last one
    continues alone.

    Args:
        runs: The runs, with equal specs. They differ in data, seed and directory.
        stop: The request to stop, checked after every step and before each save.
        on_step: A function called with the steps taken and the total, summed over the runs.
        log: A function that takes a line for the user.

    Returns:
        For each run the EMA parameters as numpy arrays, or the DivergedError that ended it.

    Raises:
        InterruptedRunError: A stop was requested; all states are saved.
        LostClaimError: Another worker trains one of the runs now; nothing more of any is saved.
        InputError: The batch does not divide over the devices.
        ValueError: The specs differ.
    """
    if len({run.spec for run in runs}) != 1:
        raise ValueError("all runs of a pack must have the same spec")
    errors: dict[str, DivergedError] = {}
    with ExitStack() as stack:
        sessions = [stack.enter_context(Session(run, stop, log)) for run in runs]
        total = sum(run.spec.training.steps for run in runs)

        def advance(*_: int) -> None:
            if on_step:
                on_step(sum(s.step for s in sessions), total)

        while active := [s for s in sessions if not s.finished and s.run.name not in errors]:
            try:
                if len(active) == 1:
                    train_alone(active[0], advance)
                else:
                    errors |= _train_together(active, stop, advance)
            except DivergedError as error:
                errors[active[0].run.name] = error
    return [errors.get(s.run.name) or to_host(s.state.ema_params) for s in sessions]


def _train_together(
    sessions: list[Session], stop: StopRequest, advance: Callable[[], None]
) -> dict[str, DivergedError]:
    """Takes packed steps until a session finishes or diverges; returns errors by name of run."""
    runs = [s.run for s in sessions]
    spec = packed_spec(runs[0].spec, len(runs))
    state = stack_states([s.state for s in sessions], spec)
    roots = stack_roots([s.root for s in sessions], spec)
    for session in sessions:
        session.state = None  # the stack holds it; twice would cost memory
    errors: dict[str, DivergedError] = {}
    for images, labels in _stacked_batches(sessions, spec):
        state, values = packed_step(state, images, labels, roots, spec=spec)
        stop.look()
        stopping = stop.requested  # read once: a later request saves the state a step later
        for i, session in enumerate(sessions):
            state_fn = partial(unstack_state, state, i, session.run.spec)
            try:
                session.after_step(values, state_fn, stopping=stopping, row=i)
            except DivergedError as error:
                errors[session.run.name] = error
        advance()
        active = [s for s in sessions if not s.finished and s.run.name not in errors]
        if stopping and active:
            names = ", ".join(s.run.name for s in active)
            stop.check(f"in training {names} at step {active[0].step} of their pack")
        if len(active) < len(sessions):
            break
    for i, session in enumerate(sessions):
        session.state = unstack_state(state, i, session.run.spec)
    return errors


def _stacked_batches(sessions: list[Session], spec: StepSpec):
    """Yields batches `[k, batch, ...]` of the next steps, until the first session is finished."""
    runs, firsts = [s.run for s in sessions], [s.step for s in sessions]
    schedules = [batch_schedule(run) for run in runs]
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
