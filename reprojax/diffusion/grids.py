"""Noise-level grids: the sigmas that a fixed-step solver visits, as float64 arrays on the host."""

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
    """Returns levels that are uniform in sigma^(1/rho) (arXiv 2206.00364, eq. 5).

    All functions of `GRIDS` take the number of levels, the lowest and the highest level, rho and
    the kernel, and return float64 `[n]`, falling.
    """
    return karras_level(np.linspace(0.0, 1.0, n), low, high, rho)


def log_sigma(n: int, low: float, high: float, rho: float, kernel: Kernel) -> np.ndarray:
    """Returns levels that are uniform in log sigma, float64 `[n]`, falling."""
    return np.exp(np.linspace(np.log(high), np.log(low), n))


def uniform_t(n: int, low: float, high: float, rho: float, kernel: Kernel) -> np.ndarray:
    """Returns levels that are uniform in the kernel's time, float64 `[n]`, falling."""
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
        name: The spacing of the levels, a key of `GRIDS`.
        num_steps: The number of solver steps, at least 1.
        sigma_min: The last positive noise level in data units, > 0 and below ``sigma_max``.
        sigma_max: The noise level at which sampling starts, in data units.
        rho: The exponent of the Karras grid.
        end: The last level. With "zero" the last step goes from sigma_min to 0, which is EDM's
            convention: ``num_steps`` levels, then 0. With "sigma_min" it ends at sigma_min, where
            the order of a solver can be observed.

    Raises:
        InputError: A value is outside its range.
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
        """Raises InputError if the grid is uniform in time and exceeds the kernel's levels.

        Args:
            kernel: The kernel whose time the grid is uniform in.
        """
        low, high = map(float, kernel.ends())
        for name in ("sigma_min", "sigma_max"):
            value = getattr(self, name)
            if self.name == "uniform_t" and not low * (1 - 1e-5) <= value <= high * (1 + 1e-5):
                requirement = (
                    f"must be between {low:.3g} and {high:.4g}, the kernel's smallest and largest "
                    "level"
                )
                raise InputError(f"sampling.{name}", value, requirement)

    def sigmas(self, kernel: Kernel) -> np.ndarray:
        """Returns the levels, float64 `[num_steps + 1]`, strictly falling.

        Args:
            kernel: The kernel whose time a "uniform_t" grid is uniform in.
        """
        to_zero = self.end == "zero"
        n = self.num_steps + (0 if to_zero else 1)
        levels = GRIDS[self.name](n, self.sigma_min, self.sigma_max, self.rho, kernel)
        return np.append(levels, 0.0) if to_zero else levels
