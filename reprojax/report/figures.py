"""All figures of a report, in the order in which the page shows them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType

from matplotlib.figure import Figure

from reprojax.drawing import draw
from reprojax.report.curve_figure import curve_plate
from reprojax.report.inputs import ReportInputs, Shows
from reprojax.report.loss_figure import loss_plate
from reprojax.report.model_figures import gl_plate
from reprojax.report.pair_figures import bars_plate, heatmap_plate
from reprojax.report.samples_figure import samples_plate
from reprojax.report.theory_figure import theory_plate
from reprojax.report.transport_figure import transport_plate

GENERAL = (theory_plate, heatmap_plate, bars_plate, curve_plate, gl_plate, transport_plate)
NO_SHOWS: Mapping[str, Shows] = MappingProxyType({})


def draw_figures(inputs: ReportInputs, shows: Mapping[str, Shows] = NO_SHOWS) -> list[draw.Plate]:
    """Draws every figure that the inputs have something for.

    Args:
        inputs: What to show.
        shows: The module that shows each analysis, by the name of the analysis.
    """
    with_results = [show for name, show in shows.items() if inputs.analyses.get(name)]
    leading = [p for show in with_results if show.LEADS for p in show.figures(inputs)]
    others = [p for show in with_results if not show.LEADS for p in show.figures(inputs)]
    general = [make(inputs) for make in GENERAL]
    plates = [samples_plate(inputs), *leading, *general, *others, loss_plate(inputs)]
    return [plate for plate in plates if plate]


def png_bytes(figure: Figure) -> bytes:
    """Renders a figure (Agg); the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=draw.DPI, metadata={"Software": None})
    return buffer.getvalue()
