"""What a study will cost, before it runs: parameters, FLOPs and time per cell."""

from __future__ import annotations

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
from rich import box
from rich.table import Table

from reprojax.models.families import Network, count_params, param_shapes
from reprojax.study.cells import Cell
from reprojax.study.progress import Reporter, duration
from reprojax.study.runner import Prepared
from reprojax.study.stages import cell_network

BACKWARD = 3  # forward and backward cost about three forward passes
ADAPTIVE_NFE = 100  # guessed for solvers that choose their steps


class CellPlan(NamedTuple):
    """The cost of one cell.

    Args:
        name: of the cell.
        params: parameters, 0 for a closed form.
        forward_flops: of one image through the network.
        train_flops: of the whole training.
        sample_flops: of the whole noise bank.
    """

    name: str
    params: int
    forward_flops: float
    train_flops: float
    sample_flops: float


def forward_flops(module: Network, shape: tuple[int, int, int]) -> float:
    """FLOPs of one image through a network, counted by XLA on the lowered program."""
    params = param_shapes(module, shape)
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    c_noise = jax.ShapeDtypeStruct((1,), jnp.float32)
    cond = jax.ShapeDtypeStruct((1,), jnp.int32) if module.num_classes else None
    apply = jax.jit(lambda p, x, t, cond: module.apply({"params": p}, x, t, cond))
    lowered = apply.lower(params, x, c_noise, cond)
    return float(lowered.cost_analysis()["flops"])


def plan_cell(prepared: Prepared, cell: Cell) -> CellPlan:
    """Counts the work of a cell, as if none of it was done."""
    shape = prepared.images.shape
    sampler = prepared.study.sampler_of(cell)
    nfe = ADAPTIVE_NFE if sampler.adaptive else len(sampler.table().sigma)
    if cell.kind == "closed_form":
        pixels = shape[0] * shape[1] * shape[2]
        rows = len(prepared.images.train(cell)) if cell.family == "optimum" else pixels
        per_image = 4.0 * rows * pixels  # two matrix products
        return CellPlan(cell.name, 0, per_image, 0.0, per_image * nfe * prepared.bank.n)
    module = cell_network(cell, shape)
    per_image = forward_flops(module, shape)
    images = 0 if cell.weights else cell.training.steps * cell.training.batch_size
    return CellPlan(
        cell.name,
        count_params(module, shape),
        per_image,
        (BACKWARD + cell.make_objective().companion_passes) * per_image * images,
        per_image * nfe * prepared.bank.n,
    )


def measured_flops_per_second() -> float:
    """What this machine sustains on a small convolution, forward and backward."""
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
    rate = measured_flops_per_second()
    study = prepared.study
    table = Table(
        title=f"{study.name}: {len(study.cells)} cells, {prepared.bank.n} noises",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
        caption="GFLOP: one image forward; train and sample: FLOP",
    )
    table.add_column("cell", no_wrap=True)
    for column in ("N", "params", "GFLOP", "train", "sample", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    total = 0.0
    for cell in study.cells:
        plan = plan_cell(prepared, cell)
        seconds = (plan.train_flops + plan.sample_flops) / rate
        total += seconds
        table.add_row(
            plan.name,
            f"{len(prepared.images.train(cell)):,}",
            f"{plan.params / 1e6:.2f} M" if plan.params else "–",
            f"{plan.forward_flops / 1e9:.2g}",
            f"{plan.train_flops:.1e}" if plan.train_flops else "–",
            f"{plan.sample_flops:.1e}",
            duration(seconds),
        )
    reporter.console.print(table)
    devices = jax.devices()
    reporter.say(
        f"total about {duration(total)} on {len(devices)} x {devices[0].device_kind}, as if at the "
        f"{rate / 1e9:.0f} GFLOP/s of a small convolution timed here: rough, small networks take "
        "several times longer"
    )
