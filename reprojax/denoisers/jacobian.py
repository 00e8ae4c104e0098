"""Singular values and ranks of a denoiser's Jacobian (arXiv 2409.02426)."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reprojax.errors import require_number
from reprojax.types import DenoiseFn

BLOCK = 64  # directions per call of the denoiser, which bounds the memory
ETA = 0.99  # arXiv 2409.02426
# Singular values s below both of these limits are set to 0. Where the Jacobian is 0, as the
# optimum's is at little noise, float32 rounding would otherwise have an arbitrary rank.
LEAST_GAIN = 1e-4  # the limit on s
LEAST_VARIANCE = 1e-6  # on sigma² s, the optimum's posterior variance: an eighth of a grey level


@partial(jax.jit, static_argnames="block")
def jacobian(
    denoise: DenoiseFn, x: jax.Array, sigma: jax.Array, cond: Any = None, *, block: int = BLOCK
) -> jax.Array:
    """Computes the Jacobian dD(x; sigma)/dx by forward-mode differentiation.

    It is compiled once per structure of the denoiser, shape and block. Matrix products have the
    highest precision.

    Args:
        denoise: A DenoiseFn. Its parameters are arguments of the compiled program.
        x: One noisy image y + sigma z in unscaled coordinates, `[h, w, c]`.
        sigma: The noise level in data units, a scalar in the dtype of ``x``.
        cond: A pytree with leading axis 1, the condition of the image, or None.
        block: The number of directions per call of the denoiser.

    Returns:
        The Jacobian `[d, d]` in the dtype of ``x``, d = h·w·c. Column j is dD/dx_j.
    """
    d = x.size
    block = min(block, d)

    def function(point):
        return denoise(point.reshape(1, *x.shape), sigma[None], cond).reshape(-1)

    def columns(start):
        directions = jax.nn.one_hot(start + jnp.arange(block), d, dtype=x.dtype)  # 0 from d on
        return jax.vmap(product)(directions)

    def product(direction):
        return jax.jvp(function, (x.reshape(-1),), (direction,))[1]

    with jax.default_matmul_precision("highest"):
        rows = jax.lax.map(columns, jnp.arange(0, d, block))
    return rows.reshape(-1, d)[:d].T


def singular_values(
    denoise: DenoiseFn,
    x: np.ndarray | jax.Array,
    sigma: float,
    cond: Any = None,
    *,
    block: int = BLOCK,
) -> np.ndarray:
    """Computes the singular values of the Jacobian at several noisy images, one after another.

    The decomposition is done in float64 on the host. Values below 1e-4 and below 1e-6 / sigma² are
    rounding errors and are set to 0.

    Args:
        denoise: A DenoiseFn.
        x: Noisy images y + sigma z in unscaled coordinates, `[b, h, w, c]`.
        sigma: The noise level in data units, > 0.
        cond: A pytree with leading axis b, the conditions of the images, or None.
        block: The number of directions per call of the denoiser.

    Returns:
        The singular values, float64 `[b, d]`, descending, d = h·w·c.

    Raises:
        InputError: ``sigma`` or ``block`` is not above 0.
    """
    require_number("sigma", sigma, above=0)
    require_number("block", block, above=0)
    x = jnp.asarray(x)
    level = jnp.asarray(sigma, x.dtype)
    floor = min(LEAST_GAIN, LEAST_VARIANCE / sigma**2)
    out = np.empty((len(x), x[0].size))
    for i, point in enumerate(x):
        row = jax.tree.map(lambda a, i=i: a[i : i + 1], cond)
        matrix = np.asarray(jacobian(denoise, point, level, row, block=block), np.float64)
        out[i] = np.linalg.svd(matrix, compute_uv=False)
    return np.where(out < floor, 0.0, out)


def numerical_rank(singular_values: np.ndarray, eta: float = ETA) -> np.ndarray:
    """Returns the smallest r with (Σ_{i≤r} s_i² / Σ_i s_i²)^½ > eta (arXiv 2409.02426).

    Args:
        singular_values: The singular values s, float64 `[b, d]`, descending.
        eta: The share that must be exceeded, at least 0 and below 1.

    Returns:
        The ranks, int64 `[b]`, from 1 to d; 0 where all singular values are 0.

    Raises:
        InputError: ``eta`` is out of range.
    """
    require_number("eta", eta, at_least=0, below=1)
    energy = np.cumsum(singular_values**2, axis=1)
    total = energy[:, -1:]
    share = np.sqrt(energy / np.where(total > 0, total, 1.0))
    return np.where(total[:, 0] > 0, 1 + np.argmax(share > eta, axis=1), 0)


def stable_rank(singular_values: np.ndarray) -> np.ndarray:
    """Returns Σ_i s_i² / max_i s_i², a rank that does not depend on a threshold.

    Args:
        singular_values: The singular values s, float64 `[b, d]`.

    Returns:
        The ranks, float64 `[b]`, from 1 to d; 0 where all singular values are 0.
    """
    squares = singular_values**2
    largest = squares.max(axis=1)
    return squares.sum(axis=1) / np.where(largest > 0, largest, 1.0)
