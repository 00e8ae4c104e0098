"""The optimal denoiser of Gaussian data, a baseline that knows only the mean and covariance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from reprojax.denoisers.base import Denoiser


@struct.dataclass
class GaussianDenoiser(Denoiser):
    """The optimal denoiser of the Gaussian N(mu, U diag(lambda) U^T) (arXiv 2410.24060).

    D(x; sigma) = mu + U diag(lambda / (lambda + sigma^2)) U^T (x - mu).

    Args:
        mean: The mean mu, `[d]`.
        basis: The eigenvectors U of the covariance in columns, `[d, d]`.
        variances: The eigenvalues lambda of the covariance, `[d]`, >= 0.
    """

    mean: jax.Array
    basis: jax.Array
    variances: jax.Array

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: Any = None) -> jax.Array:
        """Denoises as a DenoiseFn does. The condition is ignored."""
        mean, basis = self.mean.astype(x.dtype), self.basis.astype(x.dtype)
        variances = self.variances.astype(x.dtype)[None, :]
        high = jax.lax.Precision.HIGHEST
        parts = jnp.matmul(x.reshape(x.shape[0], -1) - mean[None, :], basis, precision=high)
        parts = parts * (variances / (variances + sigma[:, None] ** 2))
        out = mean[None, :] + jnp.matmul(parts, basis.T, precision=high)
        return out.reshape(x.shape)


def gaussian_denoiser(blocks: Iterable[np.ndarray]) -> GaussianDenoiser:
    """Fits the mean and the covariance (with divisor n) of images in float64.

    Args:
        blocks: The images in blocks `[b, h, w, c]`, in [-1, 1]. Only one block is in memory at a
            time.

    Returns:
        The denoiser with float32 parameters.
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
