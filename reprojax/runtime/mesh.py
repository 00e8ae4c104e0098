"""The device mesh and the ways a train state can lie on it."""

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
BATCH_AXES = (DATA_AXIS, FSDP_AXIS)  # both split the batch
STATE_SHARDINGS = ("replicated", "sharded")


def make_mesh(devices: Sequence[jax.Device] | None = None, fsdp: int = 1) -> Mesh:
    """A mesh over ``devices`` (all by default) with the axes "data" and "fsdp".

    Both split the batch. A sharded state is split over "fsdp" alone where that has several devices,
    so that on many hosts it is gathered within a group of neighbours; otherwise over "data".

    Args:
        devices: of any number of processes.
        fsdp: devices of a group.

    Raises:
        InputError: ``fsdp`` does not divide the devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    if fsdp < 1 or len(devices) % fsdp:
        raise InputError("loop.fsdp", fsdp, f"a divisor of the {len(devices)} devices")
    shape = (len(devices) // fsdp, fsdp)
    axis_types = (AxisType.Auto,) * len(shape)
    return jax.make_mesh(shape, BATCH_AXES, devices=devices, axis_types=axis_types)


def batch_devices(mesh: Mesh) -> int:
    """Over how many devices a batch is split."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Splits the leading axis over the mesh."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(tree: Any, mesh: Mesh, kind: str) -> Any:
    """A sharding per leaf of a train state.

    Args:
        tree: arrays or shape structs.
        mesh: from `make_mesh`.
        kind: "replicated", or "sharded": each leaf is split along its longest axis that divides
            evenly (what ZeRO and FSDP do), over "fsdp" or, where that is 1, over "data"; small
            leaves stay whole.

    Returns:
        A tree of NamedSharding.
    """
    over = FSDP_AXIS if mesh.shape[FSDP_AXIS] > 1 else DATA_AXIS
    size = mesh.shape[over]

    def leaf(x) -> NamedSharding:
        fits = [i for i, n in enumerate(x.shape) if n % size == 0 and n >= size]
        if kind == "replicated" or not fits or np.prod(x.shape) < 4096:
            return replicated(mesh)
        axis = max(fits, key=lambda i: x.shape[i])
        spec = [over if i == axis else None for i in range(len(x.shape))]
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(leaf, tree)


def pack_mesh(k: int, mesh: Mesh) -> Mesh:
    """The devices of a mesh for ``k`` models in one program: an axis over models before its own.

    Args:
        k: models. The axis "model" has the greatest common divisor of k and the axis "data", so
            that each device gets equally many; the batch of each is split over the rest.
        mesh: from `make_mesh`, for one model.

    Returns:
        A mesh of the same devices in the same order.
    """
    rows = math.gcd(k, mesh.shape[DATA_AXIS])
    sizes = {MODEL_AXIS: rows, **mesh.shape, DATA_AXIS: mesh.shape[DATA_AXIS] // rows}
    devices = mesh.devices.reshape(tuple(sizes.values()))
    return Mesh(devices, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def stacked_sharding(sharding: NamedSharding) -> NamedSharding:
    """Of an array that has got a leading axis of models; what each model's rows keep."""
    return NamedSharding(sharding.mesh, PartitionSpec(MODEL_AXIS, *sharding.spec))
