"""The device mesh and the two ways a train state can lie on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"
MODEL_AXIS = "model"
STATE_SHARDINGS = ("replicated", "sharded")


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-axis mesh over ``devices`` (all by default); the axis splits the batch."""
    devices = list(jax.devices() if devices is None else devices)
    return jax.make_mesh(
        (len(devices),), (DATA_AXIS,), devices=devices, axis_types=(AxisType.Auto,)
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Splits the leading axis over the mesh."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(tree: Any, mesh: Mesh, kind: str) -> Any:
    """A sharding per leaf of a train state.

    Args:
        tree: arrays or shape structs.
        mesh: from `make_mesh`.
        kind: "replicated", or "sharded": each leaf is split over the mesh along its longest axis
            that divides evenly (what ZeRO and FSDP do), small leaves stay whole.

    Returns:
        A tree of NamedSharding.
    """

    def leaf(x) -> NamedSharding:
        size = mesh.shape[DATA_AXIS]
        fits = [i for i, n in enumerate(x.shape) if n % size == 0 and n >= size]
        if kind == "replicated" or not fits or np.prod(x.shape) < 4096:
            return replicated(mesh)
        axis = max(fits, key=lambda i: x.shape[i])
        spec = [DATA_AXIS if i == axis else None for i in range(len(x.shape))]
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
