"""All figures of a report, in the order in which the page shows them."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

from reprojax.report.inputs import ReportInputs
from reprojax.report.loss_figure import loss_plate
from reprojax.report.model_figures import gl_plate
from reprojax.report.pair_figures import bars_plate, heatmap_plate
from reprojax.report.plotting import DPI, Plate
from reprojax.report.samples_figure import samples_plate


def draw_figures(inputs: ReportInputs) -> list[Plate]:
    """Draws every figure that the inputs have something for."""
    makers = (samples_plate, heatmap_plate, bars_plate, gl_plate, loss_plate)
    return [plate for make in makers if (plate := make(inputs))]


def png_bytes(figure: Figure) -> bytes:
    """Renders a figure (Agg); the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
