"""The U-Net family of score models, of DDPM++ blocks (arXiv 2011.13456) as in EDM (2206.00364)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from reprojax.errors import InputError, require_choice, require_number
from reprojax.models.layers import (
    Dropout,
    FourierFeatures,
    GroupNorm,
    attend,
    downsample,
    near_zero,
    positional_features,
    require_condition,
    scaled_uniform,
    upsample,
    xavier,
)

EMBEDDINGS = ("positional", "fourier")


class ResidualBlock(nn.Module):
    """A residual block: twice GroupNorm, SiLU and convolution, then attention if that is on.

    The embedding of the noise level is added between the two convolutions.

    Args:
        width: The number of channels of the result.
        attention: Whether attention follows.
        resample: A function that changes the resolution, applied before the first convolution and
            on the skip; or None.
        dropout: The dropout rate.
        skip_scale: The factor on the residual sum.
        dtype: The dtype of the computation.
    """

    width: int
    attention: bool = False
    resample: Callable[[jax.Array], jax.Array] | None = None
    dropout: float = 0.0
    skip_scale: float = math.sqrt(0.5)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array, *, train: bool) -> jax.Array:
        """Maps x `[b, h, w, c]` and an embedding `[b, e]` to `[b, h', w', width]`."""

        def resample(a):
            return self.resample(a) if self.resample else a

        def conv(name, init):
            return nn.Conv(self.width, (3, 3), kernel_init=init, dtype=self.dtype, name=name)

        skip = x
        h = conv("conv0", xavier)(resample(nn.silu(GroupNorm(dtype=self.dtype, name="norm0")(x))))
        shift = nn.Dense(self.width, kernel_init=xavier, dtype=self.dtype, name="affine")(embedding)
        h = nn.silu(GroupNorm(dtype=self.dtype, name="norm1")(h + shift[:, None, None]))
        h = Dropout(self.dropout)(h, train=train)
        h = conv("conv1", near_zero)(h)
        if self.resample or x.shape[-1] != self.width:
            # A 1 x 1 convolution as a matrix product, which is twice as fast on a CPU.
            dense = nn.Dense(self.width, kernel_init=xavier, dtype=self.dtype, name="skip")
            skip = dense(resample(x))
        x = (h + skip) * self.skip_scale
        return self._attend(x) if self.attention else x

    def _attend(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        tokens = GroupNorm(dtype=self.dtype, name="norm2")(x).reshape(b, h * w, c)
        small = scaled_uniform(0.2)
        qkv = nn.Dense(3 * c, kernel_init=small, dtype=self.dtype, name="qkv")(tokens)
        out = attend(qkv, num_heads=1)
        out = nn.Dense(c, kernel_init=near_zero, dtype=self.dtype, name="proj")(out)
        return (x + out.reshape(b, h, w, c)) * self.skip_scale


class UNet(nn.Module):
    """The U-Net of DDPM++ (arXiv 2011.13456) in EDM's form (arXiv 2206.00364).

    The other U-Nets are subclasses that replace a class variable (how features are resampled, where
    attention stands) or one of the methods that ``__call__`` consists of.

    Args:
        out_channels: The number of image channels.
        width: The number of channels at full resolution, before the multiplier.
        multipliers: The channel multiplier of each resolution. Each entry after the first halves
            the resolution.
        num_blocks: The number of residual blocks per resolution on the way down; there is one more
            on the way up.
        attention: The resolutions (side lengths) with attention.
        dropout: The dropout rate in training.
        skip_scale: The factor on every residual sum.
        embedding: The embedding of the noise input, "positional" or "fourier".
        num_classes: The number of classes, 0 for an unconditional network.
        dtype: The dtype of the computation. Parameters are float32.
    """

    out_channels: int
    width: int = 128
    multipliers: tuple[int, ...] = (2, 2, 2)
    num_blocks: int = 4
    attention: tuple[int, ...] = (16,)
    dropout: float = 0.1
    skip_scale: float = math.sqrt(0.5)
    embedding: str = "positional"
    num_classes: int = 0
    dtype: Any = jnp.float32
    # These have no annotation. They are not fields and so cannot be set in a config.
    middle_attention = True
    every_up_attention = False  # on the way up, attention after every block, not just the last
    noise_features = 1  # the number of features of the noise input over ``width``
    downsample = staticmethod(downsample)
    upsample = staticmethod(upsample)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        c_noise: jax.Array,
        cond: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        """Applies the network.

        Args:
            x: Scaled noisy images, `[b, h, w, c]`.
            c_noise: The noise input, `[b]`.
            cond: Labels, int32 `[b]`, or None for an unconditional network.
            train: Whether dropout is on; it takes the PRNG stream "dropout".

        Returns:
            The network's output, float32 `[b, h, w, c]`.

        Raises:
            InputError: A conditional network has no labels, or an unconditional one has some.
        """
        emb = self._embed(c_noise, cond)
        x, skips = self._encode(x, emb, train=train)
        return self._decode(x, skips, emb, train=train)

    def _encode(
        self, x: jax.Array, emb: jax.Array, *, train: bool
    ) -> tuple[jax.Array, list[jax.Array]]:
        """Applies the way down and the middle. Returns the features and the skips, finest first."""
        start = x
        x = nn.Conv(self.width, (3, 3), kernel_init=xavier, dtype=self.dtype, name="conv_in")(x)
        skips = [x]
        for level, multiplier in enumerate(self.multipliers):
            if level:
                x = start = self._down(level, x, start, emb, train=train)
                skips.append(x)
            for i in range(self.num_blocks):
                attention = x.shape[1] in self.attention
                name = f"enc{level}_{i}"
                block = self._block(name, self.width * multiplier, attention=attention)
                x = block(x, emb, train=train)
                skips.append(x)
        x = self._block("mid0", x.shape[-1], attention=self.middle_attention)(x, emb, train=train)
        return self._block("mid1", x.shape[-1])(x, emb, train=train), skips

    def _decode(
        self, x: jax.Array, skips: list[jax.Array], emb: jax.Array, *, train: bool
    ) -> jax.Array:
        """Applies the way up to the results of `_encode`. Returns float32 `[b, h, w, c]`."""
        skips = list(skips)  # a copy, since the caller may decode the same skips again
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            for i in range(self.num_blocks + 1):
                may_attend = self.every_up_attention or i == self.num_blocks
                attention = may_attend and x.shape[1] in self.attention
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                name = f"dec{level}_{i}"
                block = self._block(name, self.width * multiplier, attention=attention)
                x = block(x, emb, train=train)
            if level:
                x = self._up(level, x, emb, train=train)
        x = nn.silu(GroupNorm(dtype=self.dtype, name="norm_out")(x))
        x = nn.Conv(self.out_channels, (3, 3), kernel_init=near_zero, name="conv_out")(x)
        return x.astype(jnp.float32)

    def _down(
        self, level: int, x: jax.Array, start: jax.Array, emb: jax.Array, *, train: bool
    ) -> jax.Array:
        """Applies the step from a level to the next coarser one.

        Args:
            level: The coarser level, from 1.
            x: The last features of the finer level, `[b, 2 h, 2 w, c]`.
            start: The first features of the finer level, `[b, 2 h, 2 w, c']`: the result of the
                previous step, or the image. A subclass with an input pyramid uses it.
            emb: The embedding of the noise level, `[b, e]`.
            train: Whether dropout is on.

        Returns:
            The first features of the coarser level, `[b, h, w, c]`.
        """
        return self._block(f"down{level}", x.shape[-1], self.downsample)(x, emb, train=train)

    def _up(self, level: int, x: jax.Array, emb: jax.Array, *, train: bool) -> jax.Array:
        """Applies the step to the next finer level, from `[b, h, w, c]` to `[b, 2 h, 2 w, c]`."""
        return self._block(f"up{level}", x.shape[-1], self.upsample)(x, emb, train=train)

    def _block(
        self,
        name: str,
        width: int,
        resample: Callable[[jax.Array], jax.Array] | None = None,
        attention: bool = False,
    ) -> ResidualBlock:
        return ResidualBlock(
            width=width,
            attention=attention,
            resample=resample,
            dropout=self.dropout,
            skip_scale=self.skip_scale,
            dtype=self.dtype,
            name=name,
        )

    def _embed(self, c_noise: jax.Array, cond: jax.Array | None) -> jax.Array:
        require_condition(self.num_classes, cond)
        dim = self.noise_features * self.width
        if self.embedding == "fourier":
            emb = FourierFeatures(dim, name="fourier")(c_noise)
        else:
            emb = positional_features(c_noise, dim, max_period=1e4, endpoint=True)
        if self.num_classes:
            one_hot = jax.nn.one_hot(cond, self.num_classes)
            emb = emb + nn.Dense(dim, use_bias=False, kernel_init=xavier, name="label")(one_hot)
        for name in ("embed0", "embed1"):
            emb = nn.silu(nn.Dense(4 * self.width, kernel_init=xavier, name=name)(emb))
        return emb


class ConvUNet(UNet):
    """The U-Net without attention, whose output at a pixel depends on the pixel's surroundings.

    Local score machines (arXiv 2412.20292) are meant to explain networks of this kind.
    """

    attention: tuple[int, ...] = ()
    middle_attention = False


def check_conv_unet(size: int, network: dict) -> None:
    """Raises InputError as `check_unet` does, and if there is attention."""
    check_unet(size, network)
    if network["attention"]:
        requirement = "must be (): this family has no attention"
        raise InputError("network.attention", network["attention"], requirement)


def check_unet(size: int, network: dict) -> None:
    """Raises InputError unless the keywords of a U-Net are in range and fit the image size.

    Args:
        size: The side of the images in pixels.
        network: All keywords of the family.
    """
    multipliers = network["multipliers"]
    if not multipliers or min(multipliers) < 1:
        requirement = "must be one or more numbers of at least 1"
        raise InputError("network.multipliers", multipliers, requirement)
    require_number("network.num_blocks", network["num_blocks"], at_least=1)
    require_number("network.dropout", network["dropout"], at_least=0, below=1)
    require_number("network.skip_scale", network["skip_scale"], above=0)
    require_choice("network.embedding", network["embedding"], EMBEDDINGS)
    factor = 2 ** (len(multipliers) - 1)
    if size % factor:
        requirement = (
            f"must be a multiple of {factor} for a U-Net with {len(multipliers)} resolutions"
        )
        raise InputError("data.size", size, requirement)
    if network["width"] < 4 or network["width"] % 4:
        raise InputError("network.width", network["width"], "must be a positive multiple of 4")
