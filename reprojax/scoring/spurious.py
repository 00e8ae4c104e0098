"""Three states of a sample: memorized, spurious, generalized (arXiv 2505.21777)."""

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
    """The state of every sample, by what it is a near copy of.

    arXiv 2505.21777 calls a sample memorized if it copies a training image, spurious if it copies
    none but other samples of the same model (an attractor that no image put there), generalized if
    it copies neither; its copies lie within a distance chosen per data set. Here one yardstick
    serves both and needs no choice, that of `reprojax.scoring.models.memorized`: x copies z if
    d(x, z) < d(x, y2) / 3 in pixel l2, y2 the second nearest training image. A sample is memorized
    if z is the nearest training image, spurious if it is not and z is the nearest other sample. (A
    ratio of distances among samples alone would miss an attractor that three noises reach.)

    How many samples find a copy grows with how many there are, and dense sets are close by chance:
    compare sets of one size, and with what held-out images score in place of samples.

    Args:
        images: uint8 `[n, h, w, c]`, one model's samples, at least 2.
        train_images: uint8 `[n_train, h, w, c]`, at least 2; an array or a RowReader.

    Returns:
        int8 `[n]`, places in `STATES`; strict, and decided in exact arithmetic.

    Raises:
        InputError: fewer than 2 samples or training images, or the shapes differ.
    """
    require_train(images, train_images)
    if len(images) < 2:
        raise InputError("samples", f"{len(images)} images", "at least 2, to be copies of others")
    rows = flat(images)
    train, _ = two_nearest(rows, flat(train_images))
    other = two_nearest(rows, rows)[0][:, 1]  # the nearest is the sample itself, or one equal to it
    spurious = INVERSE_SQUARE * other < train[:, 1]
    return np.where(copies(train), 0, np.where(spurious, 1, 2)).astype(np.int8)


def state_shares(states: np.ndarray) -> dict[str, dict[str, Any]]:
    """The share of each state with its 95 % interval, ``{state: {"value", "ci95"}}``."""
    n = len(states)
    counts = np.bincount(states, minlength=len(STATES)).tolist()
    return {
        name: {"value": count / n, "ci95": list(wilson(count, n))}
        for name, count in zip(STATES, counts, strict=True)
    }
