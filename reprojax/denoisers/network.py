"""A network with its parameters as a denoiser or a flow map."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from reprojax.denoisers.base import Denoiser
from reprojax.diffusion.preconditioning import Preconditioning
from reprojax.diffusion.shapes import expand
from reprojax.models.families import Network


@struct.dataclass
class NetworkDenoiser(Denoiser):
    """A network F as a DenoiseFn: D(x; sigma) = c_skip x + c_out F(c_in x; c_noise).

    Args:
        params: The parameters of the network.
        module: The network F; static.
        precondition: The preconditioning, which gives the coefficients; static.
        train: Whether dropout is on; static.
        dropout_key: The key of the dropout masks, or None if dropout is off.
    """

    params: Any
    module: Network = struct.field(pytree_node=False)
    precondition: Preconditioning = struct.field(pytree_node=False)
    train: bool = struct.field(pytree_node=False, default=False)
    dropout_key: jax.Array | None = None

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: Any = None) -> jax.Array:
        """Denoises as a DenoiseFn does. The network gets float32 whatever the dtype of ``x``.

        Raises:
            InputError: A conditional network has no condition, or an unconditional one has one.
        """
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
    """A network as a FlowMapFn, i.e. a consistency model (arXiv 2303.01469)."""

    is_flow_map = True


def network_function(kind: str) -> type[NetworkDenoiser]:
    """Returns the class that makes a function of a network and its parameters.

    Args:
        kind: "network" for a denoiser or "flow_map" for a flow map.
    """
    return NetworkFlowMap if kind == "flow_map" else NetworkDenoiser
