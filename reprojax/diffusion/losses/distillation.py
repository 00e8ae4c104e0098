"""Progressive distillation: a student learns to do two DDIM steps of its teacher in one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from reprojax.diffusion.karras import RHO, karras_level
from reprojax.diffusion.losses.base import ScheduledObjective, uniform_index
from reprojax.diffusion.shapes import expand
from reprojax.errors import InputError, require_number
from reprojax.rng import normal, stream
from reprojax.types import Companions, DenoiseFn


@dataclass(frozen=True)
class ProgressiveDistillation(ScheduledObjective):
    """Progressive distillation (arXiv 2202.00512, algorithm 2).

    The number of DDIM steps halves from stage to stage, and all stages are equally long. At the
    start of a stage the student's moving average becomes the new teacher, and the training of the
    student continues from it. The final network is a denoiser for DDIM with ``last_steps`` steps on
    Karras levels that end at sigma_min. It is not meant to be used at any other noise level.

    Args: those of `ScheduledObjective`, and
        first_steps: The DDIM steps of the first student. Its teacher does twice as many.
        last_steps: The DDIM steps of the last student. ``first_steps`` must be a power of 2 times
            this number.

    Raises:
        InputError: An option is outside its range.
    """

    first_steps: int = 512
    last_steps: int = 4

    needs_teacher = True
    staged = True
    companion_passes = 2  # of the teacher

    def __post_init__(self):
        require_number("options.last_steps", self.last_steps, at_least=1)
        ratio = self.first_steps / self.last_steps
        if ratio < 1 or not math.log2(ratio).is_integer():
            requirement = f"must be a power of 2 times last_steps ({self.last_steps})"
            raise InputError("options.first_steps", self.first_steps, requirement)

    @property
    def stages(self) -> int:
        """The number of stages, with one student each."""
        return round(math.log2(self.first_steps / self.last_steps)) + 1

    @property
    def stage_steps(self) -> int:
        """The optimiser steps of a stage. The last stage also gets what does not divide evenly."""
        return max(self.steps // self.stages, 1)

    def new_teacher(self, step: jax.Array) -> jax.Array:
        """Returns True if a stage other than the first begins at this step."""
        stage = step // self.stage_steps
        return (step > 0) & (step % self.stage_steps == 0) & (stage < self.stages)

    def student_steps(self, step: jax.Array) -> jax.Array:
        """Returns the DDIM steps of the student that is trained at this step, float32."""
        stage = jnp.minimum(step // self.stage_steps, self.stages - 1)
        return self.first_steps / 2.0**stage

    def loss(
        self,
        denoise: DenoiseFn,
        x0: jax.Array,
        key: jax.Array,
        cond: Any = None,
        companions: Companions | None = None,
    ) -> jax.Array:
        """Returns the mean weighted squared error to the teacher's image; see `Objective.loss`."""
        n = self.student_steps(companions.step)
        i = uniform_index(stream(key, "sigma"), x0.shape[:1], n)
        high, middle, low = (self._level((i + d) / n) for d in (0.0, 0.5, 1.0))
        x = x0 + expand(high, x0.ndim) * normal(stream(key, "noise"), x0.shape)
        goal = jax.lax.stop_gradient(_two_steps(companions.teacher, x, high, middle, low, cond))
        error = jnp.mean((denoise(x, high, cond) - goal) ** 2, axis=tuple(range(1, x0.ndim)))
        # 1 / sigma^2 + 1 / sigma_data^2: the paper's SNR + 1 weight in units of the data.
        return jnp.mean((high**-2 + self.sigma_data**-2) * error)

    def _level(self, u: jax.Array) -> jax.Array:
        # The levels of n steps are every second level of 2 n steps.
        return karras_level(u, *self.kernel.ends(), RHO)


def _two_steps(teacher, x, high, middle, low, cond) -> jax.Array:
    """Returns the denoised image that makes one DDIM step end where two steps of the teacher end.

    Args:
        teacher: The teacher, a DenoiseFn.
        x: Images at the level ``high``, `[b, h, w, c]`.
        high: The levels at which both begin, `[b]`.
        middle: The levels at which the teacher's first step ends, `[b]`.
        low: The levels at which both end, `[b]`.
        cond: The conditions of the images, or None.
    """

    def ddim(x, a, b):
        share = expand(b / a, x.ndim)
        return share * x + (1.0 - share) * teacher(x, a, cond)

    end = ddim(ddim(x, high, middle), middle, low)
    share = expand(low / high, x.ndim)
    return (end - share * x) / (1.0 - share)
