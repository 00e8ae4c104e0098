"""Where a share that rises with N (or training time) crosses a level, with an interval."""

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
        value: it, or None where the share does so outside the sizes that were measured.
        ci95: (low, high) of a 95 % interval; None for an end that lies outside of them.
        censored: "" or on which side of all sizes it lies, "below" or "above".
        smallest: of the sizes.
        largest: of the sizes.
    """

    value: float | None
    ci95: tuple[float | None, float | None]
    censored: str
    smallest: float
    largest: float

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
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
    interpolated linearly in log2 N, which is exact for a logistic share; half a success and half a
    failure are added so that 0 and 1 have log-odds. The interval is a Bayesian bootstrap: all
    noises (with the half as one more) are weighted anew, the same way at each size, since what a
    noise becomes at one size tells of the next; the central 95 % of the crossings are kept. It
    covers the draw of the noises, not that of networks or images, and not the interpolation.

    Args:
        sizes: `[k]` ascending, above 0, at least 2.
        hits: bool `[k, n]`, at each size the successes of the same n noises.
        levels: `[k]`, or one for all, within (0, 1).
        falling: the share falls with N instead.
        index: of the random stream, so that crossings that are compared are drawn apart.
        draws: of the bootstrap.

    Returns:
        Where, or on which side of all sizes.

    Raises:
        InputError: fewer than 2 sizes, sizes not ascending, or a level outside (0, 1).
    """
    x, hits = np.log2(np.asarray(sizes, float)), np.asarray(hits, bool)
    level = np.broadcast_to(np.asarray(levels, float), x.shape)
    if len(x) < 2 or np.any(np.diff(x) <= 0):
        raise InputError("sizes", list(sizes), "two or more, ascending")
    for value in level:
        require_number("levels", value, above=0, below=1)
    if falling:
        hits, level = ~hits, 1 - level
    trials = np.concatenate([hits, np.full((len(x), 1), 0.5)], axis=1).T
    shares = [trials.mean(0), *_weights(index, draws, len(trials)) @ trials]
    found = [_crosses(x, y) for y in logit(shares) - logit(level)]
    return _summary(found[0], found[1:], sizes)


def first_fall(
    x: Sequence[float],
    y: Sequence[float],
    deviations: np.ndarray,
    factor: float,
    *,
    index: int = 0,
    draws: int = DRAWS,
) -> Crossing:
    """Finds the first x at which a positive quantity has fallen to some times its lowest value.

    Interpolated linearly in both logarithms. The interval draws all values again, and with them
    their lowest, from the normal distribution about them that the jackknife's deviations make:
    values on the same noises move together.

    Args:
        x: `[k]` ascending, above 0.
        y: `[k]`, above 0.
        deviations: `[k, g]` of `jackknife_deviations`.
        factor: of the lowest value, above 1.
        index: of the random stream.
        draws: of the bootstrap.

    Returns:
        Where; "below" where y starts there.

    Raises:
        InputError: the factor is not above 1.
    """
    require_number("factor", factor, above=1)
    x, y = np.asarray(x, float), np.asarray(y, float)
    deviations = np.asarray(deviations, float)
    drawn = y + ndtri(_uniform(index, (draws, deviations.shape[1]))) @ deviations.T
    logs = np.log(np.maximum([y, *drawn], 1e-12))
    found = [_first(np.log2(x), v - v.min() - np.log(factor)) for v in logs]
    return _summary(found[0], found[1:], x)


def _summary(value: float, found: Sequence[float], sizes: Sequence[float]) -> Crossing:
    """A crossing from log2 of the estimate and of the draws, -inf and inf outside the sizes."""
    low = np.quantile(found, 0.025, method="lower")
    high = np.quantile(found, 0.975, method="higher")
    side = {-np.inf: "below", np.inf: "above"}.get(value, "")
    ends = float(sizes[0]), float(sizes[-1])
    return Crossing(_power(value), (_power(low), _power(high)), side, *ends)


def _first(x: np.ndarray, y: np.ndarray) -> float:
    """Where y `[k]`, at some place negative, is first at most 0; -inf where it starts there."""
    i = int(np.argmax(y <= 0))
    if i == 0:
        return -np.inf
    return float(x[i - 1] + (x[i] - x[i - 1]) * y[i - 1] / (y[i - 1] - y[i]))


def _crosses(x: np.ndarray, y: np.ndarray) -> float:
    """Where monotone y `[k]` over x reaches 0; -inf or inf where that is outside."""
    y = isotonic_regression(y).x
    i = int(np.searchsorted(y, 0.0))
    if i == 0:
        return -np.inf if y[0] > 0 else float(x[0])
    if i == len(x):
        return np.inf
    return float(x[i - 1] + (x[i] - x[i - 1]) * y[i - 1] / (y[i - 1] - y[i]))


def _weights(index: int, draws: int, n: int) -> np.ndarray:
    """Weights `[draws, n]` of a Bayesian bootstrap: positive, a row adds up to 1."""
    weights = -np.log(_uniform(index, (draws, n)))
    return weights / weights.sum(1, keepdims=True)


def _uniform(index: int, shape: tuple[int, int]) -> np.ndarray:
    """Uniform float64 within (0, 1)."""
    bits = host_bits(0, STREAM, index, shape[0] * shape[1]).reshape(shape)
    return ((bits >> np.uint64(11)) + 0.5) * 2.0**-53


def _power(x: float) -> float | None:
    return float(2.0**x) if np.isfinite(x) else None
