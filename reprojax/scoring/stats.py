"""Statistics of scores and their intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import bdtr, stdtrit

from reprojax.errors import InputError

Z95 = 1.959964  # the two-sided 95 % point of the normal distribution


def wilson(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Returns Wilson's score interval of a proportion (Wilson 1927), usable at 0 and at n.

    Args:
        successes: The number of successes, 0 to ``n``.
        n: The number of trials, at least 1.
        z: The normal quantile, by default that of 95 %.

    Returns:
        The interval (low, high), within [0, 1].
    """
    p, shrink = successes / n, 1 + z**2 / n
    center = (p + z**2 / (2 * n)) / shrink
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / shrink
    # At the ends the interval includes 0 or 1, which rounding must not exclude.
    low = 0.0 if successes <= 0 else max(0.0, center - half)
    return float(low), float(1.0 if successes >= n else min(1.0, center + half))


def share_ratio(
    a: float, total_a: int, b: float, total_b: int, z: float = Z95
) -> tuple[float | None, tuple[float, float] | None]:
    """Returns the ratio of two independent proportions with an interval, normal in the logarithm.

    The interval is Katz's with half a success added to each count (Walter 1975), usable at 0. For
    shares over the same noises, which vary together, it is wider than necessary.

    Args:
        a: The successes of the numerator.
        total_a: The trials of the numerator.
        b: The successes of the denominator.
        total_b: The trials of the denominator.
        z: The normal quantile, by default that of 95 %.

    Returns:
        The ratio and its interval (low, high); None for both if ``b`` is 0.
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
    """Fits a least-squares line, with a 95 % interval of the slope by Student's t.

    The width of the interval comes from the scatter of the points about the line, so it covers
    every source of their variation.

    Args:
        x: The positions, float `[n]`.
        y: The values, float `[n]`.

    Returns:
        The slope, the intercept and the slope's interval (low, high), which is None for fewer than
        3 points. None if there are fewer than 2 different x.
    """
    if len(np.unique(x)) < 2:
        return None
    n, dx = len(x), x - np.mean(x)
    slope = float(dx @ y / (dx @ dx))
    intercept = float(np.mean(y) - slope * np.mean(x))
    if n < 3:
        return slope, intercept, None
    residual = y - intercept - slope * x
    error = np.sqrt(residual @ residual / (n - 2) / (dx @ dx))
    half = float(stdtrit(n - 2, 0.975) * error)
    return slope, intercept, (slope - half, slope + half)


def mean_interval(values: np.ndarray, z: float = Z95) -> tuple[float, tuple[float, float]]:
    """Returns the mean of independent values with its normal interval.

    Args:
        values: The values, float `[n]`, n at least 2.
        z: The normal quantile, by default that of 95 %.

    Returns:
        The mean and (low, high) = mean ∓ z · s / sqrt(n), where s has the divisor n − 1.

    Raises:
        InputError: There are fewer than 2 values.
    """
    if len(values) < 2:
        raise InputError("values", None, f"must be at least 2 for an interval, not {len(values)}")
    mean = float(np.mean(values, dtype=np.float64))
    half = float(z * np.std(values, ddof=1, dtype=np.float64) / np.sqrt(len(values)))
    return mean, (mean - half, mean + half)


def median(values: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Returns the median of independent values with a 95 % interval between two of them.

    The j-th smallest and the j-th largest value enclose the median with a probability of
    1 − 2 P(Binomial(n, ½) < j), for any distribution; j is the largest for which that is at least
    .95. For up to 5 values there is none, and the interval is their range, which covers less.

    Args:
        values: The values, float `[n]`, n at least 1.

    Returns:
        The median and (low, high), both of which are values.

    Raises:
        InputError: There is no value.
    """
    n, ascending = len(values), np.sort(values)
    if not n:
        raise InputError("values", None, "must be at least 1 to take the median of")
    below = bdtr(np.arange(n), n, 0.5)  # P(Binomial <= k), ascending
    j = max(1, int(np.searchsorted(below, 0.025, side="right")))
    return float(np.median(ascending)), (float(ascending[j - 1]), float(ascending[n - j]))


def jackknife_deviations(
    statistic: Callable[[np.ndarray], float], n: int, groups: int = 20
) -> np.ndarray:
    """Returns the contribution of each group of samples to the error of a statistic.

    This is the delete-a-group jackknife. The l2 norm of the contributions is the statistic's
    standard error, and the inner product of those of two statistics on the same samples is the
    covariance of the two.

    Args:
        statistic: A function from the indices of the samples to keep, int64 `[m]`, to a number.
        n: The number of samples.
        groups: The number of groups to delete in turn, at most ``n``. Sample i is in group
            i mod ``groups``.

    Returns:
        The deviations sqrt((g - 1) / g) · (θ_(j) − mean θ), float64 `[g]`; empty for fewer than 2
        samples.
    """
    groups = min(groups, n)
    if groups < 2:
        return np.zeros(0)
    index = np.arange(n)
    values = np.array([statistic(index[index % groups != group]) for group in range(groups)])
    return np.sqrt((groups - 1) / groups) * (values - values.mean())
