"""Writes a report: figures as files, and the page that carries them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reprojax.report.figures import NO_SHOWS, draw_figures, png_bytes
from reprojax.report.html import render_page
from reprojax.report.inputs import ReportInputs, Shows
from reprojax.report.tables import analysis_tables
from reprojax.runtime.files import write_bytes


def write_report(
    inputs: ReportInputs, out_dir: Path, shows: Mapping[str, Shows] = NO_SHOWS
) -> list[Path]:
    """Writes ``figures/*.png`` and ``report/index.html`` below ``out_dir``.

    Each file is written under a temporary name and renamed, so that no reader meets half of one.

    Args:
        inputs: What to show; figures without data are left out.
        out_dir: The folder, which is made if it does not exist.
        shows: The module that shows each analysis, by the name of the analysis.

    Returns:
        The paths of the files, relative to ``out_dir``.
    """
    plates = draw_figures(inputs, shows)
    pngs = {plate.name: png_bytes(plate.figure) for plate in plates}
    files = {Path("figures", f"{name}.png"): data for name, data in pngs.items()}
    page = render_page(inputs, plates, pngs, analysis_tables(inputs, shows))
    files[Path("report", "index.html")] = page.encode()
    for path, data in files.items():
        write_bytes(Path(out_dir) / path, data)
    return list(files)
