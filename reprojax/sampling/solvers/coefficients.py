"""What a fixed-step solver is to the sampler: rows of coefficients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

HISTORY = 4  # kept results of evaluations; enough for multistep methods up to order 4
X, ANCHOR, E0, E1, E2, E3 = range(2 + HISTORY)  # columns: x, anchor, newest kept result, older ones


class SolverTable(NamedTuple):
    """One row per evaluation; float64 on the host, cast to the state's dtype when it runs.

    Args:
        sigma: `[nfe]`, where the denoiser is evaluated.
        keep: `[nfe, 2]`, weights of (x, D(x; sigma)) in what the row keeps as E_0: the denoised
            image (0, 1), or the noise (1, -1) / sigma.
        x: `[nfe, 2 + HISTORY]`, weights of (x, anchor, E_0 newest, E_1, ...) in the next x.
        anchor: the same for the next anchor.
        noise: `[nfe + 1]`, deviation of fresh noise added before the first row and after each.
    """

    sigma: np.ndarray
    keep: np.ndarray
    x: np.ndarray
    anchor: np.ndarray
    noise: np.ndarray


def empty_table(sigma: np.ndarray, *, keep_noise: bool = False) -> SolverTable:
    """A table of zero weights at these levels.

    Args:
        sigma: `[nfe]`, above 0.
        keep_noise: whether rows keep the noise (x - D) / sigma instead of the denoised image.
    """
    sigma = np.asarray(sigma, np.float64)
    rows = np.zeros((len(sigma), 2 + HISTORY))
    one = np.ones_like(sigma)
    keep = (one / sigma, -one / sigma) if keep_noise else (0 * one, one)
    return SolverTable(
        sigma=sigma,
        keep=np.stack(keep, axis=1),
        x=rows,
        anchor=rows.copy(),
        noise=np.zeros(len(sigma) + 1),
    )
