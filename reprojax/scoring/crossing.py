"""Finds where a share that rises with N (or training time) crosses a level, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import logit, ndtri

from reprojax.errors import InputError, require_number
from reprojax.rng import host_bits

DRAWS = 1000
STREAM = "scoring/crossing"


@dataclass(frozen=True)
class Crossing:
    """The N at which a share crosses its level.

    Attributes:
        value: The crossing, or None if it lies outside the measured sizes.
        ci95: The 95 % interval (low, high), with None for an end outside the sizes.
        censored: The side of all sizes that the crossing lies on, "below" or "above", else "".
        smallest: The smallest measured size.
        largest: The largest measured size.
    """

    value: float | None
    ci95: tuple[float | None, float | None]
    censored: str
    smallest: float
    largest: float

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields as plain JSON values."""
        return vars(self) | {"ci95": list(self.ci95)}


def crossing(
    sizes: Sequence[float],
    hits: np.ndarray,
    levels: Sequence[float] | float,
    *,
    falling: bool = False,
    index: int = 0,
    draws: int = DRAWS,
) -> Crossing:
    """Finds where a share that rises with N crosses a level.

    The log-odds of the share, less those of the level, are made monotone (isotonic regression) and
    interpolated linearly in log2 N, which is exact for a logistic share. Half a success and half a
    failure are added so that shares of 0 and 1 have log-odds. The interval is that of a Bayesian
    bootstrap, the central 95 % of the crossings: each draw gives all noises (and the added half)
    new weights, the same at each size, because a noise's outcomes at different sizes are
    dependent. It covers the draw of the noises, but not that of networks or images, nor the
    interpolation.

    Args:
        sizes: The sizes N `[k]`, ascending, above 0, at least 2 of them.
        hits: The successes of the same n noises at each size, bool `[k, n]`.
        levels: The level at each size `[k]`, or one for all, within (0, 1).
        falling: Whether the share falls with N instead.
        index: The index of the random stream; different for crossings that are compared.
        draws: The number of draws of the bootstrap.

    Returns:
        The crossing, or the side of all sizes that it lies on.

    Raises:
        InputError: There are fewer than 2 sizes, they do not ascend, or a level is outside (0, 1).
    """
    x, hits = np.log2(np.asarray(sizes, float)), np.asarray(hits, bool)
    level = np.broadcast_to(np.asarray(levels, float), x.shape)
    if len(x) < 2 or np.any(np.diff(x) <= 0):
        raise InputError("sizes", list(sizes), "must be two or more, ascending")
    for value in level:
        require_number("levels", value, above=0, below=1)
    if falling:
        hits, level = ~hits, 1 - level
    trials = np.concatenate([hits, np.full((len(x), 1), 0.5)], axis=1).T
    shares = [trials.mean(0), *_weights(index, draws, len(trials)) @ trials]
    value, *samples = [_crosses(x, y) for y in logit(shares) - logit(level)]
    return _summary(value, samples, sizes)


def first_fall(
    x: Sequence[float],
    y: Sequence[float],
    deviations: np.ndarray,
    factor: float,
    *,
    index: int = 0,
    draws: int = DRAWS,
) -> Crossing:
    """Finds the first x at which a positive quantity is at most ``factor`` times its lowest value.

    It interpolates linearly in both logarithms. The interval is that of a parametric bootstrap:
    each draw takes all values, and so their lowest, from the normal distribution that the
    jackknife's deviations make. Values on the same noises vary together in it.

    Args:
        x: The positions `[k]`, ascending, above 0.
        y: The quantity at each position `[k]`, above 0.
        deviations: The deviations `[k, g]` from `jackknife_deviations`.
        factor: The multiple of the lowest value, above 1.
        index: The index of the random stream.
        draws: The number of draws of the bootstrap.

    Returns:
        The crossing; "below" if y is as low at the first position.

    Raises:
        InputError: The factor is not above 1.
    """
    require_number("factor", factor, above=1)
    x, y = np.asarray(x, float), np.asarray(y, float)
    deviations = np.asarray(deviations, float)
    noisy_y = y + ndtri(_uniform(index, (draws, deviations.shape[1]))) @ deviations.T
    logs = np.log(np.maximum([y, *noisy_y], 1e-12))
    value, *samples = [_first(np.log2(x), v - v.min() - np.log(factor)) for v in logs]
    return _summary(value, samples, x)


def _summary(value: float, samples: Sequence[float], sizes: Sequence[float]) -> Crossing:
    """Returns a crossing from the log2 of the estimate and of the draws, ±inf outside the sizes."""
    low = np.quantile(samples, 0.025, method="lower")
    high = np.quantile(samples, 0.975, method="higher")
    side = {-np.inf: "below", np.inf: "above"}.get(value, "")
    ends = float(sizes[0]), float(sizes[-1])
    return Crossing(_power(value), (_power(low), _power(high)), side, *ends)


def _first(x: np.ndarray, y: np.ndarray) -> float:
    """Returns where y `[k]`, which is somewhere negative, is first at most 0; -inf at the start."""
    i = int(np.argmax(y <= 0))
    if i == 0:
        return -np.inf
    return float(x[i - 1] + (x[i] - x[i - 1]) * y[i - 1] / (y[i - 1] - y[i]))


def _crosses(x: np.ndarray, y: np.ndarray) -> float:
    """Returns where y `[k]`, made monotone, reaches 0 over x; -inf or inf outside of x."""
    y = isotonic_regression(y).x
    i = int(np.searchsorted(y, 0.0))
    if i == 0:
        return -np.inf if y[0] > 0 else float(x[0])
    if i == len(x):
        return np.inf
    return float(x[i - 1] + (x[i] - x[i - 1]) * y[i - 1] / (y[i - 1] - y[i]))


def _weights(index: int, draws: int, n: int) -> np.ndarray:
    """Draws the weights `[draws, n]` of a Bayesian bootstrap, positive with a sum of 1 per row."""
    weights = -np.log(_uniform(index, (draws, n)))
    return weights / weights.sum(1, keepdims=True)


def _uniform(index: int, shape: tuple[int, int]) -> np.ndarray:
    """Draws uniform float64 numbers within (0, 1)."""
    bits = host_bits(0, STREAM, index, shape[0] * shape[1]).reshape(shape)
    return ((bits >> np.uint64(11)) + 0.5) * 2.0**-53


def _power(x: float) -> float | None:
    return float(2.0**x) if np.isfinite(x) else None
