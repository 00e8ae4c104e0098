"""Measures how many evaluations each solver needs to reach the limit of many steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from reprojax.analyses.common import float_samples, lazy_denoiser, progress, study_ruler
from reprojax.errors import require_choice, require_number
from reprojax.sampling.flow import SamplerSpec
from reprojax.sampling.solvers.adaptive import ADAPTIVE
from reprojax.sampling.solvers.table import ALIASES, SOLVERS, get_solver
from reprojax.study.context import Context
from reprojax.study.study import AnalysisSettings

LEVELS = {"nfe_90": 0.9, "nfe_99": 0.99}

DENOISER_SOLVERS = tuple(name for name, solver in SOLVERS.items() if not solver.flow_map)


@dataclass(frozen=True)
class SolverSweep(AnalysisSettings):
    """Settings for every solver at every cost, against the limit that all solvers share.

    Attributes:
        solvers: The names of the solvers; stochastic ones have another limit.
        nfe: The costs, in evaluations per image. Each solver takes the most steps that cost no
            more.
        limit_nfe: The cost of the limit, which is computed with Heun steps.
        tolerances: The values of rtol and atol for adaptive solvers, in place of costs.
    """

    solvers: tuple[str, ...] = DENOISER_SOLVERS
    nfe: tuple[int, ...] = (6, 10, 14, 20, 30, 50, 100)
    limit_nfe: int = 1000
    tolerances: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4)

    def __post_init__(self):
        super().__post_init__()
        for name in self.solvers:
            require_choice("solvers", name, [*DENOISER_SOLVERS, *ALIASES, *ADAPTIVE])
        for nfe in self.nfe:
            require_number("nfe", nfe, at_least=1)
        require_number("limit_nfe", self.limit_nfe, at_least=2)  # a Heun step
        for tolerance in self.tolerances:
            require_number("tolerances", tolerance, above=0)


def samplers_at(sampler: SamplerSpec, solver: str, settings: SolverSweep) -> Iterator[SamplerSpec]:
    """Yields the sampler with another solver, at each cost (or tolerance) of the sweep."""
    if solver in ADAPTIVE:
        for tolerance in settings.tolerances:
            yield replace(sampler, solver=solver, rtol=tolerance, atol=tolerance)
        return
    for steps in sorted({steps_for(sampler, solver, nfe) for nfe in settings.nfe} - {0}):
        yield sampler.with_solver(solver, steps)


def steps_for(sampler: SamplerSpec, solver: str, nfe: int) -> int:
    """Returns the largest number of steps that cost at most ``nfe``, 0 if one costs more."""
    evaluations = get_solver(solver).evaluations
    # The step to 0 takes one evaluation whatever the solver.
    spared = evaluations - 1 if sampler.grid.end == "zero" else 0
    return (nfe + spared) // evaluations


def sweep_solvers(context: Context, settings: SolverSweep, identity: str) -> dict[str, Any]:
    """Samples with every solver at every cost and compares with the limit.

    Returns:
        ``limit``, ``rows`` per (cell, solver, cost) with RP, MAE score and PFD against the limit,
        and ``reaches``: the lowest cost from which on RP is at least .9 and .99.
    """
    ruler, sampler = study_ruler(context, identity), context.study.sampler
    limit = sampler.with_solver("heun", steps_for(sampler, "heun", settings.limit_nfe))
    plans = [s for name in settings.solvers for s in samplers_at(sampler, name, settings)]
    rows, cells = [], context.cells_named(settings.cells)
    with progress(context, "solvers", len(cells) * len(plans), "samplers") as step:
        for cell in cells:
            denoiser = lazy_denoiser(context, cell)
            truth, limit_nfe = float_samples(context, cell, limit, settings.n, denoiser)
            for plan in plans:
                images, nfe = float_samples(context, cell, plan, settings.n, denoiser)
                rows.append(
                    {
                        "cell": cell.name,
                        "solver": plan.solver,
                        "stochastic": plan.stochastic,
                        "order": None if plan.adaptive else get_solver(plan.solver).order,
                        "steps": None if plan.adaptive else plan.grid.num_steps,
                        "rtol": plan.rtol if plan.adaptive else None,
                        "nfe": nfe,
                        **ruler.compare(images, truth, context.conditions(cell)),
                    }
                )
                step()
    return {
        "n": len(truth),
        "threshold": ruler.tau,
        "limit": {"solver": limit.solver, "nfe": limit_nfe},
        "rows": rows,
        "reaches": list(reaches(rows)),
    }


def reaches(rows: list[dict]) -> Iterator[dict[str, Any]]:
    """Yields the lowest cost from which on RP stays at each level, per cell and solver.

    A level that RP does not reach at the highest cost has None.
    """
    for cell, solver in dict.fromkeys((row["cell"], row["solver"]) for row in rows):
        curve = [row for row in rows if (row["cell"], row["solver"]) == (cell, solver)]
        curve.sort(key=lambda row: row["nfe"])
        costs = dict.fromkeys(LEVELS)
        for name, level in LEVELS.items():
            for row in reversed(curve):
                if row["rp"] < level:
                    break
                costs[name] = row["nfe"]
        yield {"cell": cell, "solver": solver, **costs}
