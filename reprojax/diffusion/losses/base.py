"""The base classes of the training objectives."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from reprojax.diffusion.kernels import EDM, Kernel
from reprojax.rng import uniform
from reprojax.types import Companions, DenoiseFn


class Objective(abc.ABC):
    """What a network is trained on. A subclass is frozen and hashable and keeps no state.

    Attributes:
        flow_map: Whether the objective trains a flow map and not a denoiser.
        needs_teacher: Whether the objective calls a teacher.
        staged: Whether the network becomes its own teacher at each step with ``new_teacher(step)``.
        companion_passes: The number of forward passes per image through functions other than the
            network that is trained.
    """

    flow_map = False
    needs_teacher = False
    staged = False
    companion_passes = 0

    @abc.abstractmethod
    def loss(
        self,
        denoise: DenoiseFn,
        x0: jax.Array,
        key: jax.Array,
        cond: Any = None,
        companions: Companions | None = None,
    ) -> jax.Array:
        """Returns the mean loss of a batch.

        Args:
            denoise: The network that is trained.
            x0: Images `[b, h, w, c]`, float32 in [-1, 1].
            key: The key whose named streams give the noise levels and the noise.
            cond: The conditions of these images, as in `DenoiseFn`, or None.
            companions: The other functions that the objective may call. A denoising objective
                needs none.

        Returns:
            A float32 scalar.
        """


@dataclass(frozen=True)
class ScheduledObjective(Objective):
    """The base class of objectives that change in the course of training.

    The fields that a subclass adds are its options.

    Args:
        kernel: The kernel whose smallest and largest level bound the training levels.
        sigma_data: The standard deviation of the data.
        steps: The number of optimiser steps of the training, over which the schedule is spread.
    """

    kernel: Kernel = field(default_factory=EDM)
    sigma_data: float = 0.5
    steps: int = 1


def uniform_index(key: jax.Array, shape: tuple[int, ...], count: jax.Array) -> jax.Array:
    """Draws whole numbers from 0 to count - 1, equally likely, as float32.

    Args:
        key: The PRNG key.
        shape: The shape of the result.
        count: The number of values, which may be traced.
    """
    return jnp.minimum(jnp.floor(uniform(key, shape, 0.0, 1.0) * count), count - 1)
