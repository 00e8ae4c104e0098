"""Scores of two models on the same noise: RP and MAE score, each with its chance level."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import jax
import jax.numpy as jnp
import numpy as np

from reprojax.errors import InputError
from reprojax.scoring.similarity import count_over, exact_threshold, paired_cosines

MAE_THRESHOLD = 15.0  # on the 0-255 scale, arXiv 2310.05264
MAX_SHIFTS = 32  # cyclic shifts that stand for "another noise" in the chance of the MAE score
MAE_ROWS = 1024


@dataclass(frozen=True)
class PairScore:
    """One row of ``pairs`` in scores.json."""

    a: str
    b: str
    descriptor: str
    threshold: float
    score: str  # "rp" or "mae"
    value: float
    ci95: tuple[float, float]
    chance: float
    n: int

    def as_dict(self) -> dict:
        """The row as plain JSON values."""
        return asdict(self) | {"ci95": list(self.ci95)}


def rp(fa: np.ndarray, fb: np.ndarray, tau: float) -> float:
    """Reproducibility score P(cos(f(x_a), f(x_b)) > τ), same noise in row i (arXiv 2310.05264).

    Args:
        fa: float32 `[n, d]` unit feature rows of one model's samples.
        fb: float32 `[n, d]` of the other's, row i from the same noise.
        tau: threshold of the cosine, strict, taken as a float32 number.

    Returns:
        The share, 0 to 1.

    Raises:
        InputError: the two sets differ in shape, or are empty.
    """
    require_same_shape(fa, fb, 1)
    return float(np.mean(paired_cosines(fa, fb) > exact_threshold(tau)))


def rp_chance(fa: np.ndarray, fb: np.ndarray, tau: float) -> float:
    """The RP of different noises: the mean over all i ≠ j; arguments as for `rp`, n at least 2."""
    require_same_shape(fa, fb, 2)
    n = len(fa)
    return count_over(fa, fb, tau) / (n * (n - 1))


def mae_score(
    images_a: np.ndarray, images_b: np.ndarray, threshold: float = MAE_THRESHOLD
) -> float:
    """MAE score P(mean |x_a − x_b| < threshold) on the 0-255 scale (arXiv 2310.05264).

    Args:
        images_a: uint8 `[n, h, w, c]`, one model's samples.
        images_b: uint8 `[n, h, w, c]`, the other's, row i from the same noise.
        threshold: of the mean absolute difference, strict.

    Returns:
        The share, 0 to 1; the comparison is exact, of integers.

    Raises:
        InputError: the two sets differ in shape, or are empty.
    """
    require_same_shape(images_a, images_b, 1)
    a, b = _flat(images_a), _flat(images_b)
    return _mae_count(a, b, threshold, 0) / len(a)


def mae_chance(
    images_a: np.ndarray, images_b: np.ndarray, threshold: float = MAE_THRESHOLD
) -> float:
    """The MAE score of different noises: the mean over cyclic shifts 1 … min(32, n − 1).

    Arguments as for `mae_score`, n at least 2.
    """
    require_same_shape(images_a, images_b, 2)
    a, b = _flat(images_a), _flat(images_b)
    shifts = range(1, min(MAX_SHIFTS, len(a) - 1) + 1)
    return sum(_mae_count(a, b, threshold, shift) for shift in shifts) / (len(a) * len(shifts))


def _mae_count(a: np.ndarray, b: np.ndarray, threshold: float, shift: int) -> int:
    """How many i have mean |a[i] - b[i + shift]| below the threshold; uint8 `[n, d]`."""
    n, count = len(a), 0
    for start in range(0, n, MAE_ROWS):
        index = np.arange(start, start + MAE_ROWS) % n  # rows past the end only pad the block
        sums = np.asarray(_absolute_sums(a[index], b[(index + shift) % n]))
        count += int(np.count_nonzero(sums[: n - start] < threshold * a.shape[1]))
    return count


@jax.jit
def _absolute_sums(a, b):
    return jnp.sum(jnp.abs(a.astype(jnp.int32) - b.astype(jnp.int32)), axis=1)


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def require_same_shape(a: np.ndarray, b: np.ndarray, least: int) -> None:
    """Raises InputError unless two sets have one shape and at least ``least`` rows."""
    if a.shape != b.shape or len(a) < least:
        allowed = f"two sets of one shape with at least {least} rows each"
        raise InputError("samples", f"{a.shape} against {b.shape}", allowed)
