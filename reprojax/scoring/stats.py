"""Intervals for scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import bdtr

from reprojax.errors import InputError

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


def mean_interval(values: np.ndarray, z: float = Z95) -> tuple[float, tuple[float, float]]:
    """Mean of independent values with its normal interval.

    Args:
        values: float `[n]`, n at least 2.
        z: normal quantile; the default gives 95 %.

    Returns:
        the mean and (low, high) = mean ∓ z · s / sqrt(n), s with divisor n − 1.

    Raises:
        InputError: there are fewer than 2 values.
    """
    if len(values) < 2:
        raise InputError("values", f"{len(values)} of them", "at least 2 for an interval")
    mean = float(np.mean(values, dtype=np.float64))
    half = float(z * np.std(values, ddof=1, dtype=np.float64) / np.sqrt(len(values)))
    return mean, (mean - half, mean + half)


def median(values: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Median of independent values with a 95 % interval between two of them.

    The j-th smallest and the j-th largest enclose the median with a probability of
    1 − 2 P(Binomial(n, ½) < j), whatever the distribution; j is the largest for which that is at
    least .95. Up to 5 values none is: the interval is then their range, which covers less.

    Args:
        values: float `[n]`, n at least 1.

    Returns:
        the median and (low, high), both of them values.

    Raises:
        InputError: there is no value.
    """
    n, ordered = len(values), np.sort(values)
    if not n:
        raise InputError("values", "none", "at least 1 to take the median of")
    below = bdtr(np.arange(n), n, 0.5)  # P(Binomial <= k), ascending
    j = max(1, int(np.searchsorted(below, 0.025, side="right")))
    return float(np.median(ordered)), (float(ordered[j - 1]), float(ordered[n - j]))


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
