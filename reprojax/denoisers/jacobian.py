"""Singular values of a denoiser's Jacobian: in how many directions it moves (arXiv 2409.02426)."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reprojax.errors import require_number
from reprojax.types import DenoiseFn

BLOCK = 64  # directions pushed through the denoiser at a time: bounds the memory
ETA = 0.99  # arXiv 2409.02426
# Singular values s below both of these are set to 0. Where a denoiser moves in no direction (the
# optimum at little noise) what is left is float32 rounding, and the rank of that is anything.
LEAST_GAIN = 1e-4  # s itself
LEAST_VARIANCE = 1e-6  # sigma² s, the optimum's posterior variance: an eighth of a grey level


@partial(jax.jit, static_argnames="block")
def jacobian(
    denoise: DenoiseFn, x: jax.Array, sigma: jax.Array, cond: Any = None, *, block: int = BLOCK
) -> jax.Array:
    """The Jacobian dD(x; sigma)/dx, by forward-mode products with the basis directions.

    Compiled once per denoiser structure, shape and block; products at the highest precision.

    Args:
        denoise: a DenoiseFn; a pytree, so its parameters are arguments of the compiled program.
        x: `[h, w, c]`, one noisy image in unscaled coordinates, y + sigma z.
        sigma: scalar in the dtype of ``x``, noise level in data units.
        cond: A pytree with leading axis 1, the condition of the image, or None.
        block: directions per call of the denoiser.

    Returns:
        `[d, d]` in the dtype of ``x``, d = h·w·c; column j is dD/dx_j.
    """
    d = x.size
    block = min(block, d)

    def function(point):
        return denoise(point.reshape(1, *x.shape), sigma[None], cond).reshape(-1)

    def columns(start):
        directions = jax.nn.one_hot(start + jnp.arange(block), d, dtype=x.dtype)  # 0 from d on
        product = lambda v: jax.jvp(function, (x.reshape(-1),), (v,))[1]  # noqa: E731
        return jax.vmap(product)(directions)

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
    """Singular values of the Jacobian at each of some noisy images, one image at a time.

    Args:
        denoise: a DenoiseFn.
        x: `[b, h, w, c]` in unscaled coordinates; the caller makes it, as y + sigma z.
        sigma: noise level in data units, > 0.
        cond: A pytree with leading axis b, the conditions of the images, or None.
        block: directions per call of the denoiser.

    Returns:
        float64 `[b, d]`, descending, d = h·w·c; the decomposition runs in float64 on the host.
        What is below 1e-4 and below 1e-6 / sigma² is rounding, and is 0 here.

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
    """The smallest r with (Σ_{i≤r} s_i² / Σ_i s_i²)^½ > eta (arXiv 2409.02426).

    Args:
        singular_values: float64 `[b, d]`, descending.
        eta: from 0 to less than 1, strict.

    Returns:
        int64 `[b]`, 1 to d; 0 where all singular values are 0.

    Raises:
        InputError: ``eta`` is out of range.
    """
    require_number("eta", eta, at_least=0, below=1)
    energy = np.cumsum(singular_values**2, axis=1)
    total = energy[:, -1:]
    share = np.sqrt(energy / np.where(total > 0, total, 1.0))
    return np.where(total[:, 0] > 0, 1 + np.argmax(share > eta, axis=1), 0)


def stable_rank(singular_values: np.ndarray) -> np.ndarray:
    """Σ_i s_i² / max_i s_i²: a rank that no share has to be chosen for.

    Args:
        singular_values: float64 `[b, d]`.

    Returns:
        float64 `[b]`, 1 to d; 0 where all singular values are 0.
    """
    squares = singular_values**2
    largest = squares.max(axis=1)
    return squares.sum(axis=1) / np.where(largest > 0, largest, 1.0)
