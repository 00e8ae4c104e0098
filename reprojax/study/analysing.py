"""The stage after the scores: each analysis of a study leaves one JSON file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from reprojax.errors import InputError, require_choice
from reprojax.runtime.files import content_hash, write_json
from reprojax.study.cells import Cell
from reprojax.study.context import Context
from reprojax.study.images import Images
from reprojax.study.models import External, NetworkModel
from reprojax.study.study import AnalysisSettings, Study

FOLDER = "analyses"


class Analysis(NamedTuple):
    """What a study must know of an analysis.

    Attributes:
        settings: The dataclass of its settings.
        measure: A function from (context, settings, identity of the scores) to plain JSON values.
        check: A function that raises InputError if a study cannot be analysed with the settings,
            before anything runs; or None.
        takes_flow_maps: Whether its cells may be flow maps.
        takes_given: Whether its cells may be models without a solver: given samples, and contrast
            models if ``check`` does not refuse them.
    """

    settings: type[AnalysisSettings]
    measure: Callable[[Context, Any, str], dict[str, Any]]
    check: Callable[[Study, Images, Any], None] | None = None
    takes_flow_maps: bool = False
    takes_given: bool = False


Analyses = Mapping[str, Analysis]


def check_analyses(study: Study, images: Images, analyses: Analyses) -> None:
    """Raises InputError where a study cannot be analysed as it asks."""
    if study.analyses and len(study.cells) < 2:
        requirement = f"need at least two models; this study has one ({study.cells[0].name!r})"
        raise InputError("analyses", None, requirement)
    for name, settings in study.analyses:
        require_choice("analyses", name, analyses)
        for cell in settings.cells:
            _check_cell(f"analyses.{name}.cells", study.cell(cell), analyses[name])
        if analyses[name].check is not None:
            analyses[name].check(study, images, settings)


def _check_cell(field: str, cell: Cell, analysis: Analysis) -> None:
    if cell.kind == "flow_map" and not analysis.takes_flow_maps:
        raise InputError(field, cell.name, "must be a denoiser; this is a flow map")
    if cell.model.samples in ("map", "arrays") and not analysis.takes_given:
        what = "a set of samples" if isinstance(cell.model, External) else "a contrast model"
        raise InputError(field, cell.name, f"must be a denoiser; this is {what}")


def networks_only(field: str, cells: list[Cell]) -> None:
    """Raises InputError unless all cells are denoising networks."""
    for cell in cells:
        if not isinstance(cell.model, NetworkModel) or cell.kind != "network":
            raise InputError(field, cell.name, "must be a denoising network")


def run_analyses(context: Context, identity: str, analyses: Analyses) -> int:
    """Runs the analyses of a scored study that are not there yet.

    Args:
        context: The study's context.
        identity: The identity of its scores.
        analyses: All analyses by name.

    Returns:
        The number of analyses that were run.
    """
    done = 0
    for name, settings in context.study.analyses:
        if read_analysis(context, name, settings, identity) is not None:
            continue
        result = analyses[name].measure(context, settings, identity)
        path = context.workdir.own(f"{FOLDER}/{name}.json")
        context.stop.require_claim()
        header = {"schema": 1, "identity": _identity(name, settings, identity)}
        write_json(path, {**header, **result})
        done += 1
    return done


def read_analyses(context: Context, identity: str) -> dict[str, dict[str, Any]]:
    """Returns the results of the study's analyses that have been run, by name."""
    pairs = context.study.analyses
    results = {name: read_analysis(context, name, s, identity) for name, s in pairs}
    return {name: result for name, result in results.items() if result is not None}


def read_analysis(
    context: Context, name: str, settings: AnalysisSettings, identity: str
) -> dict[str, Any] | None:
    """Returns the result of an analysis, or None if it is absent or of other scores."""
    try:
        result = json.loads((context.workdir.path / FOLDER / f"{name}.json").read_text())
    except FileNotFoundError:
        return None
    return result if result["identity"] == _identity(name, settings, identity) else None


def _identity(name: str, settings: AnalysisSettings, identity: str) -> str:
    return content_hash([name, asdict(settings), identity])
