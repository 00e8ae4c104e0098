"""Calibrates thresholds of the cosine on real images, for descriptors without a published one.

A calibrated threshold has six decimals, so that the number on record is exactly the one in use.
"""

from __future__ import annotations

import math

import numpy as np

from reprojax.errors import InputError
from reprojax.scoring.similarity import max_cosine

PAPER_TAU = 0.6  # for SSCD, and for features from a file (arXiv 2310.05264)
RP_RATE = 1e-3
GL_TARGET = 0.95
MAX_IMAGES = 2048  # images to calibrate on; their 2,096,128 pairs resolve a rate of 1e-3 well


def calibrate_rp(train_features: np.ndarray, rate: float = RP_RATE) -> float:
    """Returns the cosine that a random pair of training images exceeds with probability ``rate``.

    It takes all pairs of the first 2,048 images and no random number.

    Args:
        train_features: The unit feature rows of the study's largest training set, float32
            `[n, d]`.
        rate: The probability. Of M pairs, exactly floor(rate · M) lie above the threshold, barring
            ties.

    Returns:
        The threshold τ with six decimals.

    Raises:
        InputError: There are fewer than 2 images.
    """
    x = train_features[:MAX_IMAGES].astype(np.float64)
    if len(x) < 2:
        requirement = f"must have at least 2 images to calibrate a threshold on, not {len(x)}"
        raise InputError("train", None, requirement)
    return _upper_quantile((x @ x.T)[np.triu_indices(len(x), k=1)], rate)


def calibrate_gl(
    heldout_features: np.ndarray | None, train_features: np.ndarray, target: float = GL_TARGET
) -> float:
    """Returns the threshold at which held-out real images have the GL ``target``.

    One threshold serves a whole study: with one per training set, chance neighbours alone would
    make GL fall as the training set grows.

    Args:
        heldout_features: The unit feature rows of held-out images, float32 `[m, d]`. None, or no
            rows, calibrates by leave-one-out: the first 2,048 training images, each against all
            others.
        train_features: The unit feature rows of the study's largest training set, float32
            `[n, d]`.
        target: The GL to reach. floor((1 − target) · m) of the images lie above the threshold.

    Returns:
        The threshold τ with six decimals.

    Raises:
        InputError: There are too few images to compare.
    """
    leave_one_out = heldout_features is None or not len(heldout_features)
    least = 2 if leave_one_out else 1
    if len(train_features) < least:
        requirement = f"must have {least} or more images to calibrate on, not {len(train_features)}"
        raise InputError("train", None, requirement)
    queries = train_features[:MAX_IMAGES] if leave_one_out else heldout_features
    nearest, _ = max_cosine(queries, train_features, exclude_self=leave_one_out)
    return _upper_quantile(nearest, 1 - target)


def _upper_quantile(values: np.ndarray, rate: float) -> float:
    """Returns a number of six decimals that floor(rate · n) of ``values`` `[n]` strictly exceed."""
    values = np.sort(values)
    above = math.floor(rate * len(values) + 1e-9)  # (1 - .95) * 100 must not become 4.999…
    low = values[-above - 1]
    middle = round(float(low + values[-above]) / 2, 6) if above else low
    if above and low < middle < values[-above]:
        return middle
    # Nothing lies above, or there is a tie: round up by more than the rounding of a float32 number.
    return math.ceil((float(low) + 1e-7) * 1e6) / 1e6
