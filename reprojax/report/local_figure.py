"""Figures of local theory: how well patches of the training images predict a network's samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reprojax.report.formats import format_count, format_value
from reprojax.report.inputs import ReportInputs
from reprojax.report.plotting import (
    INK,
    MOST_PRINTED,
    RED,
    Plate,
    draw_matrix,
    error_lengths,
    label,
    line_styles,
    listed,
    new_figure,
    numbers,
    share_ticks,
    signed_share,
    style_axes,
)
from reprojax.report.samples_figure import samples_plate

GOLDEN = 0.6180339887  # its multiples spread points evenly without a random generator


def local_plates(inputs: ReportInputs) -> list[Plate] | None:
    """Draws r² of each model with the network, the chosen patches, and samples.

    None without such a study; the samples are a plate of their own.
    """
    found = inputs.analyses.get("local") or {}
    plates = [_scores_plate(found), _samples_plate(found)]
    return [plate for plate in plates if plate] or None


def _scores_plate(found: Mapping[str, Any]) -> Plate | None:
    models = found.get("models") or []
    radii, sigmas, r2, chosen = _calibration(found)
    if not models:
        return None
    rows = max(len(models), 0.8 * len(radii), 3)
    fig = new_figure(9.6, 0.34 * rows + 1.6)
    widths = [1.0, 1.3] if len(radii) else [1.0]
    axes = fig.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    _strips(axes[0], models)
    if len(radii):
        _patches(fig, axes[1], radii, sigmas, r2, chosen)
    told = [
        f"{m['name']} {format_value(m['r2_median'], m.get('r2_median_ci95'))}"
        for m in models
        if m.get("r2_median") is not None
    ]
    caption = (
        f"Left: squared correlation r² over the pixels of each image of {found.get('cell')} "
        f"({format_count(found.get('n_train'))} training images) and what each model makes of the "
        f"same noise, for {format_count(found.get('n'))} noises. Black: median, white diamond: "
        f"mean, with 95 % intervals. Medians: {listed(told)}."
    )
    gaps = []
    for row in found.get("differences") or ():
        low, high = map(signed_share, row["ci95"])
        gaps.append(f"{row['name']} {signed_share(row['mean'])} [{low}, {high}]")
    if gaps:
        caption += f" Mean differences, paired by noise: {listed(gaps)}."
    if len(radii):
        caption += (
            " Right: mean r² of the local denoiser with the network for each patch size and noise "
            "level; outlined is the size of least squared error, which is the one used."
        )
    alt = f"Strips of r² for {len(models)} models; medians {listed(told)}."
    return Plate("local", "What patches of the training images predict", caption, alt, fig)


def _calibration(found: Mapping[str, Any]) -> tuple[list, list, np.ndarray, list]:
    """Radii, sigmas, r² `[radius, sigma]` and chosen radii; all empty where unknown."""
    made = found.get("calibration") or {}
    radii, sigmas = made.get("radii_tried") or [], made.get("sigmas") or []
    if not radii or not sigmas or not made.get("r2"):
        return [], [], np.empty((0, 0)), []
    r2 = np.stack([numbers(row) for row in made["r2"]])
    if r2.shape == (len(sigmas), len(radii)):
        r2 = r2.T
    return radii, sigmas, r2, made.get("chosen") or []


def _strips(ax: Axes, models: Sequence[Mapping[str, Any]]) -> None:
    """A strip of points for each model, with its median and mean."""
    styles, lowest = line_styles([m["name"] for m in models]), 0.0
    for y, model in enumerate(models):
        values = numbers(model.get("values") or ())
        values = values[np.isfinite(values)]
        lowest = min(lowest, *values, 0.0)
        jitter = (np.arange(len(values)) * GOLDEN % 1 - 0.5) * 0.62
        color = styles[model["name"]]["color"]
        ax.plot(values, y + jitter, ".", color=color, ms=4, alpha=0.5, mew=0)
        for key, style in (
            ("r2_median", {"fmt": "|", "color": "black", "ms": 20, "mew": 2}),
            ("r2_mean", {"fmt": "D", "color": "black", "ms": 4, "mfc": "white"}),
        ):
            if model.get(key) is not None:
                record = {"value": model[key], "ci95": model.get(f"{key}_ci95")}
                lengths = error_lengths(record)
                ax.errorbar(model[key], y, xerr=lengths, capsize=2.5, elinewidth=1.2, **style)
    style_axes(ax, grid="x")
    share_ticks(ax)
    ax.set_xlim(left=lowest - 0.03)
    ax.set_yticks(range(len(models)), [label(m["name"]) for m in models], fontsize=8)
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("r² with the network, image by image", fontsize=8)


def _patches(
    fig: Figure,
    ax: Axes,
    radii: Sequence[int],
    sigmas: Sequence[float],
    r2: np.ndarray,
    chosen: Sequence[int],
) -> None:
    sizes = [f"{2 * r + 1}" if r is not None else "all" for r in radii]
    image = draw_matrix(
        ax, r2.clip(min=0), sizes, [f"{s:.3g}" for s in sigmas], printed=len(sigmas) <= MOST_PRINTED
    )
    places = {radius: i for i, radius in enumerate(radii)}
    known = [(j, places[r]) for j, r in enumerate(chosen) if r in places]
    for j, i in known:
        box = [
            (j - 0.46, i - 0.46),
            (j + 0.46, i - 0.46),
            (j + 0.46, i + 0.46),
            (j - 0.46, i + 0.46),
        ]
        ax.plot(*zip(*box, box[0]), color=RED, linewidth=2, solid_joinstyle="miter")
    ax.set_ylim(-0.5, len(radii) - 0.5)
    ax.set_xlabel("noise level σ", fontsize=8)
    ax.set_ylabel("patch size, pixels", fontsize=8)
    bar = fig.colorbar(image, ax=ax, ticks=[0, 0.5, 1], shrink=0.8)
    bar.ax.set_yticklabels(["≤ 0", ".5", "1"], fontsize=7.5)
    bar.outline.set_visible(False)
    bar.set_label("r²", fontsize=8)
    mark = Line2D([], [], marker="s", ms=7, mfc="none", mec=RED, mew=2, ls="", label="chosen")
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderpad": 0}
    ax.legend(handles=[mark], fontsize=7.5, frameon=False, labelcolor=INK, **place)


def _samples_plate(found: Mapping[str, Any]) -> Plate | None:
    """Rows of images from the same noises, drawn as the samples of a study are."""
    images = {n: np.asarray(v, np.uint8) for n, v in (found.get("images") or {}).items() if len(v)}
    names = {name: {} for name in images}
    plate = samples_plate(ReportInputs("", "", {"cells": names}, samples=images))
    if not plate:
        return None
    caption = (
        f"A row each: {listed(list(images))}; a column is one initial noise, the same for all. "
        f"All were made from the {format_count(found.get('n_train'))} training images of "
        f"{found.get('cell')}."
    )
    title = "The network's images and what closed forms make of the same noise"
    return replace(plate, name="local_samples", title=title, caption=caption)
