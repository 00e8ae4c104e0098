"""U-ViT: a vision transformer on patches with long skips (arXiv 2209.12152)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from reprojax.errors import InputError, require_number
from reprojax.models.layers import Dropout, attend, normal_002, positional_features, xavier


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP; where a long skip comes in, it is concatenated and projected."""

    dim: int
    num_heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array | None = None, *, train: bool) -> jax.Array:
        """x `[b, n, dim]` and an optional skip of the same shape to `[b, n, dim]`."""
        dense = lambda n, name, bias=True: nn.Dense(  # noqa: E731
            n, use_bias=bias, kernel_init=normal_002, dtype=self.dtype, name=name
        )
        norm = lambda name: nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)  # noqa: E731
        drop = lambda h: Dropout(self.dropout)(h, train=train)  # noqa: E731
        if skip is not None:
            x = dense(self.dim, "skip")(jnp.concatenate([x, skip], axis=-1))
        h = attend(dense(3 * self.dim, "qkv", bias=False)(norm("norm1")(x)), self.num_heads)
        x = x + drop(dense(self.dim, "proj")(h))
        h = nn.gelu(
            dense(int(self.dim * self.mlp_ratio), "mlp0")(norm("norm2")(x)), approximate=False
        )
        return x + drop(dense(self.dim, "mlp1")(h))


class UViT(nn.Module):
    """U-ViT.

    Args:
        out_channels: image channels.
        width: token dimension.
        patch: side of a patch in pixels.
        depth: transformer blocks without the middle one; even (half before, half after it).
        num_heads: divides ``width``.
        mlp_ratio: hidden width of the MLP over ``width``.
        dropout: rate, in training only.
        noise_scale: factor on c_noise before its sinusoidal token, which expects a range near
            0-1,000: 1 for the VP family, larger for EDM's c_noise = log(sigma) / 4.
        num_classes: classes of the conditioning token, 0 for none.
        dtype: of the computation; parameters stay float32.
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
        """x `[b, h, w, c]`, c_noise `[b]`, cond int32 `[b]` or None to float32 `[b, h, w, c]`."""
        b, h, w, c = x.shape
        x, extras = self._tokens(x, c_noise, cond)
        block = lambda name: TransformerBlock(  # noqa: E731
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
        """Label and time tokens before the patches, positions added; and how many come before."""
        p = (self.patch, self.patch)
        conv = nn.Conv(
            self.width, p, p, padding="VALID", kernel_init=xavier, dtype=self.dtype, name="patches"
        )
        x = conv(x)
        x = x.reshape(x.shape[0], -1, self.width)
        time = positional_features(c_noise * self.noise_scale, self.width, 1e4, endpoint=False)
        tokens = [time[:, None].astype(x.dtype), x]
        if self.num_classes and cond is not None:
            label = nn.Embed(self.num_classes, self.width, embedding_init=normal_002, name="label")(
                cond
            )
            tokens.insert(0, label[:, None].astype(x.dtype))
        x = jnp.concatenate(tokens, axis=1)
        positions = self.param("positions", normal_002, (1, x.shape[1], self.width), jnp.float32)
        return x + positions.astype(x.dtype), len(tokens) - 1


def check_uvit(size: int, network: dict) -> None:
    """Raises InputError unless images of this side length can be cut into the patches."""
    require_number("network.dropout", network["dropout"], at_least=0, below=1)
    require_number("network.noise_scale", network["noise_scale"], above=0)
    require_number("network.mlp_ratio", network["mlp_ratio"], above=0)
    if network["patch"] < 1 or size % network["patch"]:
        raise InputError("network.patch", network["patch"], f"must divide the image size {size}")
    if network["num_heads"] < 1 or network["width"] % (2 * network["num_heads"]):
        raise InputError(
            "network.num_heads", network["num_heads"], f"2 x heads must divide {network['width']}"
        )
    if network["depth"] < 2 or network["depth"] % 2:
        raise InputError("network.depth", network["depth"], "must be even and at least 2")
