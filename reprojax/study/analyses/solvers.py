"""How many evaluations a solver needs until it gives the image that all of them agree on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from reprojax.sampling.flow import SamplerSpec
from reprojax.sampling.solvers.adaptive import ADAPTIVE
from reprojax.sampling.solvers.table import get_solver
from reprojax.study.analyses.common import cells_named, float_samples, lazy_denoiser, study_ruler
from reprojax.study.analyses.specs import SolverSweep
from reprojax.study.stages import Context

LEVELS = {"nfe_90": 0.9, "nfe_99": 0.99}


def samplers_at(sampler: SamplerSpec, solver: str, spec: SolverSweep) -> Iterator[SamplerSpec]:
    """The sampler with another solver at each cost (or tolerance) of the sweep."""
    if solver in ADAPTIVE:
        for tolerance in spec.tolerances:
            yield replace(sampler, solver=solver, rtol=tolerance, atol=tolerance)
        return
    for steps in sorted({steps_for(sampler, solver, nfe) for nfe in spec.nfe} - {0}):
        yield with_steps(sampler, solver, steps)


def with_steps(sampler: SamplerSpec, solver: str, steps: int) -> SamplerSpec:
    """The sampler with another solver and number of steps."""
    return replace(sampler, solver=solver, grid=replace(sampler.grid, num_steps=steps))


def steps_for(sampler: SamplerSpec, solver: str, nfe: int) -> int:
    """The most steps that cost no more than ``nfe``; 0 if not even one does."""
    evaluations = get_solver(solver).evaluations
    spared = evaluations - 1 if sampler.grid.end == "zero" else 0  # the step to 0 takes one
    return (nfe + spared) // evaluations


def sweep_solvers(context: Context, spec: SolverSweep, identity: str) -> dict[str, Any]:
    """Runs the sweep; see `SolverSweep`.

    Returns:
        ``limit``, ``rows`` per (cell, solver, cost) with RP, MAE score and PFD against the limit,
        and ``reaches``: the least cost at which RP is .9 and .99.
    """
    ruler, sampler = study_ruler(context, identity), context.study.sampler
    limit = with_steps(sampler, "heun", steps_for(sampler, "heun", spec.limit_nfe))
    plans = [s for name in spec.solvers for s in samplers_at(sampler, name, spec)]
    rows, cells = [], cells_named(context, spec.cells)
    total = len(cells) * len(plans)
    with context.reporter.task("analyse solvers", total, "samplers") as advance:
        for cell in cells:
            denoiser = lazy_denoiser(context, cell)
            truth, limit_nfe = float_samples(context, cell, limit, spec.n, denoiser)
            for plan in plans:
                images, nfe = float_samples(context, cell, plan, spec.n, denoiser)
                rows.append(
                    {
                        "cell": cell.name,
                        "solver": plan.solver,
                        "stochastic": plan.stochastic,
                        "order": None if plan.adaptive else get_solver(plan.solver).order,
                        "steps": None if plan.adaptive else plan.grid.num_steps,
                        "rtol": plan.rtol if plan.adaptive else None,
                        "nfe": nfe,
                        **ruler.compare(images, truth),
                    }
                )
                advance(len(rows), total)
    return {
        "n": len(truth),
        "threshold": ruler.tau,
        "limit": {"solver": limit.solver, "nfe": limit_nfe},
        "rows": rows,
        "reaches": list(reaches(rows)),
    }


def reaches(rows: list[dict]) -> Iterator[dict[str, Any]]:
    """Per cell and solver, the least cost from which on RP stays at each level, or None."""
    for cell, solver in dict.fromkeys((row["cell"], row["solver"]) for row in rows):
        mine = [r for r in rows if (r["cell"], r["solver"]) == (cell, solver)]
        mine.sort(key=lambda r: r["nfe"])
        found = dict.fromkeys(LEVELS)
        for name, level in LEVELS.items():
            for row in reversed(mine):
                if row["rp"] < level:
                    break
                found[name] = row["nfe"]
        yield {"cell": cell, "solver": solver, **found}
