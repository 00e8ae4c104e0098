"""Where a share that rises with N (or training time) crosses a level, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import bdtr, bdtrik, logit, ndtri

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
    counts: Sequence[int],
    totals: Sequence[int],
    levels: Sequence[float] | float,
    *,
    falling: bool = False,
    index: int = 0,
    draws: int = DRAWS,
) -> Crossing:
    """Finds where a share that rises with N crosses a level.

    The log-odds of the share, less those of the level, are made monotone (isotonic regression) and
    interpolated linearly in log2 N, which is exact for a logistic share; half a success and half a
    failure are added so that 0 and 1 have log-odds. The interval is a parametric bootstrap: the
    counts are drawn again from their binomials, independently at each size, and the central 95 % of
    the crossings are kept. It covers the draw of the noises, not that of networks or images, and
    not the interpolation.

    Args:
        sizes: `[k]` ascending, above 0, at least 2.
        counts: `[k]` successes.
        totals: `[k]` trials.
        levels: `[k]`, or one for all, within (0, 1).
        falling: the share falls with N instead.
        index: of the random stream, so that crossings that are compared are drawn apart.
        draws: of the bootstrap.

    Returns:
        Where, or on which side of all sizes.

    Raises:
        InputError: fewer than 2 sizes, sizes not ascending, or a level outside (0, 1).
    """
    x, k, n = np.log2(np.asarray(sizes, float)), np.asarray(counts, float), np.asarray(totals)
    level = np.broadcast_to(np.asarray(levels, float), x.shape)
    if len(x) < 2 or np.any(np.diff(x) <= 0):
        raise InputError("sizes", list(sizes), "two or more, ascending")
    for value in level:
        require_number("levels", value, above=0, below=1)
    if falling:
        k, level = n - k, 1 - level
    share = (k + 0.5) / (n + 1)
    value = _crosses(x, logit(share) - logit(level))
    drawn = _binomial(n, share, draws, index)
    found = [_crosses(x, y) for y in logit((drawn + 0.5) / (n + 1)) - logit(level)]
    return _summary(value, found, sizes)


def first_fall(
    x: Sequence[float],
    y: Sequence[float],
    spreads: Sequence[float],
    level: float,
    *,
    index: int = 0,
    draws: int = DRAWS,
) -> Crossing:
    """Finds the first x at which a positive quantity has fallen to a level, and may rise again.

    Interpolated linearly in both logarithms. The interval draws the values again from normal
    distributions about them, the level fixed.

    Args:
        x: `[k]` ascending, above 0.
        y: `[k]`, above 0.
        spreads: `[k]` standard errors of y.
        level: above 0.
        index: of the random stream.
        draws: of the bootstrap.

    Returns:
        Where; "below" where y starts there, "above" where it never gets there.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    drawn = y + np.asarray(spreads) * ndtri(_uniform(index, (draws, len(y))))
    found = [_first(np.log2(x), np.log(np.maximum(v, 1e-12) / level)) for v in (y, *drawn)]
    return _summary(found[0], found[1:], x)


def _summary(value: float, found: Sequence[float], sizes: Sequence[float]) -> Crossing:
    """A crossing from log2 of the estimate and of the draws, -inf and inf outside the sizes."""
    low = np.quantile(found, 0.025, method="lower")
    high = np.quantile(found, 0.975, method="higher")
    side = {-np.inf: "below", np.inf: "above"}.get(value, "")
    ends = float(sizes[0]), float(sizes[-1])
    return Crossing(_power(value), (_power(low), _power(high)), side, *ends)


def _first(x: np.ndarray, y: np.ndarray) -> float:
    """Where y `[k]` is first at most 0; -inf where it starts there, inf where it never is."""
    fallen = np.flatnonzero(y <= 0)
    i = fallen[0] if len(fallen) else len(y)
    if i in (0, len(y)):
        return -np.inf if i == 0 else np.inf
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


def _binomial(n: np.ndarray, p: np.ndarray, draws: int, index: int) -> np.ndarray:
    """Binomial counts `[draws, k]` by inversion: the same on every version of NumPy."""
    u = _uniform(index, (draws, len(n)))
    above = np.ceil(bdtrik(u, n, p))
    below = np.maximum(above - 1, 0)  # where rounding went one too far
    exact = np.where(bdtr(below, n, p) >= u, below, above)
    return np.clip(exact, 0, n)


def _uniform(index: int, shape: tuple[int, int]) -> np.ndarray:
    """Uniform float64 within (0, 1)."""
    bits = host_bits(0, STREAM, index, shape[0] * shape[1]).reshape(shape)
    return ((bits >> np.uint64(11)) + 0.5) * 2.0**-53


def _power(x: float) -> float | None:
    return float(2.0**x) if np.isfinite(x) else None
