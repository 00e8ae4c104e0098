"""Classifies samples as memorized, spurious or generalized (arXiv 2505.21777)."""

from __future__ import annotations

from typing import Any

import numpy as np

from reprojax.errors import InputError
from reprojax.scoring.models import INVERSE_SQUARE, copies, require_train
from reprojax.scoring.rows import Rows, flat
from reprojax.scoring.similarity import two_nearest
from reprojax.scoring.stats import wilson

STATES = ("memorized", "spurious", "generalized")


def sample_states(images: np.ndarray, train_images: Rows) -> np.ndarray:
    """Returns the state of every sample, by the images that it is a near copy of.

    arXiv 2505.21777 calls a sample memorized if it copies a training image, spurious if it copies
    only other samples of the same model (an attractor where there is no training image), and
    generalized if it copies neither. Its copies lie within a distance that is chosen for each data
    set. Here one criterion serves both and needs no choice, that of
    `reprojax.scoring.models.memorized`: x copies z if d(x, z) < d(x, y2) / 3 in pixel l2, where y2
    is the second nearest training image. A sample is memorized if it copies the nearest training
    image, spurious if it does not but copies the nearest other sample. (A ratio of distances among
    samples alone would miss an attractor that three noises reach.)

    The more samples there are, the more have a copy, and images of dense sets are close by chance.
    So compare only sets of one size, and compare with held-out images in place of samples.

    Args:
        images: One model's samples, uint8 `[n, h, w, c]`, at least 2.
        train_images: The training images, uint8 `[n_train, h, w, c]`, at least 2; an array or a
            RowReader.

    Returns:
        The states as indices in `STATES`, int8 `[n]`. Comparisons are strict and exact, in
        integers.

    Raises:
        InputError: There are fewer than 2 samples or training images, or the shapes differ.
    """
    require_train(images, train_images)
    if len(images) < 2:
        requirement = f"must have at least 2 images, to compare with each other, not {len(images)}"
        raise InputError("samples", None, requirement)
    rows = flat(images)
    train, _ = two_nearest(rows, flat(train_images))
    other = two_nearest(rows, rows)[0][:, 1]  # column 0 is the sample itself, or one equal to it
    spurious = INVERSE_SQUARE * other < train[:, 1]
    return np.where(copies(train), 0, np.where(spurious, 1, 2)).astype(np.int8)


def state_shares(states: np.ndarray) -> dict[str, dict[str, Any]]:
    """Returns the share of each state with a 95 % interval, ``{state: {"value", "ci95"}}``."""
    n = len(states)
    counts = np.bincount(states, minlength=len(STATES)).tolist()
    return {
        name: {"value": count / n, "ci95": list(wilson(count, n))}
        for name, count in zip(STATES, counts, strict=True)
    }
