"""Fixed-step solvers of dx/dsigma = (x - D(x; sigma)) / sigma as tables of coefficients.

A solver is a function from noise levels to a table with one row per evaluation of the denoiser.
Every solver here is linear in what it has seen: the running state x, a kept state (the anchor) and
the last few denoised images. One `lax.scan` runs any table, so another solver or grid of equal
length does not recompile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from reprojax.errors import require_choice

HISTORY = 4  # denoised images kept; enough for multistep methods up to order 4
X, ANCHOR, D0, D1 = 0, 1, 2, 3  # columns: x, anchor, newest denoised image, the one before


class SolverTable(NamedTuple):
    """One row per evaluation; float64 on the host, cast to the state's dtype when it runs.

    Args:
        sigma: `[nfe]`, where the denoiser is evaluated.
        x: `[nfe, 2 + HISTORY]`, weights of (x, anchor, D_0 newest, D_1, ...) in the next x.
        anchor: the same for the next anchor.
    """

    sigma: np.ndarray
    x: np.ndarray
    anchor: np.ndarray


class Solver(NamedTuple):
    """A fixed-step solver: the global order of convergence it states, and its table.

    Args:
        order: slope of log error over log step size on smooth problems, ended above sigma = 0.
        evaluations: denoiser calls per step.
        table: from falling sigmas `[num_steps + 1]` to rows.
    """

    order: int
    evaluations: int
    table: Callable[[np.ndarray], SolverTable]


def _empty(sigma: np.ndarray) -> SolverTable:
    rows = np.zeros((len(sigma), 2 + HISTORY))
    return SolverTable(np.asarray(sigma, np.float64), rows, rows.copy())


def ddim(sigmas: np.ndarray) -> SolverTable:
    """DDIM (arXiv 2010.02502) = Euler in sigma = DPM-Solver-1: D is held constant over a step."""
    table = _empty(sigmas[:-1])
    ratio = sigmas[1:] / sigmas[:-1]
    table.x[:, X], table.x[:, D0] = ratio, 1.0 - ratio
    return table


def heun(sigmas: np.ndarray) -> SolverTable:
    """Heun's method (arXiv 2206.00364, algorithm 1): Euler, then the trapezoid of both slopes.

    A last step to sigma = 0 has no second slope and stays an Euler step: NFE 2 num_steps - 1.
    """
    now, then = sigmas[:-1], sigmas[1:]
    inner = then > 0
    table = _empty(np.stack([now, then], axis=1).ravel()[: len(now) + inner.sum()])
    euler, trapezoid = slice(0, None, 2), slice(1, None, 2)
    table.x[euler, X], table.x[euler, D0] = then / now, 1.0 - then / now
    table.anchor[euler, X] = 1.0
    now, then = now[inner], then[inner]
    first, second = (then - now) / (2 * now), (then - now) / (2 * then)
    table.x[trapezoid, ANCHOR], table.x[trapezoid, X] = 1.0 + first, second
    table.x[trapezoid, D1], table.x[trapezoid, D0] = -first, -second
    return table


def dpmpp_2m(sigmas: np.ndarray) -> SolverTable:
    """DPM-Solver++(2M) (arXiv 2211.01095): D is extrapolated linearly in log sigma.

    The first step, and a last one to sigma = 0 (infinite in log sigma), are first order.
    """
    table = ddim(sigmas)
    with np.errstate(divide="ignore"):
        h = -np.diff(np.log(sigmas))
    past = np.concatenate([[0.0], np.where(np.isfinite(h[1:]), h[1:] / (2 * h[:-1]), 0.0)])
    gain = table.x[:, D0].copy()
    table.x[:, D0], table.x[:, D1] = gain * (1.0 + past), -gain * past
    return table


SOLVERS: dict[str, Solver] = {
    "ddim": Solver(1, 1, ddim),
    "heun": Solver(2, 2, heun),
    "dpmpp_2m": Solver(2, 1, dpmpp_2m),
}
ALIASES = {"euler": "ddim", "dpm_solver_1": "ddim"}


def get_solver(name: str) -> Solver:
    """The solver of that name or alias.

    Raises:
        InputError: unknown name.
    """
    require_choice("sampling.solver", name, [*SOLVERS, *ALIASES])
    return SOLVERS[ALIASES.get(name, name)]
