"""Compares a model's pairing of noises and images with the optimal transport of the two sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from reprojax.data.transform import to_float
from reprojax.errors import InputError
from reprojax.scoring.rows import flat

MAX_POINTS = 2000  # the assignment is cubic in the number of points at worst
ROUNDING = 1e-12  # pairings cost the same if they differ by less, relative to the mean |z·x|


@dataclass(frozen=True)
class Transport:
    """Costs of pairings of the same noises and images, where a pair costs |z − x|² / d.

    Attributes:
        cost: The mean over the model's own pairs.
        optimal: The mean over the pairs of the optimal assignment, the smallest possible one.
        random: The mean over all n² pairs, the expectation of a random pairing.
        recovered: The share (random − cost) / (random − optimal), at most 1. It is 1 if the model
            pairs as optimal transport does, 0 if it pairs at random, and 1 if all pairings cost
            the same.
        matched: The share of noises that the optimal assignment pairs with the same image, 0 to 1.
        n: The number of pairs. Fewer points are easier to pair well, so compare at the same n.
    """

    cost: float
    optimal: float
    random: float
    recovered: float
    matched: float
    n: int


def transport(z: np.ndarray, x: np.ndarray) -> Transport:
    """Compares a model's noise-to-image map with the optimal transport of the same two sets.

    The question whether a diffusion model's map is the optimal one is from arXiv 2202.07477.
    Σ|z|² + Σ|x|² is the same for all pairings, so the optimal one has the largest Σ z·x.

    Args:
        z: The noises, unit normal float32 `[n, ...]`, n at least 2. Only the first 2,000
            (`MAX_POINTS`) count.
        x: The image of each noise, uint8 `[n, ...]`, which is mapped to [−1, 1].

    Returns:
        The costs, in squared data units per dimension.

    Raises:
        InputError: The two sets differ in shape, or are too small.
    """
    if z.shape != x.shape or len(z) < 2:
        requirement = "must be noises and images of one shape, at least 2 of each"
        raise InputError("samples", None, f"{requirement}, not {z.shape} and {x.shape}")
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
