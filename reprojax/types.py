"""The protocols of the two kinds of function that a sampler integrates or calls."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
from jax.sharding import Mesh, NamedSharding

NULL_LABEL = -1  # in place of a class label: a conditional network then knows no class


class DenoiseFn(Protocol):
    """A function that returns E[x0 | x] at noise level sigma: a trained network or a closed form.

    Implementations are pytrees whose leaves are their parameters, so they can be arguments of a
    function under ``jax.jit``. Two networks of one architecture then share one compiled sampler.

    Attributes:
        is_flow_map: Whether the function is a `FlowMapFn`; False for a denoiser.
    """

    is_flow_map: bool

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: Any = None) -> jax.Array:
        """Denoises a batch of images.

        Args:
            x: Noisy images `[b, h, w, c]` in unscaled coordinates, x_t / scale(t) = x0 + sigma * z.
            sigma: Noise levels `[b]` in data units, > 0.
            cond: A pytree of arrays with leading axis b, the conditions of these rows (labels
                now), or None.

        Returns:
            The denoised images `[b, h, w, c]` in the dtype of ``x``.
        """
        ...

    def placement(self, mesh: Mesh) -> NamedSharding | DenoiseFn:
        """Returns where the leaves of this function should lie on the devices of a mesh.

        Args:
            mesh: A mesh from `reprojax.runtime.mesh.make_mesh`.

        Returns:
            One sharding for all leaves, or a pytree of this function's structure with a sharding
            in the place of each leaf.
        """
        ...


class FlowMapFn(Protocol):
    """A function that returns the end x0 of the probability-flow path through (x, sigma).

    Consistency models are of this type. It has the signature of a DenoiseFn and another meaning, so
    an ODE solver refuses it.

    Attributes:
        is_flow_map: True.
    """

    is_flow_map: bool

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: Any = None) -> jax.Array:
        """Maps (x, sigma), with the shapes that a DenoiseFn takes, to x0 `[b, h, w, c]`."""
        ...

    def placement(self, mesh: Mesh) -> NamedSharding | FlowMapFn:
        """Returns where the leaves should lie on a mesh, as `DenoiseFn.placement` does."""
        ...


class Companions(NamedTuple):
    """The functions that an objective may call beside the network that it trains.

    None of them is differentiated.

    Args:
        ema: The moving average of the network.
        teacher: The network that is distilled, or None.
        step: The number of optimiser steps done, int32 scalar.
    """

    ema: DenoiseFn
    teacher: DenoiseFn | None
    step: jax.Array
