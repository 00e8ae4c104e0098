"""The optimal denoiser of Gaussian data: the baseline of shared mean and covariance."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct


@struct.dataclass
class GaussianDenoiser:
    """D(x; sigma) = mu + U diag(lambda / (lambda + sigma^2)) U^T (x - mu) (arXiv 2410.24060).

    Args:
        mean: `[d]` float.
        basis: `[d, d]`, eigenvectors in columns.
        variances: `[d]` eigenvalues of the covariance, >= 0.
    """

    mean: jax.Array
    basis: jax.Array
    variances: jax.Array

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: jax.Array | None = None) -> jax.Array:
        """See DenoiseFn."""
        mean, basis = self.mean.astype(x.dtype), self.basis.astype(x.dtype)
        variances = self.variances.astype(x.dtype)[None, :]
        high = jax.lax.Precision.HIGHEST
        parts = jnp.matmul(x.reshape(x.shape[0], -1) - mean[None, :], basis, precision=high)
        parts = parts * (variances / (variances + sigma[:, None] ** 2))
        out = mean[None, :] + jnp.matmul(parts, basis.T, precision=high)
        return out.reshape(x.shape)


def gaussian_denoiser(blocks: Iterable[np.ndarray]) -> GaussianDenoiser:
    """Fits mean and covariance (divisor n) in float64.

    Args:
        blocks: arrays `[b, h, w, c]` in [-1, 1]; only one is held at a time.

    Returns:
        The denoiser, float32.
    """
    count, total, square = 0, 0.0, 0.0
    for block in blocks:
        flat = np.asarray(block, np.float64).reshape(len(block), -1)
        count += len(flat)
        total = total + flat.sum(0)
        square = square + flat.T @ flat
    mean = total / count
    variances, basis = np.linalg.eigh(square / count - np.outer(mean, mean))
    return GaussianDenoiser(
        jnp.asarray(mean, jnp.float32),
        jnp.asarray(basis, jnp.float32),
        jnp.asarray(np.maximum(variances, 0.0), jnp.float32),
    )
