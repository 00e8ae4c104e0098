"""What every training loss is to the train step."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from reprojax.diffusion.kernels import EDM, Kernel
from reprojax.rng import uniform
from reprojax.types import Companions, DenoiseFn


class Objective:
    """Base of the losses: frozen, hashable, a function of what they are given alone.

    Attributes:
        flow_map: whether what it trains is a flow map and not a denoiser.
        needs_teacher: whether it calls a teacher.
        staged: whether the network becomes its own teacher where ``new_teacher(step)`` says so.
        companion_passes: forward passes per image beside those of the network that is trained.
    """

    flow_map = False
    needs_teacher = False
    staged = False
    companion_passes = 0

    def loss(
        self,
        denoise: DenoiseFn,
        x0: jax.Array,
        key: jax.Array,
        cond: jax.Array | None = None,
        companions: Companions | None = None,
    ) -> jax.Array:
        """The batch's mean loss.

        Args:
            denoise: the network that is trained.
            x0: `[b, h, w, c]` float32 in [-1, 1].
            key: noise levels and noise are drawn from its named streams.
            cond: `[b]` int32 labels or None.
            companions: what else it may call; a plain denoising objective needs none.

        Returns:
            float32 scalar.
        """
        raise NotImplementedError(type(self).__name__)


@dataclass(frozen=True)
class ScheduledObjective(Objective):
    """Base of the losses that change over training; the fields of a subclass are its options.

    Args:
        kernel: its smallest and largest level bound the range.
        sigma_data: of the data.
        steps: of the whole training, which the schedule is spread over.
    """

    kernel: Kernel = field(default_factory=EDM)
    sigma_data: float = 0.5
    steps: int = 1


def uniform_index(key: jax.Array, shape: tuple[int, ...], count: jax.Array) -> jax.Array:
    """Whole numbers from 0 to count - 1, equally likely, as float32; ``count`` may be traced."""
    return jnp.minimum(jnp.floor(uniform(key, shape, 0.0, 1.0) * count), count - 1)
