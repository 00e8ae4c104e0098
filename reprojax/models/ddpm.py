"""The U-Net of DDPM (arXiv 2006.11239)."""

from __future__ import annotations

import jax
from flax import linen as nn

from reprojax.models.layers import upsample, xavier
from reprojax.models.unet import UNet


class DDPM(UNet):
    """DDPM's U-Net. The defaults are the published network for CIFAR-10 (35.7 M parameters).

    It resamples by plain convolutions instead of residual blocks, adds its residuals without a
    factor, and has attention after every block of a resolution in ``attention``, on the way down
    and on the way up.

    Args: those of `UNet`.
    """

    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    num_blocks: int = 2
    skip_scale: float = 1.0
    every_up_attention = True

    def _down(
        self, level: int, x: jax.Array, start: jax.Array, emb: jax.Array, *, train: bool
    ) -> jax.Array:
        # Zeros below and on the right only: the published weights were trained so.
        padding = ((0, 1), (0, 1))
        return self._conv(f"down{level}", x.shape[-1], strides=(2, 2), padding=padding)(x)

    def _up(self, level: int, x: jax.Array, emb: jax.Array, *, train: bool) -> jax.Array:
        return self._conv(f"up{level}", x.shape[-1])(upsample(x))

    def _conv(self, name: str, width: int, **options) -> nn.Conv:
        return nn.Conv(width, (3, 3), kernel_init=xavier, dtype=self.dtype, name=name, **options)
