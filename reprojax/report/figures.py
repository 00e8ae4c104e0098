"""All figures of a report, in the order in which the page shows them."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

from reprojax.report.ceiling_figure import ceiling_plate
from reprojax.report.curve_figure import curve_plate
from reprojax.report.encoding_figure import encoding_plate
from reprojax.report.family_figure import families_plates
from reprojax.report.grid_figure import grid_plates
from reprojax.report.inputs import ReportInputs
from reprojax.report.jacobian_figure import jacobian_plate
from reprojax.report.local_figure import local_plates
from reprojax.report.loss_figure import loss_plate
from reprojax.report.model_figures import gl_plate
from reprojax.report.pair_figures import bars_plate, heatmap_plate
from reprojax.report.plotting import DPI, Plate
from reprojax.report.samples_figure import samples_plate
from reprojax.report.solver_figure import solver_plate
from reprojax.report.theory_figure import theory_plate
from reprojax.report.training_figure import training_plates
from reprojax.report.transport_figure import transport_plate

MAKERS = (
    samples_plate,
    grid_plates,
    training_plates,
    theory_plate,
    families_plates,
    heatmap_plate,
    bars_plate,
    curve_plate,
    gl_plate,
    transport_plate,
    solver_plate,
    encoding_plate,
    jacobian_plate,
    local_plates,
    ceiling_plate,
    loss_plate,
)


def draw_figures(inputs: ReportInputs) -> list[Plate]:
    """Draws every figure that the inputs have something for."""
    plates: list[Plate] = []
    for make in MAKERS:
        made = make(inputs) or []
        plates += [made] if isinstance(made, Plate) else made
    return plates


def png_bytes(figure: Figure) -> bytes:
    """Renders a figure (Agg); the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
