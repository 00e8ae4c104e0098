"""The device mesh, and the shardings of batches and train states on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from reprojax.errors import InputError

DATA_AXIS = "data"
FSDP_AXIS = "fsdp"
MODEL_AXIS = "model"
BATCH_AXES = (DATA_AXIS, FSDP_AXIS)  # a batch is split along both
STATE_SHARDINGS = ("replicated", "sharded")
MIN_SHARDED_SIZE = 4096  # elements; a smaller leaf costs more to gather than to keep


def make_mesh(devices: Sequence[jax.Device] | None = None, fsdp: int = 1) -> Mesh:
    """Makes a mesh with the axes "data" and "fsdp", along both of which a batch is split.

    A sharded train state is split along "fsdp" alone if that axis has several devices, so that on
    many hosts it is gathered within a group of neighbours; otherwise along "data".

    Args:
        devices: The devices of the mesh, of any number of processes; all devices by default.
        fsdp: The number of devices in a group, the size of the axis "fsdp".

    Raises:
        InputError: ``fsdp`` does not divide the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    if fsdp < 1 or len(devices) % fsdp:
        raise InputError("loop.fsdp", fsdp, f"must divide the number of devices ({len(devices)})")
    shape = (len(devices) // fsdp, fsdp)
    axis_types = (AxisType.Auto,) * len(shape)
    return jax.make_mesh(shape, BATCH_AXES, devices=devices, axis_types=axis_types)


def batch_devices(mesh: Mesh) -> int:
    """Returns the number of devices that a batch is split over."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits a leading batch axis over all devices of the mesh."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that keeps a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(tree: Any, mesh: Mesh, kind: str) -> Any:
    """Returns a sharding for each leaf of a train state.

    Args:
        tree: A pytree of arrays or shape structs.
        mesh: A mesh from `make_mesh`.
        kind: "replicated" or "sharded". "sharded" splits each leaf along the longest axis that
            divides evenly, as ZeRO and FSDP do, over the mesh axis "fsdp", or "data" if "fsdp"
            has size 1. Small leaves stay whole.

    Returns:
        A pytree of NamedSharding.
    """
    mesh_axis = FSDP_AXIS if mesh.shape[FSDP_AXIS] > 1 else DATA_AXIS
    size = mesh.shape[mesh_axis]

    def leaf(x) -> NamedSharding:
        divisible = [i for i, n in enumerate(x.shape) if n % size == 0 and n >= size]
        if kind == "replicated" or not divisible or np.prod(x.shape) < MIN_SHARDED_SIZE:
            return replicated(mesh)
        axis = max(divisible, key=lambda i: x.shape[i])
        spec = [mesh_axis if i == axis else None for i in range(len(x.shape))]
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(leaf, tree)


def pack_mesh(k: int, mesh: Mesh) -> Mesh:
    """Returns a mesh for training ``k`` models in one program, with a leading axis "model".

    The axis "model" has as many devices as the greatest common divisor of k and the axis "data", so
    that each device gets equally many models. The batch of a model is split over the other axes.

    Args:
        k: The number of models.
        mesh: A mesh from `make_mesh` for one model.

    Returns:
        A mesh of the same devices in the same order.
    """
    rows = math.gcd(k, mesh.shape[DATA_AXIS])
    sizes = {MODEL_AXIS: rows, **mesh.shape, DATA_AXIS: mesh.shape[DATA_AXIS] // rows}
    devices = mesh.devices.reshape(tuple(sizes.values()))
    return Mesh(devices, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def stacked_sharding(sharding: NamedSharding) -> NamedSharding:
    """Returns the sharding of k stacked arrays of this sharding, on a mesh from `pack_mesh`."""
    return NamedSharding(sharding.mesh, PartitionSpec(MODEL_AXIS, *sharding.spec))
