"""U-ViT, a vision transformer with long skip connections (arXiv 2209.12152)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from reprojax.errors import InputError, require_number
from reprojax.models.layers import (
    Dropout,
    attend,
    normal_002,
    positional_features,
    require_condition,
    xavier,
)
from reprojax.types import NULL_LABEL


class TransformerBlock(nn.Module):
    """A pre-norm transformer block of attention and MLP, with or without a long skip.

    Args:
        dim: The token dimension.
        num_heads: The number of heads, a divisor of ``dim``.
        mlp_ratio: The hidden width of the MLP over ``dim``.
        dropout: The dropout rate in training.
        dtype: The dtype of the computation.
    """

    dim: int
    num_heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Maps tokens x `[b, n, dim]`, and a long skip of the same shape or None, to tokens."""

        def dense(n, name, bias=True):
            return nn.Dense(n, use_bias=bias, kernel_init=normal_002, dtype=self.dtype, name=name)

        def norm(name):
            return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)

        def drop(h):
            return Dropout(self.dropout)(h, train=train)

        if skip is not None:
            x = dense(self.dim, "skip")(jnp.concatenate([x, skip], axis=-1))
        h = attend(dense(3 * self.dim, "qkv", bias=False)(norm("norm1")(x)), self.num_heads)
        x = x + drop(dense(self.dim, "proj")(h))
        h = nn.gelu(
            dense(int(self.dim * self.mlp_ratio), "mlp0")(norm("norm2")(x)), approximate=False
        )
        return x + drop(dense(self.dim, "mlp1")(h))


class UViT(nn.Module):
    """U-ViT (arXiv 2209.12152).

    Args:
        out_channels: The number of image channels.
        width: The token dimension.
        patch: The side of a patch in pixels.
        depth: The number of transformer blocks without the middle one; even, since half of them
            stand before it and half after it.
        num_heads: The number of attention heads; twice this number must divide ``width``.
        mlp_ratio: The hidden width of the MLPs over ``width``.
        dropout: The dropout rate in training.
        noise_scale: The factor on c_noise before its sinusoidal token, which expects values from 0
            to about 1,000: 1 for the VP family, larger for EDM's c_noise = log(sigma) / 4.
        num_classes: The number of classes, 0 for an unconditional network.
        dtype: The dtype of the computation. Parameters are float32.
    """

    out_channels: int
    width: int = 512
    patch: int = 2
    depth: int = 12
    num_heads: int = 8
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    noise_scale: float = 1.0
    num_classes: int = 0
    dtype: Any = jnp.float32

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
        require_condition(self.num_classes, cond)
        b, h, w, c = x.shape
        x, extras = self._tokens(x, c_noise, cond)

        def block(name):
            return TransformerBlock(
                self.width, self.num_heads, self.mlp_ratio, self.dropout, self.dtype, name=name
            )

        skips = []
        for i in range(self.depth // 2):
            x = block(f"in{i}")(x, train=train)
            skips.append(x)
        x = block("mid")(x, train=train)
        for i in range(self.depth // 2):
            x = block(f"out{i}")(x, skips.pop(), train=train)
        x = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x)
        x = nn.Dense(self.patch**2 * c, kernel_init=normal_002, name="decode")(x)[:, extras:]
        x = x.reshape(b, h // self.patch, w // self.patch, self.patch, self.patch, c)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        x = nn.Conv(self.out_channels, (3, 3), kernel_init=xavier, name="conv_out")(x)
        return x.astype(jnp.float32)

    def _tokens(
        self, x: jax.Array, c_noise: jax.Array, cond: jax.Array | None
    ) -> tuple[jax.Array, int]:
        """Returns the tokens with their positions, and how many stand before the patches.

        Those are the token of the label, if the network is conditional, and the token of the time.
        """
        p = (self.patch, self.patch)
        conv = nn.Conv(
            self.width, p, p, padding="VALID", kernel_init=xavier, dtype=self.dtype, name="patches"
        )
        x = conv(x)
        x = x.reshape(x.shape[0], -1, self.width)
        time = positional_features(c_noise * self.noise_scale, self.width, 1e4, endpoint=False)
        tokens = [time[:, None].astype(x.dtype), x]
        if self.num_classes:
            embed = nn.Embed(self.num_classes, self.width, embedding_init=normal_002, name="label")
            label = jnp.where(cond[:, None] == NULL_LABEL, 0.0, embed(cond))
            tokens.insert(0, label[:, None].astype(x.dtype))
        x = jnp.concatenate(tokens, axis=1)
        positions = self.param("positions", normal_002, (1, x.shape[1], self.width), jnp.float32)
        return x + positions.astype(x.dtype), len(tokens) - 1


def check_uvit(size: int, network: dict) -> None:
    """Raises InputError unless the keywords of a U-ViT are in range and fit the image size.

    Args:
        size: The side of the images in pixels.
        network: All keywords of the family.
    """
    require_number("network.dropout", network["dropout"], at_least=0, below=1)
    require_number("network.noise_scale", network["noise_scale"], above=0)
    require_number("network.mlp_ratio", network["mlp_ratio"], above=0)
    if network["patch"] < 1 or size % network["patch"]:
        raise InputError("network.patch", network["patch"], f"must divide the image size {size}")
    if network["num_heads"] < 1 or network["width"] % (2 * network["num_heads"]):
        requirement = f"must be at least 1, and its double must divide the width {network['width']}"
        raise InputError("network.num_heads", network["num_heads"], requirement)
    if network["depth"] < 2 or network["depth"] % 2:
        raise InputError("network.depth", network["depth"], "must be even and at least 2")
