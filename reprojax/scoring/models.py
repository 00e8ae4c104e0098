"""Scores of one model against training images: generalizability and memorization."""

from __future__ import annotations

import numpy as np

from reprojax.errors import InputError
from reprojax.scoring.rows import Rows, flat
from reprojax.scoring.similarity import Reference, exact_threshold, max_cosine, two_nearest

MEMORIZED_RATIO = 1 / 3  # arXiv 2310.02664
INVERSE_SQUARE = round(1 / MEMORIZED_RATIO**2)  # of squared distances: 9 d1² < d2², both integers


def gl(features: np.ndarray, train_features: Reference, tau: float) -> float:
    """Generalizability score 1 − P(max_i cos(f(x), f(y_i)) > τ) (arXiv 2310.05264).

    It means nothing without what held-out real images score: noise has GL 1.

    Args:
        features: float32 `[n, d]` unit feature rows of the samples.
        train_features: float32 `[n_train, d]` of the training images, or an iterable of blocks.
        tau: threshold of the cosine, strict, taken as a float32 number.

    Returns:
        The share of samples that are near no training image, 0 to 1.
    """
    return float(np.mean(is_new(features, train_features, tau)))


def is_new(features: np.ndarray, train_features: Reference, tau: float) -> np.ndarray:
    """Which samples `gl` counts, bool `[n]`: those that are near no training image."""
    nearest, _ = max_cosine(features, train_features, tau=tau)
    return ~(nearest > exact_threshold(tau))


def memorized(images: np.ndarray, train_images: Rows) -> float:
    """Share of samples with d(nearest) / d(second nearest) < 1/3 in pixel l2 (arXiv 2310.02664).

    A sample that equals two training images, duplicates of each other, has the ratio 0/0; it is a
    copy, so it counts as memorized.

    Args:
        images: uint8 `[n, h, w, c]`, the samples.
        train_images: uint8 `[n_train, h, w, c]`, at least 2; an array or a RowReader.

    Returns:
        The share, 0 to 1; strict, and decided in exact arithmetic.

    Raises:
        InputError: there are fewer than 2 training images, or the shapes differ.
    """
    return float(np.mean(is_memorized(images, train_images)))


def is_memorized(images: np.ndarray, train_images: Rows) -> np.ndarray:
    """Which samples `memorized` counts, bool `[n]`."""
    require_train(images, train_images)
    squared, _ = two_nearest(flat(images), flat(train_images))
    return copies(squared)


def copies(squared: np.ndarray) -> np.ndarray:
    """Of squared distances `[n, 2]` to the two nearest training images, who copies the nearest."""
    return (INVERSE_SQUARE * squared[:, 0] < squared[:, 1]) | (squared[:, 1] == 0)


def require_train(images: np.ndarray, train_images: Rows) -> None:
    """Raises InputError unless there are two training images or more, of the samples' shape."""
    if len(train_images) < 2:
        raise InputError("train", f"{len(train_images)} images", "at least 2 for a second nearest")
    if images.shape[1:] != train_images.shape[1:]:
        raise InputError("images", images.shape[1:], f"of shape {train_images.shape[1:]}")
