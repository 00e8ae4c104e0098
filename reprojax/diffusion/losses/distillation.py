"""Progressive distillation: a student learns to do two of its teacher's DDIM steps in one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from reprojax.diffusion.karras import RHO, karras_level
from reprojax.diffusion.losses.base import ScheduledObjective, uniform_index
from reprojax.diffusion.losses.denoising import expand
from reprojax.errors import InputError, require_number
from reprojax.rng import normal, stream
from reprojax.types import Companions, DenoiseFn


@dataclass(frozen=True)
class ProgressiveDistillation(ScheduledObjective):
    """The number of steps halves from stage to stage (arXiv 2202.00512, algorithm 2).

    Stages are of equal length. At the start of each, the student so far (its moving average)
    becomes the teacher, and the student goes on from there. What is left is a denoiser for DDIM on
    the Karras levels of ``last_steps`` steps that end at sigma_min, and means nothing between them.

    Args: those of `ScheduledObjective`, and
        first_steps: DDIM steps of the first student; its teacher does twice as many.
        last_steps: DDIM steps of the last student; ``first_steps`` is it times a power of 2.
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
            allowed = f"last_steps = {self.last_steps} times a power of 2"
            raise InputError("options.first_steps", self.first_steps, allowed)

    @property
    def stages(self) -> int:
        """How many students there are."""
        return round(math.log2(self.first_steps / self.last_steps)) + 1

    @property
    def stage_steps(self) -> int:
        """Optimiser steps of a stage; what does not divide evenly goes to the last one."""
        return max(self.steps // self.stages, 1)

    def new_teacher(self, step: jax.Array) -> jax.Array:
        """Whether a stage begins at this step, other than the first."""
        stage = step // self.stage_steps
        return (step > 0) & (step % self.stage_steps == 0) & (stage < self.stages)

    def student_steps(self, step: jax.Array) -> jax.Array:
        """DDIM steps of the student that is in training, float32."""
        stage = jnp.minimum(step // self.stage_steps, self.stages - 1)
        return self.first_steps / 2.0**stage

    def loss(
        self,
        denoise: DenoiseFn,
        x0: jax.Array,
        key: jax.Array,
        cond: jax.Array | None = None,
        companions: Companions | None = None,
    ) -> jax.Array:
        """The mean squared error to the image that the teacher points at; see `Objective.loss`."""
        n = self.student_steps(companions.step)
        i = uniform_index(stream(key, "sigma"), x0.shape[:1], n)
        now, middle, then = (self._level((i + d) / n) for d in (0.0, 0.5, 1.0))
        x = x0 + expand(now, x0.ndim) * normal(stream(key, "noise"), x0.shape)
        goal = jax.lax.stop_gradient(_two_steps(companions.teacher, x, now, middle, then, cond))
        error = jnp.mean((denoise(x, now, cond) - goal) ** 2, axis=tuple(range(1, x0.ndim)))
        # 1 / sigma^2 + 1 / sigma_data^2: the paper's SNR + 1 weight in units of the data.
        return jnp.mean((now**-2 + self.sigma_data**-2) * error)

    def _level(self, u: jax.Array) -> jax.Array:
        # Those of n steps are every second one of 2 n steps.
        return karras_level(u, *self.kernel.ends(), RHO)


def _two_steps(teacher, x, now, middle, then, cond) -> jax.Array:
    """The denoised image with which one DDIM step from now to then ends where two teacher's do."""

    def ddim(x, a, b):
        share = expand(b / a, x.ndim)
        return share * x + (1.0 - share) * teacher(x, a, cond)

    end = ddim(ddim(x, now, middle), middle, then)
    share = expand(then / now, x.ndim)
    return (end - share * x) / (1.0 - share)
