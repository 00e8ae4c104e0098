"""Preconditioning: D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), as a table of coefficients.

F is the network. The coefficients are functions of sigma in unscaled coordinates (arXiv 2206.00364,
table 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp

from reprojax.diffusion.kernels import EDM, Kernel
from reprojax.errors import require_choice

TIME_STEPS = 1000  # a network of the VP family takes time on the scale of DDPM's 1,000 steps


class Coefficients(NamedTuple):
    """The four coefficients at noise levels sigma, each of the shape of sigma."""

    c_skip: jax.Array
    c_out: jax.Array
    c_in: jax.Array
    c_noise: jax.Array


def edm(sigma: jax.Array, kernel: Kernel, sigma_data: float) -> Coefficients:
    """Gives input, output and target unit variance at every sigma (arXiv 2206.00364)."""
    total = sigma**2 + sigma_data**2
    return Coefficients(
        sigma_data**2 / total,
        sigma * sigma_data * jax.lax.rsqrt(total),
        jax.lax.rsqrt(total),
        0.25 * jnp.log(sigma),
    )


def _time(sigma: jax.Array, kernel: Kernel) -> jax.Array:
    return (TIME_STEPS - 1) * kernel.t_of_sigma(sigma)


def vp_eps(sigma: jax.Array, kernel: Kernel, sigma_data: float) -> Coefficients:
    """Makes the network predict the noise (arXiv 2006.11239): D = x - sigma F."""
    c_in = jax.lax.rsqrt(1.0 + sigma**2)
    return Coefficients(jnp.ones_like(sigma), -sigma, c_in, _time(sigma, kernel))


def vp_v(sigma: jax.Array, kernel: Kernel, sigma_data: float) -> Coefficients:
    """Makes the network predict v = alpha z - sigma_t x0, alpha^2 + sigma_t^2 = 1 (2202.00512)."""
    c_in = jax.lax.rsqrt(1.0 + sigma**2)
    return Coefficients(c_in**2, -sigma * c_in, c_in, _time(sigma, kernel))


def subvp_eps(sigma: jax.Array, kernel: Kernel, sigma_data: float) -> Coefficients:
    """Makes the network predict the noise from sub-VP's input x_t = s(t) x (arXiv 2011.13456)."""
    t = kernel.t_of_sigma(sigma)
    return Coefficients(jnp.ones_like(sigma), -sigma, kernel.scale(t), (TIME_STEPS - 1) * t)


def ve(sigma: jax.Array, kernel: Kernel, sigma_data: float) -> Coefficients:
    """Leaves the input unscaled, as NCSN does (arXiv 2011.13456, as tabulated in 2206.00364)."""
    one = jnp.ones_like(sigma)
    return Coefficients(one, sigma, one, jnp.log(0.5 * sigma))


def rf(sigma: jax.Array, kernel: Kernel, sigma_data: float) -> Coefficients:
    """Makes the network predict v = z - x0, the velocity of the straight path (arXiv 2209.03003).

    In the coordinates of the path x0 = x_t - t v, with s = 1 - t = 1 / (1 + sigma).
    """
    s = 1.0 / (1.0 + sigma)
    return Coefficients(s, -sigma * s, s, (TIME_STEPS - 1) * sigma * s)


def consistency(sigma: jax.Array, kernel: Kernel, sigma_data: float) -> Coefficients:
    """Makes a flow map, which is the identity at the smallest level (arXiv 2303.01469, eq. 25)."""
    above = sigma - kernel.sigma(jnp.asarray(kernel.t_min, sigma.dtype))
    total = sigma**2 + sigma_data**2
    return Coefficients(
        sigma_data**2 / (above**2 + sigma_data**2),
        above * sigma_data * jax.lax.rsqrt(total),
        jax.lax.rsqrt(total),
        0.25 * jnp.log(sigma),
    )


PRECONDITIONINGS: dict[str, Callable[[jax.Array, Kernel, float], Coefficients]] = {
    "edm": edm,
    "vp_eps": vp_eps,
    "vp_v": vp_v,
    "subvp_eps": subvp_eps,
    "ve": ve,
    "rf": rf,
    "consistency": consistency,
}


@dataclass(frozen=True)
class Preconditioning:
    """A preconditioning with its kernel and data scale; hashable.

    Args:
        name: A key of `PRECONDITIONINGS`.
        kernel: The kernel that turns noise levels into times, for networks that take time.
        sigma_data: The standard deviation of the data in units of [-1, 1] (0.5 by convention).

    Raises:
        InputError: ``name`` is not a key of `PRECONDITIONINGS`.
    """

    name: str = "edm"
    kernel: Kernel = field(default_factory=EDM)
    sigma_data: float = 0.5

    def __post_init__(self):
        require_choice("preconditioning", self.name, PRECONDITIONINGS)

    def __call__(self, sigma: jax.Array) -> Coefficients:
        """Returns the coefficients at noise levels sigma `[b]`."""
        return PRECONDITIONINGS[self.name](sigma, self.kernel, self.sigma_data)
