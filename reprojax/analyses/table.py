"""The table of the analyses that a study can ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from reprojax.analyses.along_training import measure as along_training
from reprojax.analyses.ceiling import measure as ceiling
from reprojax.analyses.encoding import measure as encoding
from reprojax.analyses.grid import measure as grid
from reprojax.analyses.jacobian import measure as jacobian
from reprojax.analyses.local import measure as local
from reprojax.analyses.shared_solver import measure as shared_solver
from reprojax.analyses.solvers import measure as solvers
from reprojax.errors import InputError, choices, require_choice
from reprojax.study.analysing import Analysis
from reprojax.study.study import AnalysisSettings

ANALYSES: dict[str, Analysis] = {
    "grid": Analysis(
        grid.Grid, grid.analyse_grid, grid.check_grid, takes_flow_maps=True, takes_given=True
    ),
    "along_training": Analysis(
        along_training.AlongTraining,
        along_training.along_training,
        along_training.check_along_training,
    ),
    "shared_solver": Analysis(
        shared_solver.SharedSolver,
        shared_solver.shared_solver,
        shared_solver.check_shared_solver,
        takes_flow_maps=True,
        takes_given=True,
    ),
    "solvers": Analysis(solvers.SolverSweep, solvers.sweep_solvers),
    "encoding": Analysis(encoding.Encoding, encoding.encode_and_decode, encoding.check_encoding),
    "jacobian": Analysis(jacobian.JacobianRank, jacobian.jacobian_ranks),
    "local": Analysis(local.LocalScores, local.local_scores, local.check_local),
    "ceiling": Analysis(ceiling.Ceiling, ceiling.solver_errors),
}


def show_modules() -> Mapping[str, ModuleType]:
    """Imports the modules that draw each analysis; late, because matplotlib imports slowly."""
    return {name: import_module(f"{__package__}.{name}.show") for name in ANALYSES}


def make_analysis(name: str, values: Mapping[str, Any]) -> AnalysisSettings:
    """Makes the settings of an analysis and checks them.

    Args:
        name: The name of the analysis, a key of `ANALYSES`.
        values: The values of the fields of its settings.

    Raises:
        InputError: A field is unknown or out of range. The error names the field as
            ``analyses.<name>.<field>``.
    """
    require_choice("analyses", name, ANALYSES)
    settings = ANALYSES[name].settings
    names = [f.name for f in dataclasses.fields(settings)]
    for field, value in values.items():
        if field not in names:
            raise InputError(f"analyses.{name}.{field}", value, choices(names, field))
    try:
        return settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except InputError as error:
        raise error.under(f"analyses.{name}.") from error
