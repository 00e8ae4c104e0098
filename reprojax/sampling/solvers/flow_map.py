"""Samplers of flow maps (consistency models), which map every noisy image to an image."""

from __future__ import annotations

import numpy as np

from reprojax.sampling.solvers.coefficients import E0, SolverTable, empty_table


def consistency(sigmas: np.ndarray) -> SolverTable:
    """Returns the table of multistep consistency sampling (arXiv 2303.01469, algorithm 1).

    The first step is f(sigma_max z; sigma_max). Every further step adds noise of deviation
    sqrt(sigma^2 - sigma_min^2) to the image and maps it again.

    Args:
        sigmas: The noise levels `[num_steps + 1]`, falling to sigma_min, which is not evaluated.
    """
    table = empty_table(sigmas[:-1])
    table.x[:, E0] = 1.0
    table.noise[1:] = np.sqrt(np.maximum(sigmas[1:] ** 2 - sigmas[-1] ** 2, 0.0))
    return table
