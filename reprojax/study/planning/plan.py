"""What a study will cost, before it runs: parameters, FLOPs, memory and time per cell."""

from __future__ import annotations

from typing import NamedTuple

import jax
from rich import box
from rich.table import Table

from reprojax.models.costs import (
    H100_FLOPS_PER_SECOND,
    UTILISATION,
    h100_hours,
    measured_flops_per_second,
)
from reprojax.runtime.console import Reporter, duration
from reprojax.study.cells import Cell
from reprojax.study.models import Cost
from reprojax.study.runner import Prepared


class CellPlan(NamedTuple):
    """The cost of one cell.

    Attributes:
        name: The name of the cell.
        cost: The cost of its model.
        sample_flops: FLOPs of the whole noise bank.
    """

    name: str
    cost: Cost
    sample_flops: float

    @property
    def flops(self) -> float:
        """FLOPs of training and sampling."""
        return self.cost.train_flops + self.sample_flops


def plan_cell(prepared: Prepared, cell: Cell, devices: int = 1) -> CellPlan:
    """Counts the work of a cell, as if none of it was done.

    Args:
        prepared: The study.
        cell: One of its cells.
        devices: The number of devices that a batch is divided over.
    """
    images, study = prepared.images, prepared.study
    cost = cell.model.cost(images.shape, images.n_train(cell), study.loop, devices)
    passes = study.expected_nfe(cell) * prepared.banks.n
    return CellPlan(cell.name, cost, cost.forward_flops * passes)


def print_plan(prepared: Prepared, reporter: Reporter) -> None:
    """Prints the cells with their costs; the times are rough, from `measured_flops_per_second`."""
    study, devices = prepared.study, jax.devices()
    rate = measured_flops_per_second() * len(devices)
    plans = [plan_cell(prepared, cell, len(devices)) for cell in study.cells]
    reporter.console.print(_table(prepared, plans, rate))
    train, sample = (sum(p.cost.train_flops for p in plans), sum(p.sample_flops for p in plans))
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


def _table(prepared: Prepared, plans: list[CellPlan], rate: float) -> Table:
    study = prepared.study
    table = Table(
        title=f"{study.name}: {len(study.cells)} cells, {prepared.banks.n} noises",
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
        cost = plan.cost
        table.add_row(
            plan.name,
            f"{prepared.images.n_train(cell):,}",
            f"{cost.params / 1e6:.2f} M" if cost.params else "–",
            number(cost.forward_flops / 1e9),
            f"{cost.train_flops:.1e}" if cost.train_flops else "–",
            f"{plan.sample_flops:.1e}",
            number(cost.train_bytes / 1e9) if cost.train_bytes else "–",
            duration(plan.flops / rate),
        )
    return table


def number(value: float) -> str:
    """Returns a number in few digits, never in powers of ten where it is above .0001."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}"
