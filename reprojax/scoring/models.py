"""Scores one model against training images: generalizability and memorization."""

from __future__ import annotations

import numpy as np

from reprojax.errors import InputError
from reprojax.scoring.rows import Rows, flat
from reprojax.scoring.similarity import Reference, exact_threshold, max_cosine, two_nearest

MEMORIZED_RATIO = 1 / 3  # arXiv 2310.02664
INVERSE_SQUARE = round(1 / MEMORIZED_RATIO**2)  # for squared distances: 9 d1² < d2² in integers


def gl(features: np.ndarray, train_features: Reference, tau: float) -> float:
    """Returns the generalizability score 1 − P(max_i cos(f(x), f(y_i)) > τ) (arXiv 2310.05264).

    Compare it with the score of held-out real images: noise has GL 1 too.

    Args:
        features: The unit feature rows of the samples, float32 `[n, d]`.
        train_features: The unit feature rows of the training images, float32 `[n_train, d]`, or
            an iterable of blocks of them.
        tau: The threshold of the cosine, strict, as a float32 number.

    Returns:
        The share of samples that are near no training image, 0 to 1.
    """
    return float(np.mean(is_new(features, train_features, tau)))


def is_new(features: np.ndarray, train_features: Reference, tau: float) -> np.ndarray:
    """Returns whether each sample is near no training image, bool `[n]`; `gl` is their share."""
    nearest, _ = max_cosine(features, train_features, tau=tau)
    return ~(nearest > exact_threshold(tau))


def memorized(images: np.ndarray, train_images: Rows) -> float:
    """Returns the share of samples with d(nearest) / d(second nearest) < 1/3 (arXiv 2310.02664).

    Distances are pixel l2. A sample that equals two training images, duplicates of each other, has
    the ratio 0/0; it is a copy, so it counts as memorized.

    Args:
        images: The samples, uint8 `[n, h, w, c]`.
        train_images: The training images, uint8 `[n_train, h, w, c]`, at least 2; an array or a
            RowReader.

    Returns:
        The share, 0 to 1. The comparison is strict and exact, in integers.

    Raises:
        InputError: There are fewer than 2 training images, or the shapes differ.
    """
    return float(np.mean(is_memorized(images, train_images)))


def is_memorized(images: np.ndarray, train_images: Rows) -> np.ndarray:
    """Returns whether each sample is memorized, bool `[n]`; `memorized` is their share."""
    require_train(images, train_images)
    squared, _ = two_nearest(flat(images), flat(train_images))
    return copies(squared)


def copies(squared: np.ndarray) -> np.ndarray:
    """Returns whether each sample copies its nearest training image, bool `[n]`.

    Args:
        squared: The squared distances to the two nearest training images, float64 `[n, 2]`.
    """
    return (INVERSE_SQUARE * squared[:, 0] < squared[:, 1]) | (squared[:, 1] == 0)


def require_train(images: np.ndarray, train_images: Rows) -> None:
    """Raises InputError unless there are two training images or more, of the samples' shape."""
    if len(train_images) < 2:
        requirement = f"must have at least 2 images, for a second nearest, not {len(train_images)}"
        raise InputError("train", None, requirement)
    if images.shape[1:] != train_images.shape[1:]:
        shapes = f"{train_images.shape[1:]}, as the training images, not {images.shape[1:]}"
        raise InputError("images", None, f"must have shape {shapes}")
