"""The U-Net family of score models: DDPM++ blocks (arXiv 2011.13456, in EDM's form 2206.00364)."""

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
    scaled_uniform,
    upsample,
    xavier,
)

EMBEDDINGS = ("positional", "fourier")


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice; the embedding is added between; attention after.

    ``resample``, where given, is applied before the first convolution and on the skip.
    """

    width: int
    attention: bool = False
    resample: Callable[[jax.Array], jax.Array] | None = None
    dropout: float = 0.0
    skip_scale: float = math.sqrt(0.5)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array, *, train: bool) -> jax.Array:
        """x `[b, h, w, c]`, embedding `[b, e]` to `[b, h', w', width]`."""
        move = self.resample or (lambda a: a)
        conv = lambda name, init: nn.Conv(  # noqa: E731
            self.width, (3, 3), kernel_init=init, dtype=self.dtype, name=name
        )
        skip = x
        h = conv("conv0", xavier)(move(nn.silu(GroupNorm(dtype=self.dtype, name="norm0")(x))))
        shift = nn.Dense(self.width, kernel_init=xavier, dtype=self.dtype, name="affine")(embedding)
        h = nn.silu(GroupNorm(dtype=self.dtype, name="norm1")(h + shift[:, None, None]))
        h = Dropout(self.dropout)(h, train=train)
        h = conv("conv1", near_zero)(h)
        if self.resample or x.shape[-1] != self.width:
            # A 1 x 1 convolution, as the matrix product it is: twice as fast on a CPU.
            skip = nn.Dense(self.width, kernel_init=xavier, dtype=self.dtype, name="skip")(move(x))
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
    """DDPM++ U-Net (arXiv 2011.13456, in EDM's form).

    The other U-Nets are subclasses that replace what differs: a class variable (how it resamples,
    where it attends) or one of the steps that ``__call__`` is made of.

    Args:
        out_channels: image channels.
        width: channels at full resolution before the multiplier.
        multipliers: channel multiplier per resolution; each entry after the first halves the size.
        num_blocks: residual blocks per resolution on the way down (one more on the way up).
        attention: resolutions (side lengths) with attention.
        dropout: rate, in training only.
        skip_scale: factor on every residual sum.
        embedding: of the noise input: "positional" or "fourier".
        num_classes: classes of the conditioning input, 0 for none.
        dtype: of the computation; parameters stay float32.
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
    # Without annotations, so that none of these is a field, hence a keyword of a config.
    middle_attention = True
    every_up_attention = False  # on the way up too, attend after each block, not the last alone
    noise_features = 1  # features of the noise input over ``width``
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
        """x `[b, h, w, c]`, c_noise `[b]`, cond int32 `[b]` or None to float32 `[b, h, w, c]`."""
        emb = self._embed(c_noise, cond)
        x, skips = self._encode(x, emb, train=train)
        return self._decode(x, skips, emb, train=train)

    def _encode(
        self, x: jax.Array, emb: jax.Array, *, train: bool
    ) -> tuple[jax.Array, list[jax.Array]]:
        """The way down and the middle: an image to its features and the skips, finest first."""
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
        """The way up: what `_encode` returns to float32 `[b, h, w, c]`."""
        skips = list(skips)  # popped below; a caller may decode them again
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            for i in range(self.num_blocks + 1):
                here = self.every_up_attention or i == self.num_blocks
                attention = here and x.shape[1] in self.attention
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
        """The step from the level above to this one.

        Args:
            level: the coarser one, from 1.
            x: `[b, 2 h, 2 w, c]`, what the level above ends with.
            start: `[b, 2 h, 2 w, c']`, what it began with: the previous step's result, or the
                image. Unused here; an input pyramid is carried in it.
            emb: `[b, e]`.
            train: whether dropout acts.

        Returns:
            `[b, h, w, c]`.
        """
        return self._block(f"down{level}", x.shape[-1], self.downsample)(x, emb, train=train)

    def _up(self, level: int, x: jax.Array, emb: jax.Array, *, train: bool) -> jax.Array:
        """The step from this level to the finer one: `[b, h, w, c]` to `[b, 2 h, 2 w, c]`."""
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
        dim = self.noise_features * self.width
        if self.embedding == "fourier":
            emb = FourierFeatures(dim, name="fourier")(c_noise)
        else:
            emb = positional_features(c_noise, dim, max_period=1e4, endpoint=True)
        if self.num_classes and cond is not None:
            one_hot = jax.nn.one_hot(cond, self.num_classes)
            emb = emb + nn.Dense(dim, use_bias=False, kernel_init=xavier, name="label")(one_hot)
        for name in ("embed0", "embed1"):
            emb = nn.silu(nn.Dense(4 * self.width, kernel_init=xavier, name=name)(emb))
        return emb


class ConvUNet(UNet):
    """The U-Net without any attention: what a pixel becomes depends on its surroundings alone.

    The network that local score machines (arXiv 2412.20292) are to explain.
    """

    attention: tuple[int, ...] = ()
    middle_attention = False


def check_conv_unet(size: int, network: dict) -> None:
    """Raises InputError as `check_unet` does, and where attention is asked for."""
    check_unet(size, network)
    if network["attention"]:
        raise InputError("network.attention", network["attention"], "(): this family has none")


def check_unet(size: int, network: dict) -> None:
    """Raises InputError unless images of this side length fit the U-Net's halvings."""
    multipliers = network["multipliers"]
    if not multipliers or min(multipliers) < 1:
        raise InputError("network.multipliers", multipliers, "one or more numbers of at least 1")
    require_number("network.num_blocks", network["num_blocks"], at_least=1)
    require_number("network.dropout", network["dropout"], at_least=0, below=1)
    require_number("network.skip_scale", network["skip_scale"], above=0)
    require_choice("network.embedding", network["embedding"], EMBEDDINGS)
    factor = 2 ** (len(multipliers) - 1)
    if size % factor:
        raise InputError(
            "data.size",
            size,
            f"a U-Net with {len(multipliers)} resolutions needs a multiple of {factor}",
        )
    if network["width"] < 4 or network["width"] % 4:
        raise InputError("network.width", network["width"], "must be a positive multiple of 4")
