"""The thresholds of cosine: fixed where the paper fixed them, else calibrated on real images.

A calibrated threshold has six decimals, so that the recorded number is the number used.
"""

from __future__ import annotations

import math

import numpy as np

from reprojax.errors import InputError
from reprojax.scoring.similarity import max_cosine

PAPER_TAU = 0.6  # for SSCD, and for features that are given (arXiv 2310.05264)
RP_RATE = 1e-3
GL_TARGET = 0.95
MAX_IMAGES = 2048  # whose pairs (2,096,128) resolve a rate of 1e-3 well


def calibrate_rp(train_features: np.ndarray, rate: float = RP_RATE) -> float:
    """The cosine that a random pair of distinct training images exceeds with probability ``rate``.

    Args:
        train_features: float32 `[n, d]` unit rows of the study's largest training set; all pairs of
            its first 2,048 images are taken, and no random number.
        rate: the probability. With M pairs, exactly floor(rate · M) of them lie above the
            threshold, barring ties.

    Returns:
        τ with six decimals.

    Raises:
        InputError: there are fewer than 2 images.
    """
    x = train_features[:MAX_IMAGES].astype(np.float64)
    if len(x) < 2:
        raise InputError("train", f"{len(x)} images", "at least 2 to calibrate a threshold on")
    return _exceeded_by((x @ x.T)[np.triu_indices(len(x), k=1)], rate)


def calibrate_gl(
    heldout_features: np.ndarray | None, train_features: np.ndarray, target: float = GL_TARGET
) -> float:
    """The threshold at which real images that were not trained on score GL ``target``.

    One threshold serves a whole study: with one per pair, chance neighbours alone would make GL
    fall as the training set grows.

    Args:
        heldout_features: float32 `[m, d]` unit rows of held-out images. None, or no rows, falls
            back to leave-one-out: the first 2,048 training images, each against all the others.
        train_features: float32 `[n, d]` unit rows of the study's largest training set.
        target: the GL to reach; floor((1 − target) · m) of the images are above the threshold.

    Returns:
        τ with six decimals.

    Raises:
        InputError: there is nothing to compare.
    """
    leave_one_out = heldout_features is None or not len(heldout_features)
    if len(train_features) < (2 if leave_one_out else 1):
        raise InputError("train", f"{len(train_features)} images", "enough to calibrate GL on")
    queries = train_features[:MAX_IMAGES] if leave_one_out else heldout_features
    nearest, _ = max_cosine(queries, train_features, exclude_self=leave_one_out)
    return _exceeded_by(nearest, 1 - target)


def _exceeded_by(values: np.ndarray, rate: float) -> float:
    """A number with six decimals that floor(rate · n) of ``values`` `[n]` lie strictly above."""
    values = np.sort(values)
    above = math.floor(rate * len(values) + 1e-9)  # (1 - .95) * 100 must not become 4.999…
    low = values[-above - 1]
    middle = round(float(low + values[-above]) / 2, 6) if above else low
    if above and low < middle < values[-above]:
        return middle
    # Nothing or a tie lies above: round up, by more than the rounding of a float32 threshold.
    return math.ceil((float(low) + 1e-7) * 1e6) / 1e6
