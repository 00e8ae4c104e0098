"""The empirical optimum: the exact minimiser of the denoising loss on a finite training set."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

BLOCK = 2048  # training images per step of the running softmax


@struct.dataclass
class EmpiricalOptimum:
    """D*(x; sigma) = sum_i w_i y_i, w = softmax_i(-|x - y_i|^2 / (2 sigma^2)).

    Theorem 1 of arXiv 2310.05264.
    Made by `empirical_optimum`. The softmax runs over blocks of the training set with a running
    maximum, so memory is bounded by the block. The logits are (x.y - |y|^2 / 2) / sigma^2: |x|^2
    is the same for all i, and leaving it out keeps float32 exact where sigma is large.

    Args:
        images: `[blocks, block, d]` float32 in [-1, 1], padded with zeros.
        half_norms: `[blocks, block]` float32, |y|^2 / 2, inf where padded.
    """

    images: jax.Array
    half_norms: jax.Array

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: jax.Array | None = None) -> jax.Array:
        """See DenoiseFn; computes in the dtype of ``x``, products at the highest precision."""
        flat = x.reshape(x.shape[0], -1)
        precision = 1.0 / sigma[:, None] ** 2

        def block(carry, data):
            top, total, mean = carry
            y, half_norm = data[0].astype(x.dtype), data[1].astype(x.dtype)
            inner = jnp.matmul(flat, y.T, precision=jax.lax.Precision.HIGHEST)
            logits = (inner - half_norm[None, :]) * precision
            new_top = jnp.maximum(top, logits.max(1))
            weights = jnp.exp(logits - new_top[:, None])
            old = jnp.exp(top - new_top)
            mean = mean * old[:, None]
            mean += jnp.matmul(weights, y, precision=jax.lax.Precision.HIGHEST)
            return (new_top, total * old + weights.sum(1), mean), None

        lowest = jnp.full(flat.shape[:1], -jnp.inf, x.dtype)
        start = (lowest, jnp.zeros_like(lowest), jnp.zeros_like(flat))
        (_, total, mean), _ = jax.lax.scan(block, start, (self.images, self.half_norms))
        return (mean / total[:, None]).reshape(x.shape)


def empirical_optimum(images: np.ndarray, block: int = BLOCK) -> EmpiricalOptimum:
    """Lays a training set out in blocks.

    Args:
        images: `[n, h, w, c]` float32 in [-1, 1], n >= 1.
        block: images per block.

    Returns:
        The closed-form denoiser of that set.
    """
    flat = np.asarray(images, np.float32).reshape(len(images), -1)
    block = min(block, len(flat))
    padding = -len(flat) % block
    half_norms = 0.5 * np.einsum("nd,nd->n", flat, flat, dtype=np.float64)
    half_norms = np.pad(half_norms, (0, padding), constant_values=np.inf).astype(np.float32)
    flat = np.pad(flat, ((0, padding), (0, 0)))
    return EmpiricalOptimum(
        jnp.asarray(flat.reshape(-1, block, flat.shape[1])),
        jnp.asarray(half_norms.reshape(-1, block)),
    )
