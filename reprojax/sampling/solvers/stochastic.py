"""Tables of stochastic samplers, which add fresh noise, for contrast."""

from __future__ import annotations

import math

import numpy as np

from reprojax.sampling.solvers.coefficients import E0, SolverTable, X, empty_table
from reprojax.sampling.solvers.onestep import heun

# EDM's settings for ImageNet-64 (arXiv 2206.00364, table 5).
S_CHURN, S_MIN, S_MAX, S_NOISE = 40.0, 0.05, 50.0, 1.003


def ddpm(sigmas: np.ndarray) -> SolverTable:
    """Returns the table of DDPM's ancestral sampling (arXiv 2006.11239, eqs. 6 and 7).

    In unscaled coordinates q(x_t | x_s, x0) for sigma_t < sigma_s has the mean
    x0 + (x_s - x0) sigma_t^2 / sigma_s^2 and the variance sigma_t^2 (1 - sigma_t^2 / sigma_s^2),
    the smaller of DDPM's two choices.
    """
    table = empty_table(sigmas[:-1])
    ratio = (sigmas[1:] / sigmas[:-1]) ** 2
    table.x[:, X], table.x[:, E0] = ratio, 1.0 - ratio
    table.noise[1:] = sigmas[1:] * np.sqrt(1.0 - ratio)
    return table


def edm_churn(sigmas: np.ndarray) -> SolverTable:
    """Returns the table of EDM's stochastic sampler (arXiv 2206.00364, algorithm 2).

    A step from sigma first adds noise up to (1 + gamma) sigma, with gamma = min(S_churn /
    num_steps, sqrt(2) - 1) for sigma in [S_min, S_max], and is then a Heun step.
    """
    now, then = sigmas[:-1], sigmas[1:]
    gamma = min(S_CHURN / len(now), math.sqrt(2.0) - 1.0)
    raised = np.where((now >= S_MIN) & (now <= S_MAX), (1.0 + gamma) * now, now)
    parts = [heun(np.array(ends)) for ends in zip(raised, then, strict=True)]
    table = SolverTable(*(np.concatenate([p[i] for p in parts]) for i in range(4)), np.zeros(0))
    rows = np.cumsum([0, *(len(p.sigma) for p in parts)])
    noise = np.zeros(len(table.sigma) + 1)
    noise[rows[:-1]] = S_NOISE * np.sqrt(raised**2 - now**2)
    return table._replace(noise=noise)
