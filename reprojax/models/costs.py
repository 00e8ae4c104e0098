"""What a network costs: FLOPs and memory, counted on its jaxpr, without computing anything.

Counted are matrix products and convolutions, two FLOPs per multiplication and addition. Everything
else (norms, activations, sums) is left out: under 2 % of the FLOPs of the networks here, and bound
by memory, not by arithmetic. A convolution counts its padded positions too, as the papers do and as
an accelerator computes them; XLA's own `cost_analysis` leaves them out (40.3 instead of 42.4 GFLOP
for DDPM++ at 32 x 32).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var

from reprojax.models.families import Network, count_params, param_shapes

BACKWARD = 3  # forward and backward cost about three forward passes
FLOAT_BYTES = 4  # of a parameter and of all that is kept beside it
# Parameters, their gradient, their moving average and the two moments of Adam.
TRAINING_COPIES = 5
# One H100 SXM: dense bfloat16 peak (NVIDIA's data sheet), and the share that training attains.
H100_FLOPS_PER_SECOND = 989e12
UTILISATION = 0.4


class NetworkCost(NamedTuple):
    """What one network costs.

    Args:
        params: number of parameters.
        forward_flops: of one image through it.
        held_bytes: what the backward pass holds per image of the batch.
        cast_bytes: what it holds once: the parameters in the dtype of the computation, where that
            is not theirs, and constants.
    """

    params: int
    forward_flops: float
    held_bytes: int
    cast_bytes: int

    def training_bytes(self, images: int, *, teacher: bool = False, shards: int = 1) -> float:
        """Memory that training takes on one device: an estimate.

        XLA's fusion holds less than the jaxpr says, its workspace more: for small networks on a CPU
        it plans 5 % less (a U-Net) to 14 % more (a U-ViT). A loss with companion passes holds
        nothing for these.

        Args:
            images: of a micro-batch, on one device.
            teacher: whether a teacher's parameters are kept too.
            shards: devices over which parameters and optimiser state are divided.

        Returns:
            Bytes.
        """
        state = (TRAINING_COPIES + int(teacher)) * FLOAT_BYTES * self.params
        return state / shards + self.cast_bytes + self.held_bytes * images


@cache
def network_cost(module: Network, shape: tuple[int, int, int]) -> NetworkCost:
    """Counts a network, once for all cells that have it.

    Args:
        module: the network in the dtype it is trained in.
        shape: (h, w, c) of its images.
    """
    params = param_shapes(module, shape)
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    c_noise = jax.ShapeDtypeStruct((1,), jnp.float32)
    cond = jax.ShapeDtypeStruct((1,), jnp.int32) if module.num_classes else None
    key = jax.eval_shape(lambda: jax.random.key(0))

    def held(params, x, c_noise, cond, key):
        def forward(params):
            rngs = {"dropout": key}
            return module.apply({"params": params}, x, c_noise, cond, train=True, rngs=rngs)

        # What the backward pass needs are the leaves of the function that `jax.vjp` returns. To
        # have them, the forward pass is computed, once and nothing else: its FLOPs are the jaxpr's.
        return jax.tree.leaves(jax.vjp(forward, params)[1])

    jaxpr = jax.make_jaxpr(held)(params, x, c_noise, cond, key).jaxpr
    flops = count_flops(jaxpr)
    held_bytes, cast_bytes = _residual_bytes(jaxpr, num_params=len(jax.tree.leaves(params)))
    return NetworkCost(count_params(module, shape), flops, held_bytes, cast_bytes)


def count_flops(jaxpr: Jaxpr) -> float:
    """FLOPs of the matrix products and convolutions of a jaxpr and of the jaxprs inside it.

    A `scan` counts its body once per turn; of the branches of a `cond` the dearest counts. How
    often a `while_loop` turns is not in a jaxpr: its body counts once.
    """
    return sum(map(_equation_flops, jaxpr.eqns))


def _equation_flops(eqn: JaxprEqn) -> float:
    name = eqn.primitive.name
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        lhs = eqn.invars[0].aval.shape
        return 2.0 * eqn.outvars[0].aval.size * math.prod(lhs[d] for d in contracted)
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval
        features = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * eqn.outvars[0].aval.size * (kernel.size // features)
    inner = [count_flops(jaxpr) for jaxpr in _inner_jaxprs(eqn)]
    if name == "scan":
        return eqn.params["length"] * sum(inner)
    return max(inner, default=0.0) if name == "cond" else sum(inner)


def _inner_jaxprs(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    """The jaxprs among an equation's parameters: of `jit`, `remat`, loops, branches."""
    for value in eqn.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part


def _residual_bytes(jaxpr: Jaxpr, num_params: int) -> tuple[int, int]:
    """Bytes of a jaxpr's results: of those that follow from the image, and of the others.

    Arguments that are passed through take no memory of their own, nor does a result that stands
    among the results twice.

    Args:
        jaxpr: its first arguments are the parameters, the others are an image's.
        num_params: how many parameters.
    """
    images = set(jaxpr.invars[num_params:])
    for eqn in jaxpr.eqns:
        if any(isinstance(v, Var) and v in images for v in eqn.invars):
            images.update(eqn.outvars)
    results = {v for v in jaxpr.outvars if isinstance(v, Var)} - set(jaxpr.invars)
    own = sum(_bytes(v.aval) for v in results & images)
    return own, sum(_bytes(v.aval) for v in results - images)


def _bytes(aval: Any) -> int:
    return aval.size * aval.dtype.itemsize


def h100_hours(flops: float) -> float:
    """Returns the hours of one H100 that training of so many FLOPs takes."""
    return flops / (UTILISATION * H100_FLOPS_PER_SECOND) / 3600


def measured_flops_per_second() -> float:
    """Measures what a device sustains on a small convolution, forward and backward."""
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
