"""How near a model's pairing of noises and images is to the optimal transport of the two sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from reprojax.data.transform import to_float
from reprojax.errors import InputError
from reprojax.scoring.rows import flat

MAX_POINTS = 2000  # the assignment is cubic in the number of points at worst
ROUNDING = 1e-12  # relative to the mean |z·x|: pairings that differ by less cost the same


@dataclass(frozen=True)
class Transport:
    """Costs of pairings of the same noises and images; the cost of one pair is |z − x|² / d.

    Attributes:
        cost: mean over the model's own pairs.
        optimal: mean over the pairs of the optimal assignment, the least that there is.
        random: mean over all pairings, i.e. over all n² pairs.
        recovered: (random − cost) / (random − optimal), at most 1: 1 where the model pairs as
            optimal transport does, 0 where it pairs at random; 1 where all pairings cost the same.
        matched: share of the noises whose image in the optimal assignment is their own, 0 to 1.
        n: number of pairs. Fewer points are easier to pair well: compare at one n.
    """

    cost: float
    optimal: float
    random: float
    recovered: float
    matched: float
    n: int


def transport(z: np.ndarray, x: np.ndarray) -> Transport:
    """Compares a model's noise-to-image map with the optimal transport of the same two sets.

    Whether the map of a diffusion model is that of optimal transport was asked by arXiv 2202.07477.
    Σ|z|² + Σ|x|² is the same for all pairings, so the optimal one has the largest Σ z·x.

    Args:
        z: float32 `[n, ...]` unit noises, n at least 2; the first 2,000 (`MAX_POINTS`) are used.
        x: uint8 `[n, ...]`, the image of each noise; mapped to [−1, 1].

    Returns:
        The costs in squared data units per dimension.

    Raises:
        InputError: the two sets differ in shape, or are too small.
    """
    if z.shape != x.shape or len(z) < 2:
        allowed = "noises and images of one shape, at least 2 of each"
        raise InputError("samples", f"{z.shape} against {x.shape}", allowed)
    noises = flat(z[:MAX_POINTS]).astype(np.float64)
    images = flat(to_float(x[:MAX_POINTS])).astype(np.float64)
    n, d = noises.shape
    inner = noises @ images.T
    rows, columns = linear_sum_assignment(inner, maximize=True)
    own, best, mean = np.trace(inner) / n, inner[rows, columns].mean(), inner.mean()
    gap = best - mean
    equal = gap <= ROUNDING * np.abs(inner).mean()
    square = (np.sum(noises**2) + np.sum(images**2)) / n
    return Transport(
        cost=float(square - 2 * own) / d,
        optimal=float(square - 2 * best) / d,
        random=float(square - 2 * mean) / d,
        recovered=1.0 if equal else min(1.0, float((own - mean) / gap)),
        matched=float(np.mean(rows == columns)),
        n=n,
    )
