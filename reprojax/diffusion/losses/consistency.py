"""Consistency objectives, which train a network to return the end of the probability-flow path.

Two neighbouring points of a path must be mapped to the same image: x_hi = x0 + sigma_hi z and x_lo
at the next lower level. Consistency training (CT) computes x_lo from the same x0 and z, consistency
distillation (CD) by a step of the equation that a teacher defines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from reprojax.diffusion.karras import RHO, karras_level, karras_place
from reprojax.diffusion.kernels import EDM
from reprojax.diffusion.losses.base import ScheduledObjective, uniform_index
from reprojax.diffusion.shapes import expand
from reprojax.errors import InputError, require_number
from reprojax.rng import normal, stream
from reprojax.types import Companions, DenoiseFn

P_MEAN, P_STD = -1.1, 2.0  # iCT's log-normal of levels (arXiv 2310.14189, table 1)
HUBER = 0.00054  # iCT's c over sqrt(pixels) (arXiv 2310.14189, section 3.3)


def pseudo_huber(error: jax.Array) -> jax.Array:
    """Returns sqrt(|e|^2 + c^2) - c per image, c = .00054 sqrt(d) (arXiv 2310.14189, eq. 8).

    Args:
        error: The differences e of d pixels each, `[b, h, w, c]`.

    Returns:
        The distances, `[b]`.
    """
    axes = tuple(range(1, error.ndim))
    c = HUBER * math.sqrt(math.prod(error.shape[1:]))
    return jnp.sqrt(jnp.sum(error**2, axis=axes) + c**2) - c


@dataclass(frozen=True)
class ConsistencyTraining(ScheduledObjective):
    """Consistency training, CT (arXiv 2303.01469), with pseudo-Huber distances instead of LPIPS.

    The target is the network's moving average, which is also what is sampled. A pair of levels is
    drawn uniformly by its index. The number of levels grows with the square root of the steps.

    Args: those of `ScheduledObjective`, where the kernel must be EDM's, and
        first_levels: The number of intervals at the start, s0.
        last_levels: The number of intervals at the end, s1.

    Raises:
        InputError: The kernel is another one, or an option is outside its range.
    """

    first_levels: int = 2
    last_levels: int = 150

    flow_map = True
    companion_passes = 1  # of the target

    def __post_init__(self):
        if not isinstance(self.kernel, EDM):
            requirement = "must be 'edm': consistency objectives use the noise level as time"
            raise InputError("kernel", type(self.kernel).__name__, requirement)
        require_number("options.first_levels", self.first_levels, at_least=1)
        require_number("options.last_levels", self.last_levels, at_least=self.first_levels)

    def intervals(self, step: jax.Array) -> jax.Array:
        """Returns the number of intervals at a step, float32 (arXiv 2303.01469, appendix C)."""
        share = jnp.minimum(step / self.steps, 1.0)
        first, last = self.first_levels, self.last_levels
        rising = jnp.sqrt(share * ((last + 1) ** 2 - first**2) + first**2) - 1.0
        return jnp.maximum(jnp.ceil(rising), 1.0)

    def draw_interval(self, key: jax.Array, n: int, intervals: jax.Array) -> jax.Array:
        """Draws the indices of ``n`` intervals, float32 `[n]`; interval 0 is the noisiest."""
        return uniform_index(key, (n,), intervals)

    def weight(self, low: jax.Array, high: jax.Array) -> jax.Array:
        """Returns the weights of pairs of neighbouring levels, `[n]`."""
        return jnp.ones_like(high)

    def target(self, denoise: DenoiseFn, companions: Companions) -> DenoiseFn:
        """Returns the function that maps the lower point. It is not differentiated."""
        return companions.ema

    def lower_point(self, x0, z, x, low, high, cond, companions: Companions) -> jax.Array:
        """Returns the neighbour of x at the lower level, from the same image and noise."""
        return x0 + expand(low, x0.ndim) * z

    def levels(self, key: jax.Array, n: int, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draws ``n`` pairs of neighbouring levels: low `[n]` and high `[n]`."""
        intervals = self.intervals(step)
        i = self.draw_interval(key, n, intervals)
        low, high = (self._level((i + d) / intervals) for d in (1, 0))
        return low, high

    def loss(
        self,
        denoise: DenoiseFn,
        x0: jax.Array,
        key: jax.Array,
        cond: Any = None,
        companions: Companions | None = None,
    ) -> jax.Array:
        """Returns the mean weighted distance between the images that neighbours are mapped to."""
        low, high = self.levels(stream(key, "sigma"), x0.shape[0], companions.step)
        z = normal(stream(key, "noise"), x0.shape)
        x = x0 + expand(high, x0.ndim) * z
        lower = self.lower_point(x0, z, x, low, high, cond, companions)
        goal = jax.lax.stop_gradient(self.target(denoise, companions)(lower, low, cond))
        distance = pseudo_huber(denoise(x, high, cond) - goal)
        return jnp.mean(self.weight(low, high) * distance)

    @property
    def _ends(self) -> tuple[float, float]:
        return self.kernel.t_min, self.kernel.t_max

    def _level(self, u: jax.Array) -> jax.Array:
        return karras_level(u, *self._ends, RHO)


@dataclass(frozen=True)
class ImprovedConsistencyTraining(ConsistencyTraining):
    """Improved consistency training, iCT (arXiv 2310.14189).

    The target is the network itself, not its moving average. Levels follow a discretised
    log-normal, their number doubles again and again from s0 to s1, and a pair has the weight
    1 / (sigma_hi - sigma_lo).
    """

    first_levels: int = 10
    last_levels: int = 1280

    def intervals(self, step: jax.Array) -> jax.Array:
        """Returns min(s0 2^floor(k / K'), s1) (arXiv 2310.14189, section 3.4).

        K' is the number of training steps divided by the number of different values.
        """
        doublings = math.log2(self.last_levels / self.first_levels)
        stage_steps = max(self.steps // (math.floor(doublings) + 1), 1)
        count = self.first_levels * 2.0 ** jnp.floor(step / stage_steps)
        return jnp.minimum(count, float(self.last_levels))

    def draw_interval(self, key: jax.Array, n: int, intervals: jax.Array) -> jax.Array:
        """Draws each interval with the probability that a truncated log-normal gives to it."""
        low, high = ((math.log(s) - P_MEAN) / P_STD for s in self._ends)
        z = jax.random.truncated_normal(key, low, high, (n,), jnp.float32)
        place = karras_place(jnp.exp(P_MEAN + P_STD * z), *self._ends, RHO)
        return jnp.clip(jnp.floor(place * intervals), 0, intervals - 1)

    def weight(self, low: jax.Array, high: jax.Array) -> jax.Array:
        """Returns 1 / (sigma_hi - sigma_lo)."""
        return 1.0 / (high - low)

    def target(self, denoise: DenoiseFn, companions: Companions) -> DenoiseFn:
        """Returns the network itself."""
        return denoise


@dataclass(frozen=True)
class ConsistencyDistillation(ConsistencyTraining):
    """Consistency distillation, CD (arXiv 2303.01469, algorithm 2).

    The lower point comes from a Heun step with the teacher. The number of levels is fixed, 18 in
    the paper, and the target is the network's moving average.
    """

    first_levels: int = 18
    last_levels: int = 18

    needs_teacher = True
    companion_passes = 3  # one of the target and two of the teacher

    def __post_init__(self):
        super().__post_init__()
        if self.first_levels != self.last_levels:
            requirement = f"must equal first_levels ({self.first_levels}): CD keeps their number"
            raise InputError("options.last_levels", self.last_levels, requirement)

    def intervals(self, step: jax.Array) -> jax.Array:
        """Returns the same number at every step."""
        return jnp.asarray(self.first_levels, jnp.float32)

    def lower_point(self, x0, z, x, low, high, cond, companions: Companions) -> jax.Array:
        """Moves x down by one Heun step of dx/dsigma = (x - D) / sigma, D being the teacher."""

        def slope(x, sigma):
            return (x - companions.teacher(x, sigma, cond)) / expand(sigma, x.ndim)

        step = expand(low - high, x.ndim)
        first = slope(x, high)
        second = slope(x + step * first, low)
        return x + 0.5 * step * (first + second)
