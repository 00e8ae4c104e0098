"""The level of chance between samples of different noises, among noises of one condition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Chance = Callable[[np.ndarray, np.ndarray], float | np.ndarray]


def all_pairs(n: int) -> int:
    """Returns the number of ordered pairs of two different rows."""
    return n * (n - 1)


def chance_within(
    chance_fn: Chance,
    a: np.ndarray,
    b: np.ndarray,
    groups: np.ndarray | None,
    pairs_fn: Callable[[int], int] = all_pairs,
) -> float | np.ndarray:
    """Computes a level of chance among noises of the same condition.

    Two samples of a conditional model agree more often where they have the same condition, so that
    the chance over all noises would be too low a floor.

    Args:
        chance_fn: A mean over pairs of different rows of its two arguments.
        a: One model's samples or features, `[n, ...]`.
        b: The other's, row i from the same noise.
        groups: int `[n]`, equal where two noises have the same condition; None for no conditions.
        pairs_fn: From the number of rows to the number of pairs that ``chance_fn`` takes its mean
            over.

    Returns:
        The mean over all pairs within groups. A group of one noise has no pair, and at least one
        group must have two (see `shared_groups`).
    """
    if groups is None:
        return chance_fn(a, b)
    rows = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    rows = [index for index in rows if len(index) > 1]
    weights = np.array([pairs_fn(len(index)) for index in rows], float)
    values = np.stack([np.asarray(chance_fn(a[index], b[index])) for index in rows])
    return np.tensordot(weights / weights.sum(), values, axes=1)


def shared_groups(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    """Returns the groups within which the chance of two models is taken, or None for no groups.

    There are none where a model takes no condition, and where no two noises have the same one: no
    chance can be taken between noises of the same condition then.
    """
    if a is None or b is None or np.unique(a).size == len(a):
        return None
    return a
