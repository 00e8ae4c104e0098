"""A trained network bound to its parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from reprojax.diffusion.preconditioning import Preconditioning
from reprojax.diffusion.shapes import expand
from reprojax.models.families import Network


@struct.dataclass
class NetworkDenoiser:
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise): a DenoiseFn whose leaves are parameters.

    Args:
        params: the network's parameters.
        module: the network F; static.
        precondition: the coefficients; static.
        train: whether dropout is on; static.
        dropout_key: needed where it is.
    """

    params: Any
    module: Network = struct.field(pytree_node=False)
    precondition: Preconditioning = struct.field(pytree_node=False)
    train: bool = struct.field(pytree_node=False, default=False)
    dropout_key: jax.Array | None = None

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: jax.Array | None = None) -> jax.Array:
        """See DenoiseFn. The network sees float32 whatever the dtype of ``x``."""
        x32, sigma32 = x.astype(jnp.float32), sigma.astype(jnp.float32)
        c_skip, c_out, c_in, c_noise = self.precondition(sigma32)
        rngs = {} if self.dropout_key is None else {"dropout": self.dropout_key}
        variables = {"params": self.params}
        scaled = expand(c_in, x.ndim) * x32
        out = self.module.apply(variables, scaled, c_noise, cond, train=self.train, rngs=rngs)
        denoised = expand(c_skip, x.ndim) * x32 + expand(c_out, x.ndim) * out
        return denoised.astype(x.dtype)


@struct.dataclass
class NetworkFlowMap(NetworkDenoiser):
    """The same network read as a FlowMapFn: a consistency model (arXiv 2303.01469)."""

    is_flow_map = True  # solvers of the equation refuse it


def network_function(kind: str) -> type[NetworkDenoiser]:
    """What a network of this kind ("network" or "flow_map") is bound to its parameters by."""
    return NetworkFlowMap if kind == "flow_map" else NetworkDenoiser
