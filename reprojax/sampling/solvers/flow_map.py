"""Samplers of flow maps (consistency models), whose every evaluation is an image already."""

from __future__ import annotations

import numpy as np

from reprojax.sampling.solvers.coefficients import E0, SolverTable, empty_table


def consistency(sigmas: np.ndarray) -> SolverTable:
    """Multistep consistency sampling (arXiv 2303.01469, algorithm 1).

    One step is f(sigma_max z; sigma_max). Every further one puts noise of deviation
    sqrt(sigma^2 - sigma_min^2) back onto the image and maps again.

    Args:
        sigmas: `[num_steps + 1]`, falling to sigma_min, which is not evaluated.
    """
    table = empty_table(sigmas[:-1])
    table.x[:, E0] = 1.0
    table.noise[1:] = np.sqrt(np.maximum(sigmas[1:] ** 2 - sigmas[-1] ** 2, 0.0))
    return table
