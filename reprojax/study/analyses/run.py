"""The stage after the scores: each analysis of a study leaves one JSON file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from reprojax.errors import InputError
from reprojax.runtime.files import content_hash, write_json
from reprojax.study.analyses.along_training import along_training, check_along_training
from reprojax.study.analyses.ceiling import ceilings
from reprojax.study.analyses.common import FOLDER
from reprojax.study.analyses.encoding import check_encoding, encode_and_decode
from reprojax.study.analyses.grid import analyse_grid, check_grid
from reprojax.study.analyses.jacobian import jacobian_ranks
from reprojax.study.analyses.local import check_local, local_scores
from reprojax.study.analyses.shared_solver import check_shared_solver, shared_solver
from reprojax.study.analyses.solvers import sweep_solvers
from reprojax.study.analyses.specs import AnalysisSpec
from reprojax.study.cells import Study
from reprojax.study.images import StudyImages
from reprojax.study.stages import Context

# by the keys of reprojax.study.analyses.specs.ANALYSES
RUNNERS: dict[str, Callable[[Context, Any, str], dict[str, Any]]] = {
    "solvers": sweep_solvers,
    "encoding": encode_and_decode,
    "jacobian": jacobian_ranks,
    "ceiling": ceilings,
    "local": local_scores,
    "shared_solver": shared_solver,
    "grid": analyse_grid,
    "along_training": along_training,
}


TAKES_FLOW_MAPS = ("shared_solver", "grid")  # the others solve the equation with every cell

# what only some of them must have, found out before anything runs
CHECKS: dict[str, Callable[[Study, StudyImages, Any], None]] = {
    "encoding": check_encoding,
    "local": check_local,
    "shared_solver": check_shared_solver,
    "grid": check_grid,
    "along_training": check_along_training,
}


def check_analyses(study: Study, images: StudyImages) -> None:
    """Raises InputError where a study cannot be analysed as it asks."""
    if study.analyses and len(study.cells) < 2:
        raise InputError("models", study.cells[0].name, "two models or more, to analyse them")
    flow_maps = {cell.name for cell in study.cells if cell.kind == "flow_map"}
    for name, spec in study.analyses:
        for cell in spec.cells:
            if cell in flow_maps and name not in TAKES_FLOW_MAPS:
                raise InputError(f"analyses.{name}.cells", cell, "denoisers: this is a flow map")
        if name in CHECKS:
            CHECKS[name](study, images, spec)


def run_analyses(context: Context, identity: str) -> int:
    """Runs the analyses of a scored study that are not there yet.

    Args:
        context: of the study.
        identity: of its scores.

    Returns:
        How many were run.
    """
    done = 0
    for name, spec in context.study.analyses:
        if _read(context, name, spec, identity) is not None:
            continue
        found = RUNNERS[name](context, spec, identity)
        path = context.workdir.own(f"{FOLDER}/{name}.json")
        context.stop.require_claim()
        write_json(path, {"schema": 1, "identity": _identity(name, spec, identity), **found})
        done += 1
    return done


def read_analyses(context: Context, identity: str) -> dict[str, dict[str, Any]]:
    """The analyses of a study that have been run, by name."""
    found = {name: _read(context, name, spec, identity) for name, spec in context.study.analyses}
    return {name: result for name, result in found.items() if result is not None}


def _identity(name: str, spec: AnalysisSpec, identity: str) -> str:
    return content_hash([name, asdict(spec), identity])


def _read(context: Context, name: str, spec: AnalysisSpec, identity: str) -> dict | None:
    try:
        found = json.loads((context.workdir.path / FOLDER / f"{name}.json").read_text())
    except FileNotFoundError:
        return None
    return found if found["identity"] == _identity(name, spec, identity) else None
