"""Consistency objectives: a network learns the end point of the probability-flow path itself.

Two neighbouring points of one path must be mapped to one image: x_hi = x0 + sigma_hi z and x_lo at
the level below. Training (CT) takes x_lo from the same x0 and z, distillation (CD) from a step of a
teacher's equation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from reprojax.diffusion.karras import RHO, karras_level, karras_place
from reprojax.diffusion.kernels import EDM
from reprojax.diffusion.losses.base import ScheduledObjective, uniform_index
from reprojax.diffusion.losses.denoising import expand
from reprojax.errors import InputError, require_number
from reprojax.rng import normal, stream
from reprojax.types import Companions, DenoiseFn

P_MEAN, P_STD = -1.1, 2.0  # iCT's log-normal of levels (arXiv 2310.14189, table 1)
HUBER = 0.00054  # iCT's c over sqrt(pixels) (arXiv 2310.14189, section 3.3)


def pseudo_huber(error: jax.Array) -> jax.Array:
    """sqrt(|e|^2 + c^2) - c per image, c = .00054 sqrt(d) (arXiv 2310.14189, eq. 8).

    Args:
        error: `[b, h, w, c]`.

    Returns:
        `[b]`.
    """
    axes = tuple(range(1, error.ndim))
    c = HUBER * math.sqrt(math.prod(error.shape[1:]))
    return jnp.sqrt(jnp.sum(error**2, axis=axes) + c**2) - c


@dataclass(frozen=True)
class ConsistencyTraining(ScheduledObjective):
    """CT as published in 2303.01469, with the pseudo-Huber metric in place of LPIPS.

    The target is the network's moving average, the one that is sampled; levels are uniform in
    their index; their number grows with the square root of the steps.

    Args: those of `ScheduledObjective`, the kernel being EDM's, and
        first_levels: s0, intervals at the start.
        last_levels: s1, intervals at the end.

    Raises:
        InputError: another kernel, or an option outside its range.
    """

    first_levels: int = 2
    last_levels: int = 150

    flow_map = True
    companion_passes = 1  # of the target

    def __post_init__(self):
        if not isinstance(self.kernel, EDM):
            allowed = "'edm': consistency losses take time as the noise level"
            raise InputError("kernel", type(self.kernel).__name__, allowed)
        require_number("options.first_levels", self.first_levels, at_least=1)
        require_number("options.last_levels", self.last_levels, at_least=self.first_levels)

    def intervals(self, step: jax.Array) -> jax.Array:
        """How many intervals the range has at a step, float32 (arXiv 2303.01469, appendix C)."""
        share = jnp.minimum(step / self.steps, 1.0)
        first, last = self.first_levels, self.last_levels
        rising = jnp.sqrt(share * ((last + 1) ** 2 - first**2) + first**2) - 1.0
        return jnp.maximum(jnp.ceil(rising), 1.0)

    def draw_interval(self, key: jax.Array, n: int, intervals: jax.Array) -> jax.Array:
        """Indices float32 `[n]` of intervals, 0 the noisiest."""
        return uniform_index(key, (n,), intervals)

    def weight(self, low: jax.Array, high: jax.Array) -> jax.Array:
        """Of a pair of levels."""
        return jnp.ones_like(high)

    def target(self, denoise: DenoiseFn, companions: Companions) -> DenoiseFn:
        """What maps the lower point; no gradient reaches it."""
        return companions.ema

    def lower_point(self, x0, z, x, low, high, cond, companions: Companions) -> jax.Array:
        """The neighbour of x at the lower level: of the same image and noise."""
        return x0 + expand(low, x0.ndim) * z

    def levels(self, key: jax.Array, n: int, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Neighbouring levels (low, high), `[n]` each."""
        intervals = self.intervals(step)
        i = self.draw_interval(key, n, intervals)
        low, high = (self._level((i + d) / intervals) for d in (1, 0))
        return low, high

    def loss(
        self,
        denoise: DenoiseFn,
        x0: jax.Array,
        key: jax.Array,
        cond: jax.Array | None = None,
        companions: Companions | None = None,
    ) -> jax.Array:
        """The mean weighted distance between the ends of neighbours; see `Objective.loss`."""
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
    """iCT (arXiv 2310.14189): the target is the network itself, without any average.

    Levels follow a discretised log-normal, their number doubles from s0 to s1, and a pair is
    weighted by 1 / (sigma_hi - sigma_lo).
    """

    first_levels: int = 10
    last_levels: int = 1280

    def intervals(self, step: jax.Array) -> jax.Array:
        """min(s0 2^floor(k / K'), s1), K' the steps over the number of doublings (section 3.4)."""
        doublings = math.log2(self.last_levels / self.first_levels)
        each = max(self.steps // (math.floor(doublings) + 1), 1)
        grown = self.first_levels * 2.0 ** jnp.floor(step / each)
        return jnp.minimum(grown, float(self.last_levels))

    def draw_interval(self, key: jax.Array, n: int, intervals: jax.Array) -> jax.Array:
        """Each interval with the mass that the log-normal, cut to the range, has on it."""
        low, high = ((math.log(s) - P_MEAN) / P_STD for s in self._ends)
        z = jax.random.truncated_normal(key, low, high, (n,), jnp.float32)
        place = karras_place(jnp.exp(P_MEAN + P_STD * z), *self._ends, RHO)
        return jnp.clip(jnp.floor(place * intervals), 0, intervals - 1)

    def weight(self, low: jax.Array, high: jax.Array) -> jax.Array:
        """1 / (sigma_hi - sigma_lo)."""
        return 1.0 / (high - low)

    def target(self, denoise: DenoiseFn, companions: Companions) -> DenoiseFn:
        """The network itself."""
        return denoise


@dataclass(frozen=True)
class ConsistencyDistillation(ConsistencyTraining):
    """CD (arXiv 2303.01469, algorithm 2): the lower point is a Heun step of the teacher.

    The number of levels is fixed, 18 in the paper; the target is the moving average.
    """

    first_levels: int = 18
    last_levels: int = 18

    needs_teacher = True
    companion_passes = 3  # of the target, and two of the teacher

    def __post_init__(self):
        super().__post_init__()
        if self.first_levels != self.last_levels:
            allowed = f"first_levels = {self.first_levels}: distillation keeps their number"
            raise InputError("options.last_levels", self.last_levels, allowed)

    def intervals(self, step: jax.Array) -> jax.Array:
        """As many at every step."""
        return jnp.asarray(self.first_levels, jnp.float32)

    def lower_point(self, x0, z, x, low, high, cond, companions: Companions) -> jax.Array:
        """x moved down by one Heun step of the teacher's dx/dsigma = (x - D) / sigma."""
        slope = lambda x, s: (x - companions.teacher(x, s, cond)) / expand(s, x.ndim)  # noqa: E731
        step = expand(low - high, x.ndim)
        first = slope(x, high)
        second = slope(x + step * first, low)
        return x + 0.5 * step * (first + second)
