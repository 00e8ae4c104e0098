"""Writes a report: figures as files, and the page that carries them."""

from __future__ import annotations

from pathlib import Path

from reprojax.report.figures import draw_figures, png_bytes
from reprojax.report.html import render_page
from reprojax.report.inputs import ReportInputs
from reprojax.runtime.files import write_bytes


def write_report(inputs: ReportInputs, out_dir: Path) -> list[Path]:
    """Writes ``figures/*.png`` and ``report/index.html`` below ``out_dir``.

    Each file is written to a temporary name and renamed, so a reader never meets half of one.

    Args:
        inputs: what to show; figures without data are left out.
        out_dir: made if it is not there.

    Returns:
        The paths written, relative to ``out_dir``.
    """
    plates = draw_figures(inputs)
    pngs = {plate.name: png_bytes(plate.figure) for plate in plates}
    files = {Path("figures", f"{name}.png"): data for name, data in pngs.items()}
    files[Path("report", "index.html")] = render_page(inputs, plates, pngs).encode()
    for path, data in files.items():
        write_bytes(Path(out_dir) / path, data)
    return list(files)
