"""Shows local theory: how well patches of the training images predict a network's samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reprojax.drawing import draw, formats
from reprojax.report.inputs import ReportInputs
from reprojax.report.samples_figure import samples_plate
from reprojax.report.tables import Table
from reprojax.report.words import listed
from reprojax.scoring.scores import CellRow, Scores

LEADS = False
GOLDEN = 0.6180339887  # its multiples spread points evenly without a random generator

Analysis = Mapping[str, Any]


def figures(inputs: ReportInputs) -> list[draw.Plate]:
    """Draws r² of each model with the network and the chosen patches; then samples."""
    analysis = inputs.analyses.get("local") or {}
    plates = [_scores_plate(analysis), _samples_plate(analysis)] if analysis else []
    return [plate for plate in plates if plate]


def tables(inputs: ReportInputs) -> list[Table]:
    """Makes a table of r² with the network, a row for each model."""
    analysis = inputs.analyses["local"]
    rows = tuple(
        (
            row["name"],
            analysis["cell"],
            formats.with_interval(row["r2_median"], row["r2_median_ci95"]),
            formats.with_interval(row["r2_mean"], row["r2_mean_ci95"]),
        )
        for row in analysis["models"]
    )
    return [Table("r² of each image", ("model", "with", "median", "mean"), 2, rows)]


def _scores_plate(analysis: Analysis) -> draw.Plate | None:
    models = analysis.get("models") or []
    if not models:
        return None
    calibration = analysis.get("calibration")
    rows = max(len(models), 0.8 * len(calibration["radii_tried"]) if calibration else 0, 3)
    fig = draw.new_figure(9.6, 0.34 * rows + 1.6)
    widths = [1.0, 1.3] if calibration else [1.0]
    axes = fig.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    _draw_strips(axes[0], models)
    medians = listed(
        [
            f"{m['name']} {formats.with_interval(m['r2_median'], m['r2_median_ci95'])}"
            for m in models
        ]
    )
    caption = (
        f"Left: squared correlation r² over the pixels of each image of {analysis['cell']} "
        f"({formats.count(analysis['n_train'])} training images) and what each model makes of the "
        f"same noise, for {formats.count(analysis['n'])} noises. Black: median, white diamond: "
        f"mean, with 95 % intervals. Medians: {medians}."
    )
    gaps = []
    for row in analysis["differences"]:
        low, high = map(formats.signed, row["ci95"])
        gaps.append(f"{row['name']} {formats.signed(row['mean'])} [{low}, {high}]")
    if gaps:
        caption += f" Mean differences, paired by noise: {listed(gaps)}."
    if calibration:
        _draw_patches(fig, axes[1], calibration)
        caption += (
            " Right: mean r² of the local denoiser with the network for each patch size and noise "
            "level; outlined is the size of least squared error, which is the one used."
        )
    alt = f"Strips of r² for {len(models)} models; medians {medians}."
    return draw.Plate("local", "What patches of the training images predict", caption, alt, fig)


def _draw_strips(ax: Axes, models: Sequence[Analysis]) -> None:
    """Draws a strip of points for each model, with its median and mean."""
    styles, lowest = draw.line_styles([model["name"] for model in models]), 0.0
    marks = {
        "r2_median": {"fmt": "|", "color": "black", "ms": 20, "mew": 2},
        "r2_mean": {"fmt": "D", "color": "black", "ms": 4, "mfc": "white"},
    }
    for y, model in enumerate(models):
        values = draw.numbers(model["values"])
        values = values[np.isfinite(values)]
        lowest = min(lowest, *values, 0.0)
        jitter = (np.arange(len(values)) * GOLDEN % 1 - 0.5) * 0.62
        color = styles[model["name"]]["color"]
        ax.plot(values, y + jitter, ".", color=color, ms=4, alpha=0.5, mew=0)
        for key, style in marks.items():
            lengths = draw.error_lengths(model[key], model[f"{key}_ci95"])
            ax.errorbar(model[key], y, xerr=lengths, capsize=2.5, elinewidth=1.2, **style)
    draw.style_axes(ax, grid="x", x="r² with the network, image by image")
    draw.share_ticks(ax)
    ax.set_xlim(left=lowest - 0.03)
    draw.name_rows(ax, [draw.label(model["name"]) for model in models])


def _draw_patches(fig: Figure, ax: Axes, calibration: Analysis) -> None:
    """Draws r² by patch size and noise level, and outlines the size that is used at each."""
    radii, sigmas = calibration["radii_tried"], calibration["sigmas"]
    r2 = np.stack([draw.numbers(row) for row in calibration["r2"]])
    r2 = r2.T if r2.shape == (len(sigmas), len(radii)) else r2
    sizes = [f"{2 * r + 1}" if r is not None else "all" for r in radii]
    columns = [f"{sigma:.3g}" for sigma in sigmas]
    printed = len(sigmas) <= draw.MOST_PRINTED
    image = draw.matrix(ax, r2.clip(min=0), sizes, columns, printed=printed)
    for j, radius in enumerate(calibration["chosen"]):
        if radius in radii:
            i = radii.index(radius)
            x, y = np.array([-1, 1, 1, -1, -1]), np.array([-1, -1, 1, 1, -1])
            style = {"color": draw.RED, "linewidth": 2, "solid_joinstyle": "miter"}
            ax.plot(j + 0.46 * x, i + 0.46 * y, **style)
    ax.set_ylim(-0.5, len(radii) - 0.5)
    ax.set_xlabel("noise level σ", fontsize=8)
    ax.set_ylabel("patch size, pixels", fontsize=8)
    bar = draw.share_bar(fig, image, ("≤ 0", ".5", "1"), ax=ax, shrink=0.8)
    bar.set_ylabel("r²", fontsize=8)
    mark = draw.dot_entry("chosen", marker="s", ms=7, mfc="none", mec=draw.RED, mew=2)
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderpad": 0}
    ax.legend(handles=[mark], fontsize=7.5, frameon=False, labelcolor=draw.INK, **place)


def _samples_plate(analysis: Analysis) -> draw.Plate | None:
    """Draws rows of images from the same noises, as the samples of a study are drawn."""
    images = {name: np.asarray(x, np.uint8) for name, x in (analysis.get("images") or {}).items()}
    cells = {name: CellRow(hash="", kind="network", family="") for name in images}
    plate = samples_plate(ReportInputs("", "", Scores(cells), samples=images))
    if not plate:
        return None
    caption = (
        f"A row each: {listed(list(images))}; a column is one initial noise, the same for all. "
        f"All were made from the {formats.count(analysis['n_train'])} training images of "
        f"{analysis['cell']}."
    )
    title = "The network's images and what closed forms make of the same noise"
    return replace(plate, name="local_samples", title=title, caption=caption)
