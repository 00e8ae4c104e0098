"""Scores two models on the same noise by RP and MAE score, each with its chance level."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from reprojax.errors import InputError
from reprojax.scoring.similarity import count_over, exact_threshold, paired_cosines

MAE_THRESHOLD = 15.0  # on the 0-255 scale, arXiv 2310.05264
MAX_SHIFTS = 32  # cyclic shifts that pair different noises in the chance level of the MAE score
MAE_ROWS = 1024


def rp(fa: np.ndarray, fb: np.ndarray, tau: float) -> float:
    """Returns the reproducibility score P(cos(f(x_a), f(x_b)) > τ) (arXiv 2310.05264).

    Args:
        fa: The unit feature rows of one model's samples, float32 `[n, d]`.
        fb: The unit feature rows of the other model's, float32 `[n, d]`, row i from the same noise.
        tau: The threshold of the cosine, strict, as a float32 number.

    Returns:
        The share of pairs, 0 to 1.

    Raises:
        InputError: The two sets differ in shape, or are empty.
    """
    require_same_shape(fa, fb, 1)
    return float(np.mean(paired_cosines(fa, fb) > exact_threshold(tau)))


def rp_chance(fa: np.ndarray, fb: np.ndarray, tau: float) -> float:
    """Returns the RP of different noises, the mean over all i ≠ j.

    The arguments are those of `rp`, with n at least 2.
    """
    require_same_shape(fa, fb, 2)
    n = len(fa)
    return count_over(fa, fb, tau) / (n * (n - 1))


def mae_score(
    images_a: np.ndarray, images_b: np.ndarray, threshold: float = MAE_THRESHOLD
) -> float:
    """Returns the MAE score P(mean |x_a − x_b| < threshold) (arXiv 2310.05264).

    Args:
        images_a: One model's samples, uint8 `[n, h, w, c]`.
        images_b: The other model's samples, uint8 `[n, h, w, c]`, row i from the same noise.
        threshold: The threshold of the mean absolute difference on the 0-255 scale, strict.

    Returns:
        The share of pairs, 0 to 1. The comparison is exact, in integers.

    Raises:
        InputError: The two sets differ in shape, or are empty.
    """
    require_same_shape(images_a, images_b, 1)
    return _mae_counts(images_a, images_b, threshold, range(1)).item() / len(images_a)


def mae_chance(
    images_a: np.ndarray, images_b: np.ndarray, threshold: float = MAE_THRESHOLD
) -> float:
    """Returns the MAE score of different noises, the mean over cyclic shifts 1 … min(32, n − 1).

    The arguments are those of `mae_score`, with n at least 2.
    """
    require_same_shape(images_a, images_b, 2)
    n = len(images_a)
    counts = _mae_counts(images_a, images_b, threshold, range(1, MAX_SHIFTS + 1))[: n - 1]
    return int(counts.sum()) / (n * len(counts))


def mae_pairs(n: int) -> int:
    """Returns the number of pairs that `mae_chance` takes its mean over, of ``n`` samples."""
    return n * min(MAX_SHIFTS, n - 1)


def _mae_counts(
    images_a: np.ndarray, images_b: np.ndarray, threshold: float, shifts: range
) -> np.ndarray:
    """Counts the i with mean |a[i] - b[i + s]| below the threshold, int64 for each shift s."""
    a, b = _flat(images_a), _flat(images_b)
    n, limit = len(a), math.ceil(threshold * a.shape[1])  # rounding up is exact: sums are integers
    counts = []
    for start in range(0, n, MAE_ROWS):
        index = np.arange(start, start + MAE_ROWS + shifts[-1]) % n  # rows past the end are padding
        rows = a[index[:MAE_ROWS]], b[index]
        counts.append(_block_mae_counts(*rows, n - start, limit, shifts=shifts))
    return np.sum(jax.device_get(counts), axis=0, dtype=np.int64)


@partial(jax.jit, static_argnames="shifts")
def _block_mae_counts(a, b, num_rows, limit, *, shifts):
    """Counts the first rows of a `[r, d]` with sum |a[i] - b[i + s]| < limit, for each s."""
    usable = jnp.arange(len(a)) < num_rows

    def count(shift):
        partner = jax.lax.dynamic_slice_in_dim(b, shift, len(a)).astype(jnp.int32)
        sums = jnp.sum(jnp.abs(a.astype(jnp.int32) - partner), axis=1)
        return jnp.sum(usable & (sums < limit))

    return jax.lax.map(count, jnp.asarray(shifts))


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def require_same_shape(a: np.ndarray, b: np.ndarray, least: int) -> None:
    """Raises InputError unless two sets have the same shape and at least ``least`` rows."""
    if a.shape != b.shape or len(a) < least:
        requirement = f"must be two sets of one shape with at least {least} rows each"
        raise InputError("samples", None, f"{requirement}, not {a.shape} and {b.shape}")
