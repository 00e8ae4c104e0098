"""Fréchet distance between the features of two image sets, which tells noise from images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.linalg

from reprojax.scoring.stats import Z95, jackknife_deviations

MAX_DIMS = 64  # more would need more samples than a small study has
FIT_ROWS = 4096  # the number of training images that the projection is fitted to
ROWS = 4096


@dataclass(frozen=True)
class Projection:
    """Principal components of training features, the coordinates of the Fréchet distance.

    Attributes:
        mean: The mean of the features, float64 `[d]`.
        basis: The components as orthonormal columns, float64 `[d, k]`; None keeps all of d ≤ 64
            dimensions.
    """

    mean: np.ndarray
    basis: np.ndarray | None

    @classmethod
    def fit(cls, features: np.ndarray) -> Projection:
        """Fits to the first 4,096 rows of float32 `[n, d]`; k = min(64, n − 1) where d > 64."""
        x = features[:FIT_ROWS].astype(np.float64)
        mean, (n, d) = x.mean(axis=0), x.shape
        if d <= MAX_DIMS:
            return cls(mean, None)
        x, k = x - mean, max(1, min(MAX_DIMS, n - 1))
        if n >= d:
            return cls(mean, scipy.linalg.eigh(x.T @ x, subset_by_index=[d - k, d - 1])[1])
        _, vectors = scipy.linalg.eigh(x @ x.T, subset_by_index=[max(0, n - k), n - 1])
        return cls(mean, np.linalg.qr(x.T @ vectors)[0])  # the same span from a smaller matrix

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Projects float32 `[n, d]` to float64 `[n, k]`."""
        parts = []
        for start in range(0, len(features), ROWS):
            centered = features[start : start + ROWS].astype(np.float64) - self.mean
            parts.append(centered if self.basis is None else centered @ self.basis)
        return np.concatenate(parts)


class _Moments(NamedTuple):
    """The mean `[k]` and covariance `[k, k]` of a set."""

    mean: np.ndarray
    cov: np.ndarray


def _moments(x: np.ndarray) -> _Moments:
    return _Moments(x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False)))


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the squared Fréchet distance of Gaussians fitted to two sets (arXiv 1706.08500).

    It is ‖μ_x − μ_y‖² + tr(Σ_x + Σ_y − 2 (Σ_x^½ Σ_y Σ_x^½)^½), by symmetric eigendecompositions,
    which stay real where the covariances are singular.

    Args:
        x: One set, float64 `[n, k]`, n at least 2.
        y: The other set, float64 `[m, k]`, m at least 2.

    Returns:
        The distance in squared feature units, at least 0.
    """
    return _distance(_moments(x), _moments(y))


def _distance(x: _Moments, y: _Moments) -> float:
    values, vectors = np.linalg.eigh(x.cov)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ y.cov @ root), 0)).sum()
    mean_gap = np.sum((x.mean - y.mean) ** 2)
    return max(0.0, float(mean_gap + np.trace(x.cov) + np.trace(y.cov) - 2 * cross))


def frechet(samples: np.ndarray, heldout: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Returns the Fréchet distance of samples to held-out real images, with a 95 % interval.

    The distance of a finite set has a bias that falls with its size, so compare only sets of one
    size. The interval covers the draw of the samples, by a delete-a-group jackknife with 20
    groups, but not that of the held-out images.

    Args:
        samples: The projected features of the samples, float64 `[n, k]`, n at least 3.
        heldout: The projected features of held-out images, float64 `[m, k]`, m at least 2.

    Returns:
        The distance and its interval (low, high), low at least 0.
    """
    value, deviations = frechet_deviations(samples, heldout)
    return value, frechet_interval(value, deviations)


def frechet_interval(value: float, deviations: np.ndarray) -> tuple[float, float]:
    """Returns the 95 % interval of a distance from its jackknife deviations, low at least 0."""
    half = Z95 * float(np.linalg.norm(deviations))
    return max(0.0, value - half), value + half


def frechet_deviations(samples: np.ndarray, heldout: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the distance of `frechet` and its jackknife deviations, float64 `[g]`.

    A deviation is the contribution of a group of samples to the error. Groups of different sets
    are comparable if the sets come from the same noises.
    """
    real = _moments(heldout)  # once, since they are the same for every group

    def distance(indices: np.ndarray) -> float:
        return _distance(_moments(samples[indices]), real)

    value = _distance(_moments(samples), real)
    return value, jackknife_deviations(distance, len(samples))
