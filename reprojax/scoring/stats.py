"""Intervals for scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Z95 = 1.959964  # the two-sided 95 % point of the normal distribution


def wilson(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927): usable at 0 and at n.

    Args:
        successes: how many of ``n`` did, 0 to ``n``.
        n: how many there were, at least 1.
        z: normal quantile; the default gives 95 %.

    Returns:
        (low, high), within [0, 1].
    """
    p, shrink = successes / n, 1 + z**2 / n
    center = (p + z**2 / (2 * n)) / shrink
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / shrink
    # At the ends the interval touches 0 or 1; rounding must not let it miss them.
    low = 0.0 if successes <= 0 else max(0.0, center - half)
    return float(low), float(1.0 if successes >= n else min(1.0, center + half))


def jackknife(statistic: Callable[[np.ndarray], float], n: int, groups: int = 20) -> float:
    """Standard error of a statistic by the delete-a-group jackknife.

    Args:
        statistic: maps the indices kept, int64 `[m]`, to a number.
        n: how many samples there are.
        groups: how many groups to delete in turn, sample i in group i mod ``groups``; ``n`` if
            that is less.

    Returns:
        sqrt((g - 1) / g · Σ (θ_(j) − mean θ)²); 0 with fewer than 2 samples.
    """
    groups = min(groups, n)
    if groups < 2:
        return 0.0
    index = np.arange(n)
    values = np.array([statistic(index[index % groups != group]) for group in range(groups)])
    return float(np.sqrt((groups - 1) / groups * np.sum((values - values.mean()) ** 2)))
