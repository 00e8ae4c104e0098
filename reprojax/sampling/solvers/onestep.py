"""Tables of one-step solvers, which start each step from x alone."""

from __future__ import annotations

import numpy as np

from reprojax.sampling.solvers.coefficients import ANCHOR, E0, E1, E2, SolverTable, X, empty_table


def ddim(sigmas: np.ndarray) -> SolverTable:
    """Returns the table of DDIM (arXiv 2010.02502), which holds D constant over a step.

    It is the same as Euler's method in sigma and as DPM-Solver-1.
    """
    table = empty_table(sigmas[:-1])
    ratio = sigmas[1:] / sigmas[:-1]
    table.x[:, X], table.x[:, E0] = ratio, 1.0 - ratio
    return table


def heun(sigmas: np.ndarray) -> SolverTable:
    """Returns the table of Heun's method (arXiv 2206.00364, algorithm 1).

    Each step is an Euler step, then the trapezoidal rule with both slopes. A last step to sigma = 0
    has no second slope and remains an Euler step, so NFE is 2 num_steps - 1.
    """
    table = _stages(sigmas, lambda now, then: [now, then])
    now, then, rows = _inner(sigmas, 2)
    table.x[rows, X], table.x[rows, E0] = then / now, 1.0 - then / now
    table.anchor[rows, X] = 1.0
    first, second = (then - now) / (2 * now), (then - now) / (2 * then)
    table.x[rows + 1, ANCHOR], table.x[rows + 1, X] = 1.0 + first, second
    table.x[rows + 1, E1], table.x[rows + 1, E0] = -first, -second
    return table


def dpm_solver_2(sigmas: np.ndarray) -> SolverTable:
    """Returns the table of single-step DPM-Solver-2 (arXiv 2206.00927, algorithm 1, r_1 = 1/2).

    A step uses the slope at its middle in log sigma. A last step to 0 is DDIM's.
    """
    table = _stages(sigmas, lambda now, then: [now, np.sqrt(now * then)], keep_noise=True)
    now, then, rows = _inner(sigmas, 2)
    middle = table.sigma[rows + 1]
    table.x[rows, X], table.x[rows, E0] = 1.0, middle - now
    table.anchor[rows, X] = 1.0
    table.x[rows + 1, ANCHOR], table.x[rows + 1, E0] = 1.0, then - now
    return table


def dpm_solver_3(sigmas: np.ndarray) -> SolverTable:
    """Returns the table of single-step DPM-Solver-3 (arXiv 2206.00927, algorithm 2).

    It has r_1 = 1/3 and r_2 = 2/3. A last step to 0 is DDIM's.
    """
    third = 1.0 / 3.0

    def inside(now, then):
        return [now, now ** (2 * third) * then**third, now**third * then ** (2 * third)]

    table = _stages(sigmas, inside, keep_noise=True)
    now, then, rows = _inner(sigmas, 3)
    h = np.log(now / then)
    first, second = table.sigma[rows + 1], table.sigma[rows + 2]
    table.x[rows, X], table.x[rows, E0] = 1.0, first - now
    table.anchor[rows, X] = 1.0
    bend = -second * 2.0 * (np.expm1(2 * third * h) / (2 * third * h) - 1.0)
    table.x[rows + 1, ANCHOR] = 1.0
    table.x[rows + 1, E0], table.x[rows + 1, E1] = bend, second - now - bend
    table.anchor[rows + 1, ANCHOR] = 1.0
    bend = -then * 1.5 * (np.expm1(h) / h - 1.0)
    table.x[rows + 2, ANCHOR] = 1.0
    table.x[rows + 2, E0], table.x[rows + 2, E2] = bend, then - now - bend
    return table


def _inner(sigmas: np.ndarray, stages: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (start, end, index of the first row) of the steps that do not end at 0."""
    inner = np.flatnonzero(sigmas[1:] > 0)
    return sigmas[:-1][inner], sigmas[1:][inner], stages * inner


def _stages(sigmas: np.ndarray, levels, *, keep_noise: bool = False) -> SolverTable:
    """Returns a table with several rows per step, of which only a last step to 0 has weights.

    Args:
        sigmas: The noise levels `[num_steps + 1]`.
        levels: A function from the two ends of steps to the levels of their evaluations.
        keep_noise: See `empty_table`.
    """
    now, then, _ = _inner(sigmas, 1)
    evaluated = np.stack(levels(now, then), axis=1).ravel()
    to_zero = sigmas[-1] == 0
    table = empty_table(
        np.append(evaluated, sigmas[-2:-1] if to_zero else []), keep_noise=keep_noise
    )
    if to_zero:  # x - sigma (x - D) / sigma = D
        table.x[-1, X], table.x[-1, E0] = (1.0, -sigmas[-2]) if keep_noise else (0.0, 1.0)
    return table
