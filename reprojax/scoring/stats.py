"""Intervals for scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import bdtr, stdtrit

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


def share_ratio(
    a: float, total_a: int, b: float, total_b: int, z: float = Z95
) -> tuple[float | None, tuple[float, float] | None]:
    """Ratio of two independent proportions with its interval, normal in the logarithm.

    The interval is Katz's with half a success added to each count (Walter 1975), usable at 0. Of
    shares over the same noises, which rise and fall together, it is wider than it need be.

    Args:
        a: successes above the line.
        total_a: of so many.
        b: successes beneath it.
        total_b: of so many.
        z: normal quantile; the default gives 95 %.

    Returns:
        the ratio and (low, high); None for both where ``b`` is 0.
    """
    if not b:
        return None, None
    value = (a / total_a) / (b / total_b)
    center = np.log((a + 0.5) / (total_a + 0.5)) - np.log((b + 0.5) / (total_b + 0.5))
    spread = 1 / (a + 0.5) - 1 / (total_a + 0.5) + 1 / (b + 0.5) - 1 / (total_b + 0.5)
    half = z * np.sqrt(max(0.0, spread))
    low, high = np.exp(center - half), np.exp(center + half)
    return value, (float(min(value, low if a else 0.0)), float(max(value, high)))


def line_slope(
    x: np.ndarray, y: np.ndarray
) -> tuple[float, float, tuple[float, float] | None] | None:
    """Slope and intercept of a least-squares line, the slope with a 95 % interval by Student's t.

    The interval takes its width from the scatter about the line, so it holds all that moves the
    points, not only the part that could be drawn again.

    Args:
        x: float `[n]`.
        y: float `[n]`.

    Returns:
        slope, intercept and (low, high), which needs 3 points (else None); None with fewer than 2
        different x.
    """
    if len(np.unique(x)) < 2:
        return None
    n, dx = len(x), x - np.mean(x)
    slope = float(dx @ y / (dx @ dx))
    intercept = float(np.mean(y) - slope * np.mean(x))
    if n < 3:
        return slope, intercept, None
    rest = y - intercept - slope * x
    error = np.sqrt(rest @ rest / (n - 2) / (dx @ dx))
    half = float(stdtrit(n - 2, 0.975) * error)
    return slope, intercept, (slope - half, slope + half)


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


def jackknife_deviations(
    statistic: Callable[[np.ndarray], float], n: int, groups: int = 20
) -> np.ndarray:
    """What each group of samples adds to the error of a statistic, by the delete-a-group jackknife.

    Their length is the statistic's standard error; the inner product of those of two statistics on
    the same samples is the covariance of the two.

    Args:
        statistic: maps the indices kept, int64 `[m]`, to a number.
        n: how many samples there are.
        groups: how many groups to delete in turn, sample i in group i mod ``groups``; ``n`` if
            that is less.

    Returns:
        float64 `[g]`: sqrt((g - 1) / g) · (θ_(j) − mean θ); empty with fewer than 2 samples.
    """
    groups = min(groups, n)
    if groups < 2:
        return np.zeros(0)
    index = np.arange(n)
    values = np.array([statistic(index[index % groups != group]) for group in range(groups)])
    return np.sqrt((groups - 1) / groups) * (values - values.mean())
