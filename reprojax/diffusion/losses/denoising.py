"""Denoising objectives: at which noise levels a network is trained, and with which weight.

loss = E_{x0, sigma, z} weight(sigma) * mean_pixels (D(x0 + sigma z; sigma) - x0)^2.
Consistency and distillation are objectives of another form (`consistency`, `distillation`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from reprojax.diffusion.kernels import EDM, Kernel
from reprojax.diffusion.losses.base import Objective
from reprojax.diffusion.preconditioning import TIME_STEPS
from reprojax.diffusion.shapes import expand
from reprojax.errors import require_choice
from reprojax.rng import normal, stream, uniform
from reprojax.types import Companions, DenoiseFn

P_MEAN, P_STD = -1.2, 1.2  # EDM's log-normal of training noise levels (arXiv 2206.00364)


def _lognormal_sigma(key: jax.Array, n: int, kernel: Kernel) -> jax.Array:
    return jnp.exp(P_MEAN + P_STD * normal(key, (n,)))


def _uniform_t_sigma(key: jax.Array, n: int, kernel: Kernel) -> jax.Array:
    t = uniform(key, (n,), kernel.t_min, kernel.t_max)
    return kernel.sigma(t)


def _discrete_t_sigma(key: jax.Array, n: int, kernel: Kernel) -> jax.Array:
    k = jax.random.randint(key, (n,), 0, TIME_STEPS)
    return kernel.sigma(kernel.t_min + (kernel.t_max - kernel.t_min) * k / (TIME_STEPS - 1))


def _edm_weight(sigma: jax.Array, sigma_data: float) -> jax.Array:
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def _eps_weight(sigma: jax.Array, sigma_data: float) -> jax.Array:
    return sigma**-2


def _v_weight(sigma: jax.Array, sigma_data: float) -> jax.Array:
    return 1.0 + sigma**-2


def _velocity_weight(sigma: jax.Array, sigma_data: float) -> jax.Array:
    return (1.0 + 1.0 / sigma) ** 2


# Each name has a function that draws sigma `[n]` and a weight as a function of sigma. With these
# weights "eps", "v" and "velocity" are the squared errors of the noise, of v and of the velocity of
# the straight path: the error of x0 divided by c_out^2 of the matching preconditioning.
# "eps_discrete" and "v_discrete" draw from 1,000 equally spaced times, the first and the last
# included. With the kernel "ddpm" those are DDPM's steps, with "ve" SMLD's geometric levels.
DENOISING_OBJECTIVES: dict[str, tuple[Callable, Callable]] = {
    "edm": (_lognormal_sigma, _edm_weight),
    "eps": (_uniform_t_sigma, _eps_weight),
    "eps_discrete": (_discrete_t_sigma, _eps_weight),
    "v": (_uniform_t_sigma, _v_weight),
    "v_discrete": (_discrete_t_sigma, _v_weight),
    "velocity": (_uniform_t_sigma, _velocity_weight),
}


@dataclass(frozen=True)
class DenoisingObjective(Objective):
    """The weighted squared error of the denoised image, at noise levels drawn at random; hashable.

    Args:
        name: A key of `DENOISING_OBJECTIVES`.
        kernel: The kernel whose times are drawn, for objectives that draw times.
        sigma_data: The standard deviation of the data in units of [-1, 1].

    Raises:
        InputError: ``name`` is not a key of `DENOISING_OBJECTIVES`.
    """

    name: str = "edm"
    kernel: Kernel = field(default_factory=EDM)
    sigma_data: float = 0.5

    def __post_init__(self):
        require_choice("objective", self.name, DENOISING_OBJECTIVES)

    def sample_sigma(self, key: jax.Array, n: int) -> jax.Array:
        """Draws training noise levels, float32 `[n]`."""
        return DENOISING_OBJECTIVES[self.name][0](key, n, self.kernel)

    def weight(self, sigma: jax.Array) -> jax.Array:
        """Returns the weight of the squared error of x0 at each sigma, of the same shape."""
        return DENOISING_OBJECTIVES[self.name][1](sigma, self.sigma_data)

    def loss(
        self,
        denoise: DenoiseFn,
        x0: jax.Array,
        key: jax.Array,
        cond: Any = None,
        companions: Companions | None = None,
    ) -> jax.Array:
        """Returns the mean weighted squared error of a batch; see `Objective.loss`."""
        sigma = self.sample_sigma(stream(key, "sigma"), x0.shape[0])
        z = normal(stream(key, "noise"), x0.shape)
        error = denoise(x0 + expand(sigma, x0.ndim) * z, sigma, cond) - x0
        per_image = jnp.mean(error**2, axis=tuple(range(1, x0.ndim)))
        return jnp.mean(self.weight(sigma) * per_image)
