"""What a study will cost, before it runs: parameters, FLOPs, memory and time per cell."""

from __future__ import annotations

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
from rich import box
from rich.table import Table

from reprojax.runtime.console import Reporter, duration
from reprojax.study.cells import Cell
from reprojax.study.planning.costs import BACKWARD, evaluations, network_cost
from reprojax.study.runner import Prepared
from reprojax.study.stages import cell_network

# One H100 SXM: dense bfloat16 peak (NVIDIA's data sheet), and the share that training attains.
H100_FLOPS_PER_SECOND = 989e12
UTILISATION = 0.4


class CellPlan(NamedTuple):
    """The cost of one cell.

    Args:
        name: of the cell.
        params: parameters, 0 for a closed form.
        forward_flops: of one image through the network.
        train_flops: of the whole training.
        sample_flops: of the whole noise bank.
        train_bytes: memory of training on one device, an estimate; 0 where nothing is trained.
    """

    name: str
    params: int
    forward_flops: float
    train_flops: float
    sample_flops: float
    train_bytes: float


def plan_cell(prepared: Prepared, cell: Cell, devices: int = 1) -> CellPlan:
    """Counts the work of a cell, as if none of it was done.

    Args:
        prepared: the study.
        cell: one of its cells.
        devices: over which a batch is divided.
    """
    shape, loop = prepared.images.shape, prepared.study.loop
    nfe = evaluations(prepared.study.sampler_of(cell))
    if cell.kind == "closed_form":
        pixels = shape[0] * shape[1] * shape[2]
        rows = len(prepared.images.train(cell)) if cell.family == "optimum" else pixels
        per_image = 4.0 * rows * pixels  # two matrix products
        return CellPlan(cell.name, 0, per_image, 0.0, per_image * nfe * prepared.bank.n, 0.0)
    training, loss = cell.training, cell.make_objective()
    cost = network_cost(cell_network(cell, shape, training.dtype), shape)
    images = 0 if cell.weights else training.steps * training.batch_size
    memory = 0.0
    if images:
        group = loop.fsdp if loop.fsdp > 1 else devices
        memory = cost.training_bytes(
            training.batch_size // training.accumulate // devices,
            teacher=loss.needs_teacher,
            shards=group if loop.state_sharding == "sharded" else 1,
        )
    return CellPlan(
        cell.name,
        cost.params,
        cost.forward_flops,
        (BACKWARD + loss.companion_passes) * cost.forward_flops * images,
        cost.forward_flops * nfe * prepared.bank.n,
        memory,
    )


def measured_flops_per_second() -> float:
    """What a device sustains on a small convolution, forward and backward."""
    x = jnp.ones((32, 16, 16, 32), jnp.float32)
    w = jnp.ones((3, 3, 32, 32), jnp.float32)

    @jax.jit
    def step(x, w):
        def loss(x, w):
            dims = ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=dims).sum()

        return jax.grad(loss, (0, 1))(x, w)

    jax.block_until_ready(step(x, w))
    start = time.perf_counter()
    repeats = 20
    for _ in range(repeats):
        out = step(x, w)
    jax.block_until_ready(out)
    flops = 2 * 2 * x.size * 9 * 32  # two gradients, each a convolution
    return repeats * flops / (time.perf_counter() - start)


def print_plan(prepared: Prepared, reporter: Reporter) -> None:
    """Prints the cells with their costs; the times are rough, from `measured_flops_per_second`."""
    study, devices = prepared.study, jax.devices()
    rate = measured_flops_per_second() * len(devices)
    plans = [plan_cell(prepared, cell, len(devices)) for cell in study.cells]
    reporter.console.print(_table(prepared, plans, rate))
    train, sample = (sum(p.train_flops for p in plans), sum(p.sample_flops for p in plans))
    hours = h100_hours(train)
    reporter.say(
        f"in all: {train:.1e} FLOP to train, {sample:.1e} to sample; training takes "
        f"{f'about {number(hours)}' if hours >= 0.1 else 'under 0.1'} H100-hours at "
        f"{100 * UTILISATION:.0f} % of {H100_FLOPS_PER_SECOND / 1e12:.0f} TFLOP/s (bf16, dense)"
    )
    reporter.say(
        f"total about {duration((train + sample) / rate)} on {len(devices)} x "
        f"{devices[0].device_kind}, as if each at the {rate / len(devices) / 1e9:.0f} GFLOP/s of a "
        "small convolution timed on one: rough, small networks take several times longer"
    )


def h100_hours(flops: float) -> float:
    """Hours of one H100 that training of so many FLOPs takes."""
    return flops / (UTILISATION * H100_FLOPS_PER_SECOND) / 3600


def _table(prepared: Prepared, plans: list[CellPlan], rate: float) -> Table:
    study = prepared.study
    table = Table(
        title=f"{study.name}: {len(study.cells)} cells, {prepared.bank.n} noises",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
        caption="GFLOP: one image forward; train and sample: FLOP; GB: training one model, per "
        "device, an estimate",
    )
    table.add_column("cell", no_wrap=True)
    for column in ("N", "params", "GFLOP", "train", "sample", "GB", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    for cell, plan in zip(study.cells, plans, strict=True):
        table.add_row(
            plan.name,
            f"{len(prepared.images.train(cell)):,}",
            f"{plan.params / 1e6:.2f} M" if plan.params else "–",
            number(plan.forward_flops / 1e9),
            f"{plan.train_flops:.1e}" if plan.train_flops else "–",
            f"{plan.sample_flops:.1e}",
            number(plan.train_bytes / 1e9) if plan.train_bytes else "–",
            duration((plan.train_flops + plan.sample_flops) / rate),
        )
    return table


def number(value: float) -> str:
    """A number in few digits, never in powers of ten where it is above .0001."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}"
