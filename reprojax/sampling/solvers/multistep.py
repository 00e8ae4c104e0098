"""Tables of multistep solvers, which evaluate once per step and use past evaluations again.

Each solver starts with a step of order 1 and gains an order with each step. A last step to
sigma = 0, which is infinite in log sigma, has order 1 too: its result is the denoised image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from reprojax.sampling.solvers.coefficients import ANCHOR, E0, E1, E2, SolverTable, X, empty_table
from reprojax.sampling.solvers.onestep import ddim

# Adams-Bashforth weights of the newest slope and of past slopes, by order, for equal steps.
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def log_steps(sigmas: np.ndarray) -> np.ndarray:
    """Returns the steps in lambda = -log sigma, `[num_steps]`, infinite for a step to 0."""
    with np.errstate(divide="ignore"):
        return -np.diff(np.log(sigmas))


def dpmpp_2m(sigmas: np.ndarray) -> SolverTable:
    """Returns the table of DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2).

    It extrapolates D linearly in log sigma.
    """
    table = ddim(sigmas)
    h = log_steps(sigmas)
    past = np.concatenate([[0.0], np.where(np.isfinite(h[1:]), h[1:] / (2 * h[:-1]), 0.0)])
    gain = table.x[:, E0].copy()
    table.x[:, E0], table.x[:, E1] = gain * (1.0 + past), -gain * past
    return table


def dpmpp_3m(sigmas: np.ndarray) -> SolverTable:
    """Returns the table of DPM-Solver++(3M) as published (arXiv 2211.01095 and its code).

    It extrapolates D by a parabola in log sigma. Its second step is that of 2M. The published
    weight of the second difference, phi_3, is half of the parabola's exact integral, so the method
    has order 2, with a smaller error than 2M, even with exact first steps.
    """
    table, h = dpmpp_2m(sigmas), log_steps(sigmas)
    for k in range(2, len(h)):
        if not np.isfinite(h[k]):
            continue
        r0, r1 = h[k - 1] / h[k], h[k - 2] / h[k]
        newer = np.array([1.0, -1.0, 0.0]) / r0
        older = np.array([0.0, 1.0, -1.0]) / r1
        slope = newer + (newer - older) * r0 / (r0 + r1)
        bend = (newer - older) / (r0 + r1)
        phi1 = -math.expm1(-h[k])
        phi2 = 1.0 - phi1 / h[k]
        phi3 = 0.5 - phi2 / h[k]
        table.x[k, E0 : E2 + 1] = phi1 * np.array([1.0, 0.0, 0.0]) + phi2 * slope + phi3 * bend
    return table


def ipndm(sigmas: np.ndarray) -> SolverTable:
    """Returns the table of improved PNDM of order 4 (arXiv 2204.13902, app. B).

    It is the Adams-Bashforth method on the noise, with the weights of equal steps in sigma on any
    grid.
    """
    table = empty_table(sigmas[:-1], keep_noise=True)
    table.x[:, X] = 1.0
    for k, step in enumerate(np.diff(sigmas)):
        weights = ADAMS_BASHFORTH[0 if sigmas[k + 1] == 0 else min(k, 3)]
        table.x[k, E0 : E0 + len(weights)] = step * np.array(weights)
    return table


def unipc_2(sigmas: np.ndarray) -> SolverTable:
    """Returns UniPC's table with B_2; predictor order 2, corrector order 3 (arXiv 2302.04867)."""
    return _unipc(sigmas, 2)


def unipc_3(sigmas: np.ndarray) -> SolverTable:
    """Returns UniPC's table with B_2 and a predictor of order 3; see `unipc_2`."""
    return _unipc(sigmas, 3)


def _unipc(sigmas: np.ndarray, order: int) -> SolverTable:
    """Returns the table of UniPC on the denoised image.

    The evaluation that predicts a step also corrects the step before. The corrector of step k goes
    once more from the corrected x_{k-1} (the anchor) to x_k, now with D(x_k), and the predictor
    continues from there. Both together are one row.
    """
    table, h = empty_table(sigmas[:-1]), log_steps(sigmas)
    for k in range(len(h)):
        corrected = np.zeros(table.x.shape[1])
        if k == 0:
            corrected[X] = 1.0
        else:
            count = min(order, k)
            # the corrector uses D at the end of its step, at the start, and before
            ratios = [1.0, *_ratios(h, k - 1, count - 1)]
            anchor, start, *rest = _exponential_step(h[k - 1], ratios)
            corrected[ANCHOR], corrected[E1] = anchor, start
            corrected[E0] += rest[0]
            corrected[E2 : E2 + len(rest) - 1] += rest[1:]
        table.anchor[k] = corrected
        count = 1 if not np.isfinite(h[k]) else min(order, k + 1)
        weights = _exponential_step(h[k], _ratios(h, k, count - 1))
        table.x[k] = weights[0] * corrected
        table.x[k, E0 : E0 + count] += weights[1:]
    return table


def _ratios(h: np.ndarray, k: int, past: int) -> list[float]:
    """Returns r_i = (lambda_{k-i} - lambda_k) / h_k for i = 1 to ``past``."""
    return [-float(np.sum(h[k - i : k])) / h[k] for i in range(1, past + 1)]


def _exponential_step(h: float, ratios: Sequence[float]) -> list[float]:
    """Returns the weights of a step of UniPC's predictor or corrector.

    They are those of arXiv 2302.04867, eqs. 3 and 8.

    Args:
        h: The length of the step in lambda.
        ratios: The distances of the other evaluations from the start of the step, in units of h.

    Returns:
        The weights of x, of D at the start, and of D at each ratio.
    """
    gain = -math.expm1(-h)  # 1 - e^-h = B_2(h)
    if not ratios:
        return [math.exp(-h), gain]
    if len(ratios) == 1:  # the paper's weight for a single difference
        coefficients = np.array([0.5])
    else:
        powers = np.array(ratios)[None, :] ** np.arange(len(ratios))[:, None]
        coefficients = np.linalg.solve(powers, _moments(h, len(ratios)))
    weights = gain * coefficients / np.array(ratios)
    return [math.exp(-h), gain - float(weights.sum()), *map(float, weights)]


def _moments(h: float, count: int) -> list[float]:
    """Returns n! h phi_{n+1} / B_2 for n = 1 to ``count``, for the prediction of the image."""
    gain, moments = -math.expm1(-h), []
    phi = gain / h  # phi_1(-h)
    for n in range(1, count + 1):
        phi = (1.0 / math.factorial(n) - phi) / h
        moments.append(math.factorial(n) * phi * h / gain)
    return moments
