"""Fixed-step solvers of dx/dsigma = (x - D(x; sigma)) / sigma as tables of coefficients.

A solver is a function from noise levels to a table with one row per evaluation of the denoiser.
Every solver here is linear in the state x, an earlier state (the anchor) and a short history of
evaluations. One `lax.scan` runs any table, so another solver or grid of equal length does not
recompile. Levels may also rise, which leads from images to noises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from reprojax.errors import require_choice
from reprojax.sampling.solvers import flow_map, multistep, onestep, stochastic
from reprojax.sampling.solvers.coefficients import SolverTable


class Solver(NamedTuple):
    """A fixed-step solver.

    Attributes:
        order: The global order of convergence, None for a stochastic solver: the slope of log error
            over log step size on smooth problems, on any grid that ends above sigma = 0. Multistep
            methods start with a step of order 1, whose error is of order 2. So iPNDM has order 2,
            although its later steps have order 4 if they are equal. UniPC corrects the first step
            too and has order 3; "unipc_3" shows 4 if D hardly changes over the first steps (large
            sigma_max).
        evaluations: The number of denoiser calls per step.
        table: A function from noise levels `[num_steps + 1]`, monotone, to the solver's table.
        flow_map: Whether the solver samples flow maps, and not denoisers.
    """

    order: int | None
    evaluations: int
    table: Callable[[np.ndarray], SolverTable]
    flow_map: bool = False

    @property
    def stochastic(self) -> bool:
        """Whether the solver adds fresh noise."""
        return self.order is None


SOLVERS: dict[str, Solver] = {
    "ddim": Solver(1, 1, onestep.ddim),
    "heun": Solver(2, 2, onestep.heun),
    "dpm_solver_2": Solver(2, 2, onestep.dpm_solver_2),
    "dpm_solver_3": Solver(3, 3, onestep.dpm_solver_3),
    "dpmpp_2m": Solver(2, 1, multistep.dpmpp_2m),
    "dpmpp_3m": Solver(2, 1, multistep.dpmpp_3m),
    "ipndm": Solver(2, 1, multistep.ipndm),
    "unipc_2": Solver(3, 1, multistep.unipc_2),
    "unipc_3": Solver(3, 1, multistep.unipc_3),
    "ddpm": Solver(None, 1, stochastic.ddpm),
    "edm_churn": Solver(None, 2, stochastic.edm_churn),
    "consistency": Solver(None, 1, flow_map.consistency, flow_map=True),
}
ALIASES = {"euler": "ddim", "dpm_solver_1": "ddim", "ancestral": "ddpm", "unipc": "unipc_2"}


def get_solver(name: str) -> Solver:
    """Returns the solver of a name or alias.

    Raises:
        InputError: There is no solver of that name.
    """
    require_choice("sampling.solver", name, [*SOLVERS, *ALIASES])
    return SOLVERS[ALIASES.get(name, name)]
