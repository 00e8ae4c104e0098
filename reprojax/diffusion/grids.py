"""Noise-level grids: which sigmas a fixed-step solver visits. Host arrays in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from reprojax.diffusion.karras import RHO, karras_level
from reprojax.diffusion.kernels import Kernel
from reprojax.errors import InputError, require_choice, require_number

ENDS = ("zero", "sigma_min")


def karras(n: int, low: float, high: float, rho: float, kernel: Kernel) -> np.ndarray:
    """Uniform in sigma^(1/rho) (arXiv 2206.00364, eq. 5); float64 `[n]`, falling."""
    return karras_level(np.linspace(0.0, 1.0, n), low, high, rho)


def log_sigma(n: int, low: float, high: float, rho: float, kernel: Kernel) -> np.ndarray:
    """Uniform in log sigma; float64 `[n]`, falling."""
    return np.exp(np.linspace(np.log(high), np.log(low), n))


def uniform_t(n: int, low: float, high: float, rho: float, kernel: Kernel) -> np.ndarray:
    """Uniform in the kernel's own time between t(high) and t(low); float64 `[n]`, falling."""
    with jax.enable_x64(True):
        ends = kernel.t_of_sigma(jnp.asarray([high, low], jnp.float64))
        t = jnp.linspace(ends[0], ends[1], n)
        return np.asarray(kernel.sigma(t))


GRIDS: dict[str, Callable[[int, float, float, float, Kernel], np.ndarray]] = {
    "karras": karras,
    "log_sigma": log_sigma,
    "uniform_t": uniform_t,
}


@dataclass(frozen=True)
class GridSpec:
    """A noise-level grid.

    Args:
        name: a key of `GRIDS`.
        num_steps: solver steps, at least 1.
        sigma_min: the last positive noise level, > 0, below ``sigma_max``.
        sigma_max: where sampling starts, data units.
        rho: exponent of the Karras grid.
        end: "zero" ends with a step from sigma_min to 0 (EDM's convention: ``num_steps`` levels,
            then 0); "sigma_min" ends there, where a solver's order can be observed.

    Raises:
        InputError: a value outside its range, naming it.
    """

    name: str = "karras"
    num_steps: int = 18
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = RHO
    end: str = "zero"

    def __post_init__(self):
        require_choice("sampling.grid", self.name, GRIDS)
        require_choice("sampling.end", self.end, ENDS)
        require_number("sampling.num_steps", self.num_steps, at_least=1)
        require_number("sampling.sigma_max", self.sigma_max, above=0)
        require_number("sampling.rho", self.rho, above=0)
        if not 0 < self.sigma_min < self.sigma_max:
            raise InputError(
                "sampling.sigma_min",
                self.sigma_min,
                f"must be above 0 and below sigma_max = {self.sigma_max}",
            )

    def require_range_of(self, kernel: Kernel) -> None:
        """Raises InputError if a grid in the kernel's time reaches beyond the kernel's levels."""
        low, high = map(float, kernel.ends())
        for name in ("sigma_min", "sigma_max"):
            value = getattr(self, name)
            if self.name == "uniform_t" and not low * (1 - 1e-5) <= value <= high * (1 + 1e-5):
                allowed = f"between {low:.3g} and {high:.4g}, the levels of the kernel's time"
                raise InputError(f"sampling.{name}", value, allowed)

    def sigmas(self, kernel: Kernel) -> np.ndarray:
        """The levels, float64 `[num_steps + 1]`, strictly falling."""
        to_zero = self.end == "zero"
        n = self.num_steps + (0 if to_zero else 1)
        levels = GRIDS[self.name](n, self.sigma_min, self.sigma_max, self.rho, kernel)
        return np.append(levels, 0.0) if to_zero else levels
