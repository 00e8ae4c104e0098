"""The coefficient table of a fixed-step solver."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

HISTORY = 4  # past evaluations, enough for multistep methods of order 4
X, ANCHOR, E0, E1, E2, E3 = range(2 + HISTORY)  # columns; E0 is the newest evaluation


class SolverTable(NamedTuple):
    """A table with one row per evaluation of the denoiser.

    The arrays are float64 on the host. They are cast to the state's dtype when the solver runs.

    Attributes:
        sigma: The noise levels at which the denoiser is evaluated, `[nfe]`.
        keep: The weights of (x, D(x; sigma)) in the value that a row keeps as E0, `[nfe, 2]`: the
            denoised image (0, 1), or the noise (1, -1) / sigma.
        x: The weights of (x, anchor, E0, E1, ...) in the next x, `[nfe, 2 + HISTORY]`.
        anchor: The weights in the next anchor, of the same shape.
        noise: The deviation of fresh noise that is added before the first row and after each row,
            `[nfe + 1]`.
    """

    sigma: np.ndarray
    keep: np.ndarray
    x: np.ndarray
    anchor: np.ndarray
    noise: np.ndarray


def empty_table(sigma: np.ndarray, *, keep_noise: bool = False) -> SolverTable:
    """Returns a table whose weights are 0.

    Args:
        sigma: The noise levels `[nfe]`, above 0.
        keep_noise: Whether rows keep the noise (x - D) / sigma instead of the denoised image.
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
