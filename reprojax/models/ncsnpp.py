"""NCSN++, with Fourier features, smooth resampling and an input pyramid (arXiv 2011.13456)."""

from __future__ import annotations

import jax
from flax import linen as nn

from reprojax.models.layers import fir_downsample, fir_upsample, xavier
from reprojax.models.unet import UNet


class NCSNpp(UNet):
    """NCSN++ in EDM's form (arXiv 2206.00364), with 56.4 M parameters at the defaults.

    An input pyramid enters at every resolution. Its first level is the image. At each step down the
    level above is convolved, halved and added to the features that the residual block has halved;
    the sum is the next level.

    Args: those of `UNet`.
    """

    embedding: str = "fourier"
    noise_features = 2
    downsample = staticmethod(fir_downsample)
    upsample = staticmethod(fir_upsample)

    def _down(
        self, level: int, x: jax.Array, start: jax.Array, emb: jax.Array, *, train: bool
    ) -> jax.Array:
        x = super()._down(level, x, start, emb, train=train)
        # The result has one pixel more than the image on each side, so that at the border the
        # filter reads values of the convolution. Padding the result would give it zeros.
        conv = nn.Conv(
            x.shape[-1],
            (3, 3),
            padding=2,
            kernel_init=xavier,
            dtype=self.dtype,
            name=f"input{level}",
        )
        return (x + fir_downsample(conv(start), pad=0)) * self.skip_scale
