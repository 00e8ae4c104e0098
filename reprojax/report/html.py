"""The report as one page that needs nothing beside itself: no network, no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import resources

from reprojax.drawing import draw
from reprojax.report.inputs import ReportInputs
from reprojax.report.summary import headline
from reprojax.report.tables import Table, score_tables
from reprojax.report.words import chance_words, threshold_words

CSS_DPI = 96  # what an inch is in CSS, so that letters are as large in every figure


def render_page(
    inputs: ReportInputs,
    plates: Sequence[draw.Plate],
    pngs: Mapping[str, bytes],
    analyses: Sequence[Table] = (),
) -> str:
    """Renders the page.

    Args:
        inputs: What the report is about.
        plates: The figures, in the order of the page.
        pngs: The image file of each figure, by the name of its plate.
        analyses: The tables of the analyses, in the order of the page.

    Returns:
        HTML with styles and images inside; every text from outside is escaped.
    """
    import jinja2

    source = resources.files("reprojax.report").joinpath("template.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
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
        headline=headline(inputs.scores),
        figures=figures,
        tables=[*score_tables(inputs.scores), *analyses],
        chance=chance_words(inputs.scores),
        thresholds=threshold_words(inputs.scores),
        noise=inputs.scores.noise,
        facts=inputs.facts,
    )
