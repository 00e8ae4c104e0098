"""Perturbation kernels: x_t = scale(t) * (x0 + sigma(t) * z), z ~ N(0, I).

A kernel defines two functions of time; drift, diffusion, marginals and t(sigma) follow from them.
In the unscaled coordinates x_t / scale(t) every kernel has the probability-flow equation
dx/dsigma = (x - D(x; sigma)) / sigma. A kernel therefore decides at which noise levels a network is
trained and which levels a grid in time visits, but does not change the solution.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from reprojax.errors import require_choice

_BISECTIONS = 60  # enough to halve [t_min, t_max] to less than the spacing of float64


@dataclass(frozen=True)
class Kernel(abc.ABC):
    """The base class of the kernels.

    A subclass defines `scale`, `sigma` (increasing in t) and the range of t, as properties or as
    fields. It is a frozen dataclass and so hashable: a kernel can be a static argument of a
    compiled function.
    """

    @abc.abstractmethod
    def scale(self, t: jax.Array) -> jax.Array:
        """Returns s(t), elementwise."""

    @abc.abstractmethod
    def sigma(self, t: jax.Array) -> jax.Array:
        """Returns the noise level sigma(t) in data units, elementwise; it increases in t."""

    @property
    @abc.abstractmethod
    def t_min(self) -> float:
        """The smallest time that a network is trained at."""

    @property
    @abc.abstractmethod
    def t_max(self) -> float:
        """The largest time that a network is trained at."""

    def drift(self, t: jax.Array) -> jax.Array:
        """Returns f(t) = d log s / dt of the SDE dx = f(t) x dt + g(t) dw (arXiv 2011.13456)."""
        return _derivative(lambda u: jnp.log(self.scale(u)), t)

    def diffusion(self, t: jax.Array) -> jax.Array:
        """Returns g(t) = s * sqrt(d sigma^2 / dt) of the same SDE (arXiv 2206.00364, eq. 28)."""
        return self.scale(t) * jnp.sqrt(_derivative(lambda u: self.sigma(u) ** 2, t))

    def marginal(self, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the mean factor and the standard deviation of x_t given x0: (s, s * sigma)."""
        scale = self.scale(t)
        return scale, scale * self.sigma(t)

    def ends(self) -> tuple[jax.Array, jax.Array]:
        """Returns the smallest and the largest noise level that a network is trained at."""
        return self.sigma(jnp.asarray(self.t_min)), self.sigma(jnp.asarray(self.t_max))

    def t_of_sigma(self, sigma: jax.Array) -> jax.Array:
        """Finds the time of each noise level by bisection, clipped to [t_min, t_max].

        Args:
            sigma: Noise levels in data units, float, of any shape.

        Returns:
            Times of the same shape and dtype.
        """
        sigma = jnp.asarray(sigma)
        bounds = (jnp.full_like(sigma, self.t_min), jnp.full_like(sigma, self.t_max))

        def halve(_, bounds):
            low, high = bounds
            middle = 0.5 * (low + high)
            below = self.sigma(middle) < sigma
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, bounds)
        return 0.5 * (low + high)


def _derivative(fn: Callable[[jax.Array], jax.Array], t: jax.Array) -> jax.Array:
    t = jnp.asarray(t)
    return jax.jvp(fn, (t,), (jnp.ones_like(t),))[1]


@dataclass(frozen=True)
class VariancePreserving(Kernel):
    """The variance-preserving kernel, VP (arXiv 2006.11239, 2011.13456).

    s = exp(-B/2) and sigma = sqrt(expm1(B)) with B(t) = beta_min t + (beta_max - beta_min) t^2 / 2.
    It is expm1 because exp(B) - 1 loses digits at small t.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-5
    t_max: float = 1.0

    def integrated_beta(self, t: jax.Array) -> jax.Array:
        """Returns B(t), the integral of beta from 0 to t."""
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def scale(self, t: jax.Array) -> jax.Array:
        """Returns exp(-B/2)."""
        return jnp.exp(-0.5 * self.integrated_beta(t))

    def sigma(self, t: jax.Array) -> jax.Array:
        """Returns sqrt(exp(B) - 1)."""
        return jnp.sqrt(jnp.expm1(self.integrated_beta(t)))


@dataclass(frozen=True)
class SubVariancePreserving(VariancePreserving):
    """The sub-VP kernel (arXiv 2011.13456): the scale of VP with sigma = 2 sinh(B/2)."""

    def sigma(self, t: jax.Array) -> jax.Array:
        """Returns 2 sinh(B/2)."""
        return 2.0 * jnp.sinh(0.5 * self.integrated_beta(t))


@dataclass(frozen=True)
class VarianceExploding(Kernel):
    """The variance-exploding kernel, VE (arXiv 2011.13456).

    s = 1, and sigma is geometric in t from sigma_min to sigma_max.
    """

    sigma_min: float = 0.02
    sigma_max: float = 100.0
    t_min: float = 0.0
    t_max: float = 1.0

    def scale(self, t: jax.Array) -> jax.Array:
        """Returns 1."""
        return jnp.ones_like(t)

    def sigma(self, t: jax.Array) -> jax.Array:
        """Returns sigma_min * (sigma_max / sigma_min)^t."""
        return self.sigma_min * jnp.exp(t * math.log(self.sigma_max / self.sigma_min))


@dataclass(frozen=True)
class EDM(Kernel):
    """The kernel of EDM (arXiv 2206.00364): s = 1, sigma = t."""

    t_min: float = 0.002
    t_max: float = 80.0

    def scale(self, t: jax.Array) -> jax.Array:
        """Returns 1."""
        return jnp.ones_like(t)

    def sigma(self, t: jax.Array) -> jax.Array:
        """Returns t."""
        return jnp.asarray(t)


@dataclass(frozen=True)
class EndlessKernel(Kernel):
    """The base class of kernels whose sigma has no bound: t is cut at sigma_min and sigma_max."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    @abc.abstractmethod
    def time(self, sigma: float) -> float:
        """Returns t(sigma) in closed form."""

    @property
    def t_min(self) -> float:
        """The time at which sigma = sigma_min."""
        return self.time(self.sigma_min)

    @property
    def t_max(self) -> float:
        """The time at which sigma = sigma_max."""
        return self.time(self.sigma_max)


@dataclass(frozen=True)
class Cosine(EndlessKernel):
    """The cosine VP kernel (arXiv 2102.09672 without its offset, 2202.00512).

    x_t = cos(pi t / 2) x0 + sin(pi t / 2) z.
    """

    def time(self, sigma: float) -> float:
        """Returns 2 arctan(sigma) / pi."""
        return 2.0 / math.pi * math.atan(sigma)

    def scale(self, t: jax.Array) -> jax.Array:
        """Returns cos(pi t / 2)."""
        return jnp.cos(0.5 * math.pi * t)

    def sigma(self, t: jax.Array) -> jax.Array:
        """Returns tan(pi t / 2)."""
        return jnp.tan(0.5 * math.pi * t)


@dataclass(frozen=True)
class RectifiedFlow(EndlessKernel):
    """The kernel of rectified flow, the straight path x_t = (1 - t) x0 + t z (arXiv 2209.03003)."""

    def time(self, sigma: float) -> float:
        """Returns sigma / (1 + sigma)."""
        return sigma / (1.0 + sigma)

    def scale(self, t: jax.Array) -> jax.Array:
        """Returns 1 - t."""
        return 1.0 - t

    def sigma(self, t: jax.Array) -> jax.Array:
        """Returns t / (1 - t)."""
        return t / (1.0 - t)


@cache
def _ddpm_log_sigma(steps: int, beta_min: float, beta_max: float) -> np.ndarray:
    """Returns log sigma of DDPM's levels, float64 `[steps]`, from alpha-bar = prod (1 - beta)."""
    log_alpha_bar = np.cumsum(np.log1p(-np.linspace(beta_min, beta_max, steps)))
    return 0.5 * np.log(np.expm1(-log_alpha_bar))


@dataclass(frozen=True)
class DDPM(Kernel):
    """The kernel with DDPM's levels (arXiv 2006.11239): beta_k linear in k, t = k / (steps - 1).

    Between two levels log sigma is linear in t, so that solvers may use any time.
    """

    beta_min: float = 1e-4
    beta_max: float = 0.02
    steps: int = 1000
    t_min: float = 0.0
    t_max: float = 1.0

    def _levels(self, dtype) -> tuple[jax.Array, jax.Array]:
        log_sigma = _ddpm_log_sigma(self.steps, self.beta_min, self.beta_max)
        return jnp.linspace(0.0, 1.0, self.steps, dtype=dtype), jnp.asarray(log_sigma, dtype)

    def scale(self, t: jax.Array) -> jax.Array:
        """Returns sqrt(alpha-bar) = 1 / sqrt(1 + sigma^2)."""
        return jax.lax.rsqrt(1.0 + self.sigma(t) ** 2)

    def sigma(self, t: jax.Array) -> jax.Array:
        """Returns sqrt((1 - alpha-bar) / alpha-bar)."""
        t = jnp.asarray(t)
        return jnp.exp(jnp.interp(t, *self._levels(t.dtype)))

    def t_of_sigma(self, sigma: jax.Array) -> jax.Array:
        """Returns the times of noise levels in closed form; DDPM's network reads 999 t."""
        sigma = jnp.asarray(sigma)
        times, log_sigma = self._levels(sigma.dtype)
        return jnp.interp(jnp.log(sigma), log_sigma, times)


KERNELS: dict[str, Callable[[], Kernel]] = {
    "ddpm": DDPM,
    "vp": VariancePreserving,
    "subvp": SubVariancePreserving,
    "ve": VarianceExploding,
    "edm": EDM,
    "cosine": Cosine,
    "rf": RectifiedFlow,
}


def make_kernel(name: str) -> Kernel:
    """Makes a kernel with its published constants.

    Args:
        name: A key of `KERNELS`.

    Raises:
        InputError: ``name`` is not a key of `KERNELS`.
    """
    require_choice("kernel", name, KERNELS)
    return KERNELS[name]()
