"""Fixed-step solvers of dx/dsigma = (x - D(x; sigma)) / sigma as tables of coefficients.

A solver is a function from noise levels to a table with one row per evaluation of the denoiser.
Every solver here is linear in what it has seen: the running state x, a kept state (the anchor) and
a short history of what its evaluations gave. One `lax.scan` runs any table, so another solver or
grid of equal length does not recompile. Levels may also rise: the same tables lead back to noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from reprojax.errors import require_choice
from reprojax.sampling.solvers import flow_map, multistep, onestep, stochastic
from reprojax.sampling.solvers.coefficients import SolverTable


class Solver(NamedTuple):
    """A fixed-step solver: the global order of convergence it states, and its table.

    Args:
        order: slope of log error over log step size on smooth problems, ended above sigma = 0, on
            any grid; None where the result is random. Multistep methods start with a step of order
            1, an error of order 2 made once: iPNDM states 2, though its later steps are of order 4
            where they are equal. UniPC corrects that step too and states 3; "unipc_3" shows 4 where
            D hardly changes over the first steps (large sigma_max).
        evaluations: denoiser calls per step.
        table: from sigmas `[num_steps + 1]`, monotone, to rows.
        flow_map: whether it samples flow maps, and nothing else.
    """

    order: int | None
    evaluations: int
    table: Callable[[np.ndarray], SolverTable]
    flow_map: bool = False

    @property
    def stochastic(self) -> bool:
        """Whether noise is drawn along the way."""
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
    """The solver of that name or alias.

    Raises:
        InputError: unknown name.
    """
    require_choice("sampling.solver", name, [*SOLVERS, *ALIASES])
    return SOLVERS[ALIASES.get(name, name)]
