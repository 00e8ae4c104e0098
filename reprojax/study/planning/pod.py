"""The sharding of a study's largest cell, planned without the devices."""

from __future__ import annotations

from reprojax.errors import InputError
from reprojax.runtime.console import Reporter
from reprojax.runtime.mesh import make_mesh
from reprojax.study.cells import Cell, is_trained_network
from reprojax.study.runner import Prepared
from reprojax.study.stages import cell_step_spec
from reprojax.training.pod import collectives_table, gather_line, memory_table, plan_step


def largest_cell(prepared: Prepared) -> Cell:
    """Returns the trained network with the most parameters, the first of equals.

    Raises:
        InputError: The study trains nothing.
    """
    trained = [cell for cell in prepared.study.cells if is_trained_network(cell)]
    if not trained:
        raise InputError("--plan_devices", None, "must have a network that the study trains")
    return max(trained, key=lambda cell: cell.model.size(prepared.images.shape))


def print_pod_plan(prepared: Prepared, reporter: Reporter) -> None:
    """Plans the largest cell of a study on the devices that there are, and prints the plan."""
    loop, cell = prepared.study.loop, largest_cell(prepared)
    mesh = make_mesh(fsdp=loop.fsdp)
    spec = cell_step_spec(prepared.study, prepared.images.shape, cell, mesh)
    plan = plan_step(spec, prepared.images.shape, cell.model.num_classes > 0)
    size = cell.model.size(prepared.images.shape)
    reporter.say(
        f"{cell.name}: {size:,} parameters, batch {cell.model.training.batch_size}, "
        f"mesh {dict(spec.mesh.shape)}, state {loop.state_sharding}; "
        f"compiled for {plan.devices} CPU devices in {plan.seconds:.0f} s, nothing was run"
    )
    reporter.console.print(memory_table(plan))
    reporter.console.print(collectives_table(plan))
    reporter.say(gather_line(plan, sharded=loop.state_sharding == "sharded"))
