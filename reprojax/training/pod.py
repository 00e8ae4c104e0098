"""Sharding planned without the devices: a train step compiled ahead.

XLA compiles the program that each of N devices would run, from shapes and shardings alone: nothing
is allocated and nothing runs. What it says is exact for N CPU devices. A GPU or TPU compiler fuses
and schedules in its own way, so there temporaries and the kinds of collectives may differ; what is
held in arguments does not.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rich import box
from rich.table import Table

from reprojax.rng import root_key
from reprojax.runtime.mesh import batch_sharding, replicated
from reprojax.training.step import StepSpec, TrainState, train_step

# What is planned is settled before machine code is made, which need not be good: nothing runs.
UNTUNED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2}
_BYTES |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\(")


class Collective(NamedTuple):
    """One collective of a compiled program.

    Args:
        kind: One of `KINDS`.
        bytes: The size of its result on each device.
    """

    kind: str
    bytes: int


@dataclass(frozen=True)
class PodPlan:
    """What each device holds in a train step, and what is exchanged.

    Args:
        devices: The number of all devices.
        state_bytes: The size of the whole train state, counted once.
        largest_bytes: The size of its largest array.
        arguments: Bytes on each device before the step: its part of the state and the batch.
        outputs: Bytes on each device after it; they take the place of the state's arguments.
        temporaries: Bytes on each device during the step.
        collectives: The collectives of the compiled program.
        seconds: How long compilation took.
    """

    devices: int
    state_bytes: int
    largest_bytes: int
    arguments: int
    outputs: int
    temporaries: int
    collectives: tuple[Collective, ...]
    seconds: float

    @property
    def largest_gather(self) -> int:
        """The size of the largest single all-gather in bytes."""
        return max((c.bytes for c in self.collectives if c.kind == "all-gather"), default=0)

    @property
    def gathered(self) -> int:
        """The size of all all-gathers of a step in bytes, if all were alive at once."""
        return sum(c.bytes for c in self.collectives if c.kind == "all-gather")


def plan_step(spec: StepSpec, shape: tuple[int, int, int], conditional: bool = False) -> PodPlan:
    """Compiles a train step for the devices of its mesh, from shapes alone.

    Args:
        spec: The settings of the step.
        shape: The shape (h, w, c) of an image.
        conditional: Whether the step takes labels.
    """
    start = time.perf_counter()
    state = _abstract_state(spec, shape)
    batch, size = batch_sharding(spec.mesh), spec.training.batch_size
    images = jax.ShapeDtypeStruct((size, *shape), jnp.uint8, sharding=batch)
    labels = jax.ShapeDtypeStruct((size,), jnp.int32, sharding=batch) if conditional else None
    key = jax.eval_shape(lambda: root_key(0))
    root = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(spec.mesh))
    lowered = train_step.lower(state, images, labels, root, spec=spec)
    compiled = lowered.compile(compiler_options=UNTUNED)
    memory = compiled.memory_analysis()
    sizes = [math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(state)]
    return PodPlan(
        devices=spec.mesh.size,
        state_bytes=sum(sizes),
        largest_bytes=max(sizes),
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        collectives=tuple(collectives(compiled.as_text())),
        seconds=time.perf_counter() - start,
    )


def _abstract_state(spec: StepSpec, shape: tuple[int, int, int]) -> TrainState:
    """Returns the shapes and shardings of a train state; no array is made."""
    state = jax.eval_shape(lambda: spec.init(shape, root_key(0)))
    if spec.objective.needs_teacher:
        state = state.replace(teacher_params=state.params)

    def lay_out(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(lay_out, state, spec.shardings(state))


def collectives(program: str) -> Iterator[Collective]:
    """Yields the collectives in the text of a compiled program, in order.

    One in the body of a loop counts once, whatever the number of turns.
    """
    for result, kind, started in _COLLECTIVE.findall(program):
        shapes = _SHAPE.findall(result)
        if started and kind != "all-reduce":  # the shapes are (operands, results, …)
            shapes = shapes[len(shapes) // 2 :] if kind == "all-gather" else shapes[:1]
        yield Collective(kind, sum(_BYTES.get(t, 4) * _elements(dims) for t, dims in shapes))


def _elements(dims: str) -> int:
    return math.prod(int(d) for d in dims.split(",") if d)


def gather_line(plan: PodPlan, *, sharded: bool) -> str:
    """Says whether any all-gather of the step brings together the whole state."""
    if not sharded:
        return "every device holds the whole state: loop.state_sharding='sharded' would divide it"
    whole, largest = plan.state_bytes, plan.largest_gather
    array, temporaries = megabytes(plan.largest_bytes), megabytes(plan.temporaries)
    verdict = f"{'an' if largest >= whole else 'no'} all-gather gathers"
    return (
        f"{verdict} the whole state ({megabytes(whole)}): the largest all-gather makes "
        f"{megabytes(largest)}, the largest array of the state has {array}; "
        f"all all-gathers of a step together make {megabytes(plan.gathered)}, "
        f"{plan.gathered / whole:.2f} of the state, and a device's temporaries of all kinds are "
        f"{temporaries}"
    )


def memory_table(plan: PodPlan) -> Table:
    """Returns what each device holds, as a table."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("memory per device", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    for name in ("arguments", "outputs", "temporaries"):
        table.add_row(name, megabytes(getattr(plan, name)))
    table.add_row("the whole state, once", megabytes(plan.state_bytes))
    return table


def collectives_table(plan: PodPlan) -> Table:
    """Returns the collectives of a step by kind, as a table."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("collectives of a step", no_wrap=True)
    for column in ("number", "size", "largest"):
        table.add_column(column, justify="right", no_wrap=True)
    numbers = Counter(c.kind for c in plan.collectives)
    for kind in KINDS:
        if numbers[kind]:
            sizes = [c.bytes for c in plan.collectives if c.kind == kind]
            row = (str(numbers[kind]), megabytes(sum(sizes)), megabytes(max(sizes)))
            table.add_row(kind, *row)
    return table


def megabytes(size: int) -> str:
    """Returns a size in bytes as text in MB (10^6 bytes), with three digits or more."""
    return f"{size / 1e6:,.0f} MB" if size >= 1e8 else f"{size / 1e6:.3g} MB"
