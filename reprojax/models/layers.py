"""Layers that the network families share. Images are `[b, h, w, c]`; parameters are float32."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from reprojax.errors import InputError
from reprojax.rng import normal, uniform


def require_condition(num_classes: int, cond: jax.Array | None) -> None:
    """Raises InputError unless a network gets labels if and only if it is conditional.

    Args:
        num_classes: The number of classes of the network, 0 for an unconditional one.
        cond: The labels that the network is called with, or None.
    """
    if num_classes and cond is None:
        requirement = f"a conditional network ({num_classes} classes) needs a condition per image"
        raise InputError("cond", None, requirement)
    if not num_classes and cond is not None:
        raise InputError("cond", None, "must be None for an unconditional network (0 classes)")


def scaled_uniform(scale: float) -> Callable[..., jax.Array]:
    """Returns a uniform initialiser of variance 2 scale / (fan in + fan out); 1 is Glorot's."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        fans = math.prod(shape[:-2]) * (shape[-2] + shape[-1])
        limit = math.sqrt(6.0 * scale / fans)
        return uniform(key, shape, -limit, limit).astype(dtype)

    return init


def normal_002(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Draws initial values as ViT does: normal with deviation .02, truncated at two deviations."""
    flat = jax.random.truncated_normal(key, -2.0, 2.0, (math.prod(shape),), jnp.float32)
    return (0.02 * flat).reshape(shape).astype(dtype)


xavier = scaled_uniform(1.0)
near_zero = scaled_uniform(1e-10)


def positional_features(t: jax.Array, dim: int, max_period: float, endpoint: bool) -> jax.Array:
    """Returns cosines and sines of t at geometric frequencies from 1 to about 1 / max_period.

    Args:
        t: The network's noise input, `[b]` float.
        dim: The number of features, even.
        max_period: The period of the slowest feature over 2 pi, in units of t.
        endpoint: Whether the slowest frequency is exactly 1 / max_period.

    Returns:
        The cosines, then the sines, float32 `[b, dim]`.
    """
    half = dim // 2
    exponent = np.arange(half) / max(half - int(endpoint), 1)
    frequencies = jnp.asarray(max_period**-exponent, jnp.float32)
    angle = t.astype(jnp.float32)[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class FourierFeatures(nn.Module):
    """Random Fourier features of the noise level (arXiv 2011.13456), which are not trained.

    Args:
        dim: The number of features, even.
        deviation: The standard deviation of the frequencies.
    """

    dim: int
    deviation: float = 16.0

    @nn.compact
    def __call__(self, t: jax.Array) -> jax.Array:
        """Maps t `[b]` to its features, float32 `[b, dim]`."""

        def draw(key):
            return self.deviation * normal(key, (self.dim // 2,))

        frequencies = self.param("frequencies", draw)
        angle = 2 * np.pi * t[:, None] * jax.lax.stop_gradient(frequencies)[None, :]
        return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def num_groups(channels: int) -> int:
    """Returns the number of groups of a GroupNorm.

    It is the largest divisor of ``channels`` that is at most 32 and leaves 4 channels per group.
    """
    most = max(min(32, channels // 4), 1)
    return next(n for n in range(most, 0, -1) if channels % n == 0)


class GroupNorm(nn.Module):
    """Group normalisation, computed from sums and sums of squares.

    It applies one factor and one shift per channel, which on a CPU is about twice as fast as
    normalising the groups as an array of their own.

    Args:
        epsilon: The number that is added to the variances.
        dtype: The dtype of the result.
    """

    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises x `[b, h, w, c]`, with statistics in float32."""
        b, h, w, c = x.shape
        groups = num_groups(c)
        weight = self.param("scale", nn.initializers.ones, (c,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (c,), jnp.float32)
        x32 = x.astype(jnp.float32)
        count = h * w * (c // groups)

        def per_group(channel_sums):
            return channel_sums.reshape(b, groups, c // groups).sum(-1) / count

        mean = per_group(x32.sum((1, 2)))
        variance = jnp.maximum(per_group((x32 * x32).sum((1, 2))) - mean**2, 0.0)
        inverse = jax.lax.rsqrt(variance + self.epsilon)
        gain = jnp.repeat(inverse, c // groups, axis=1) * weight[None]
        shift = bias[None] - jnp.repeat(mean, c // groups, axis=1) * gain
        return (x32 * gain[:, None, None] + shift[:, None, None]).astype(self.dtype)


class Dropout(nn.Module):
    """Dropout. Its mask is drawn along one axis, as ``nn.Dropout`` compiles slowly on a CPU."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Sets a share ``rate`` of ``x`` to 0 in training and scales the rest up."""
        if not train or self.rate == 0.0:
            return x
        keep = uniform(self.make_rng("dropout"), x.shape, 0.0, 1.0) >= self.rate
        return jnp.where(keep, x / (1.0 - self.rate), 0.0)


def downsample(x: jax.Array) -> jax.Array:
    """Halves the height and width of x `[b, h, w, c]` by the mean of 2 x 2 pixels."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def upsample(x: jax.Array) -> jax.Array:
    """Doubles the height and width of x `[b, h, w, c]` by repetition."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def fir_downsample(x: jax.Array, pad: int = 1) -> jax.Array:
    """Halves height and width by the filter [1, 3, 3, 1] / 8 along each (arXiv 2011.13456).

    Along an axis, `y[i] = (p[2i] + 3 p[2i + 1] + 3 p[2i + 2] + p[2i + 3]) / 8`, where p is x with
    ``pad`` zeros on each side. With a pad of 1 it is centred on the pixels 2i and 2i + 1.

    Args:
        x: Features `[b, h, w, c]`, h and w even.
        pad: The number of zeros on each side.

    Returns:
        Features `[b, h / 2 + pad - 1, w / 2 + pad - 1, c]`.
    """
    # Strided slices and sums give the same as a depthwise convolution, which XLA computes far more
    # slowly on a CPU.
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    for axis in (1, 2):
        stop = x.shape[axis] - 3
        taps = [jax.lax.slice_in_dim(x, i, stop + i, stride=2, axis=axis) for i in range(4)]
        x = 0.125 * (taps[0] + taps[3]) + 0.375 * (taps[1] + taps[2])
    return x


def fir_upsample(x: jax.Array) -> jax.Array:
    """Doubles height and width by 4 times the transpose of `fir_downsample`.

    Along an axis, `y[2i] = (3 x[i] + x[i - 1]) / 4` and `y[2i + 1] = (3 x[i] + x[i + 1]) / 4`,
    where x is 0 outside of the image.

    Args:
        x: Features `[b, h, w, c]`.

    Returns:
        Features `[b, 2 h, 2 w, c]`.
    """
    for axis in (1, 2):
        n = x.shape[axis]
        padded = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(4)])
        before = jax.lax.slice_in_dim(padded, 0, n, axis=axis)
        after = jax.lax.slice_in_dim(padded, 2, n + 2, axis=axis)
        pairs = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis=axis + 1)
        x = pairs.reshape(*x.shape[:axis], 2 * n, *x.shape[axis + 1 :])
    return x


def attend(qkv: jax.Array, num_heads: int) -> jax.Array:
    """Computes softmax attention over n tokens.

    Args:
        qkv: Queries, keys and values side by side, `[b, n, 3 * d]`.
        num_heads: The number of heads, a divisor of d.

    Returns:
        Tokens `[b, n, d]`.
    """
    b, n, d = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = (a.reshape(b, n, num_heads, d // num_heads) for a in jnp.split(qkv, 3, axis=-1))
    return jax.nn.dot_product_attention(q, k, v).reshape(b, n, d)
