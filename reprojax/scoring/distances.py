"""Distances of two models on the same noise that need no single threshold: PFD, r², RP curve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from reprojax.scoring.pairs import require_same_shape
from reprojax.scoring.rows import flat
from reprojax.scoring.similarity import exact_threshold, paired_cosines
from reprojax.scoring.stats import mean_interval

ROWS = 1024  # rows of either set that are converted to float64, or multiplied, at a time
# Most thresholds are near a cosine of 1, where models that agree differ from those that do not.
CURVE_TAUS = (
    *(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    *(0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 0.999),
)


def pfd(a: np.ndarray, b: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Returns the probability flow distance (E |x_a − x_b|² / d)^½ (arXiv 2505.20123).

    The 95 % interval is normal, by the delta method: that of the mean square, divided by 2 PFD. It
    stays above 0, since the standard error of a mean of squares is at most that mean.

    Args:
        a: One model's samples, uint8 `[n, h, w, c]`, n at least 2.
        b: The other model's samples, uint8 `[n, h, w, c]`, row i from the same noise.

    Returns:
        The distance on the 0-255 scale and its interval (low, high).

    Raises:
        InputError: The two sets differ in shape, or are too small.
    """
    require_same_shape(a, b, 2)
    squares = [np.mean((x - y) ** 2, axis=1) for x, y in _pair_blocks(a, b)]
    mean, (_, high) = mean_interval(np.concatenate(squares))
    value = float(np.sqrt(mean))
    half = (high - mean) / (2 * value) if value else 0.0
    return value, (value - half, value + half)


def pfd_chance(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the PFD of different noises, from the mean square over all i ≠ j.

    It takes one pass over the images, in integers: Σ_{i≠j} |a_i − b_j|² is
    (n − 1) Σ_i (|a_i|² + |b_i|²) − 2 ((Σ_i a_i)·(Σ_j b_j) − Σ_i a_i·b_i). The arguments are those
    of `pfd`.
    """
    require_same_shape(a, b, 2)
    n, squares, products, sum_a, sum_b = len(a), 0, 0, 0.0, 0.0
    for x, y in _pair_blocks(a, b):
        squares += int(np.einsum("nd,nd->", x, x) + np.einsum("nd,nd->", y, y))
        products += int(np.einsum("nd,nd->", x, y))
        sum_a, sum_b = sum_a + x.sum(axis=0), sum_b + y.sum(axis=0)
    all_products = sum(int(p) * int(q) for p, q in zip(sum_a, sum_b))
    total = (n - 1) * squares - 2 * (all_products - products)
    return float(np.sqrt(total / (n * (n - 1) * len(sum_a))))


def per_image_r2(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the squared Pearson correlation over the pixels of each pair.

    Args:
        a: One model's samples, uint8 `[n, h, w, c]`.
        b: The other model's samples, uint8 `[n, h, w, c]`, row i from the same noise.

    Returns:
        The squared correlations, float64 `[n]`, 0 to 1. For an image of one value: 1 if the two
        are equal, else 0.

    Raises:
        InputError: The two sets differ in shape, or are empty.
    """
    require_same_shape(a, b, 1)
    return np.concatenate([_squared_correlation(x, y) for x, y in _pair_blocks(a, b)])


def determination(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the coefficient of determination 1 − |p − t|² / |t − mean(t)|² of each pair.

    The mean is over the pixels. Unlike `per_image_r2`, this counts a wrong brightness or contrast
    as an error.

    Args:
        prediction: The predictions, uint8 `[n, h, w, c]`.
        target: The targets, uint8 `[n, h, w, c]`, row i from the same noise.

    Returns:
        The coefficients, float64 `[n]`, at most 1, negative where the target's mean predicts
        better. For a target of one value: 1 if the two are equal, else 0.

    Raises:
        InputError: The two sets differ in shape, or are empty.
    """
    require_same_shape(prediction, target, 1)
    parts = []
    for x, y in _pair_blocks(prediction, target):
        error = np.sum((x - y) ** 2, axis=1)
        spread = np.sum((y - y.mean(axis=1, keepdims=True)) ** 2, axis=1)
        ratio = error / np.where(spread > 0, spread, 1.0)
        parts.append(np.where(spread > 0, 1 - ratio, error == 0))
    return np.concatenate(parts)


def rp_curve(fa: np.ndarray, fb: np.ndarray, taus: Sequence[float] = CURVE_TAUS) -> np.ndarray:
    """Returns `reprojax.scoring.pairs.rp` at each threshold, from one pass.

    Args:
        fa: The unit feature rows of one model's samples, float32 `[n, d]`.
        fb: The unit feature rows of the other model's, float32 `[n, d]`, row i from the same noise.
        taus: The thresholds of the cosine `[k]`, strict, as float32 numbers.

    Returns:
        The shares, float64 `[k]`, 0 to 1.

    Raises:
        InputError: The two sets differ in shape, or are empty.
    """
    require_same_shape(fa, fb, 1)
    cosines = np.sort(paired_cosines(fa, fb))
    limits = np.array([exact_threshold(tau) for tau in taus])
    return (len(cosines) - np.searchsorted(cosines, limits, side="right")) / len(cosines)


def rp_curve_chance(
    fa: np.ndarray, fb: np.ndarray, taus: Sequence[float] = CURVE_TAUS
) -> np.ndarray:
    """Returns the RP curve of different noises: the mean over all i ≠ j at each threshold.

    One pass of blocked float32 products at the highest precision serves all thresholds. Unlike
    `reprojax.scoring.pairs.rp_chance`, it does not evaluate cosines near a threshold again in
    float64; their rounding (some 1e-7) changes the result for a few of a million pairs.

    Args:
        fa: The unit feature rows of one model's samples, float32 `[n, d]`, n at least 2.
        fb: The unit feature rows of the other model's samples, float32 `[n, d]`.
        taus: The thresholds of the cosine `[k]`, strict, as float32 numbers.

    Returns:
        The shares, float64 `[k]`, 0 to 1.

    Raises:
        InputError: The two sets differ in shape, or are too small.
    """
    require_same_shape(fa, fb, 2)
    n, limits = len(fa), jnp.asarray(taus, jnp.float32)
    total = np.zeros(len(taus), np.int64)
    for column in range(0, n, ROWS):
        block = _rows_from(fb, column)
        counts = [
            _block_counts(_rows_from(fa, row), block, limits, row, column, n)
            for row in range(0, n, ROWS)
        ]
        total += np.sum(jax.device_get(counts), axis=0, dtype=np.int64)
    return total / (n * (n - 1))


@jax.jit
def _block_counts(a, b, taus, first_row, first_column, n):
    """Counts the cosines of a block above each threshold, without padding and the diagonal."""
    cosines = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    row = first_row + jax.lax.broadcasted_iota(jnp.int32, cosines.shape, 0)
    column = first_column + jax.lax.broadcasted_iota(jnp.int32, cosines.shape, 1)
    usable = (row < n) & (column < n) & (row != column)
    cosines = jnp.where(usable, cosines, -jnp.inf)
    return jax.lax.map(lambda tau: jnp.sum(cosines > tau), taus)


def _rows_from(features: np.ndarray, start: int) -> jax.Array:
    """Returns the rows from ``start`` on, `[ROWS, d]`, padded with the first rows past the end."""
    return jnp.asarray(features[np.arange(start, start + ROWS) % len(features)])


def _pair_blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields blocks of rows of both sets, float64 `[<= ROWS, d]`: sums of integers are exact."""
    for start in range(0, len(a), ROWS):
        x, y = (flat(rows[start : start + ROWS]).astype(np.float64) for rows in (a, b))
        yield x, y


def _squared_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the squared correlations `[n]` of rows of integers, float64 `[n, d]`.

    Each moment times d² is an integer too, and so exact.
    """
    d, sum_x, sum_y = x.shape[1], x.sum(axis=1), y.sum(axis=1)

    def moment(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return d * np.einsum("nd,nd->n", p, q)

    covariance = moment(x, y) - sum_x * sum_y
    scale = (moment(x, x) - sum_x**2) * (moment(y, y) - sum_y**2)
    r2 = np.minimum(1.0, covariance**2 / np.where(scale > 0, scale, 1.0))
    return np.where(scale > 0, r2, np.all(x == y, axis=1))
