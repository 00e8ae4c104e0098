"""The report as one page that needs nothing beside itself: no network, no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import resources

from reprojax.report.analysis_tables import analysis_tables
from reprojax.report.inputs import ReportInputs
from reprojax.report.plotting import Plate
from reprojax.report.rows import PAIR_KINDS, pair_rows, thresholds
from reprojax.report.summary import headline
from reprojax.report.tables import MODEL_COLUMNS, PAIR_COLUMNS, model_cells, pair_cells

CSS_DPI = 96  # what an inch is in CSS, so that letters are as large in every figure
SCORE_NAMES = {"rp": "RP", "mae": "MAE score", "gl": "GL", "memorized": "memorized"}


def render_page(inputs: ReportInputs, plates: Sequence[Plate], pngs: Mapping[str, bytes]) -> str:
    """Renders the page.

    Args:
        inputs: what the report is about.
        plates: the figures to show, in this order.
        pngs: the image file of each plate, by the plate's name.

    Returns:
        HTML with styles and images inside; every text from outside is escaped.
    """
    import jinja2

    source = resources.files("reprojax.report").joinpath("template.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    scores = inputs.scores
    figures = [
        {
            "plate": plate,
            "width": round(plate.figure.get_figwidth() * CSS_DPI),
            "data": base64.b64encode(pngs[plate.name]).decode(),
        }
        for plate in plates
    ]
    return environment.from_string(source).render(
        title=inputs.title,
        command=inputs.command,
        headline=headline(scores),
        figures=figures,
        model_columns=MODEL_COLUMNS,
        models=model_cells(scores),
        pair_columns=PAIR_COLUMNS,
        pairs=[
            (PAIR_KINDS[row.kind], cells)
            for row, cells in zip(pair_rows(scores), pair_cells(scores), strict=True)
        ],
        thresholds=[
            (SCORE_NAMES.get(score, score), descriptor, _threshold(score, value))
            for score, descriptor, value in thresholds(scores)
        ],
        analyses=list(analysis_tables(inputs.analyses)),
        noise=scores.get("noise"),
        facts=inputs.facts,
    )


def _threshold(score: str, value: float) -> str:
    """A threshold on its own scale: grey levels, a ratio of distances, or a cosine."""
    return f"{value:g} of 255" if score == "mae" else f"{value:.3g}".removeprefix("0")
