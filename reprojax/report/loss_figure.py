"""The figure of training: loss over images, and denoising loss over noise levels at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from reprojax.drawing import draw
from reprojax.report.inputs import ReportInputs
from reprojax.scoring.views import model_names

MOST_CURVES = 20  # about what line styles can tell apart
MOST_COLUMNS = 4
SMOOTH_ABOVE = 100  # points from which a curve is drawn as a running mean over its noise


def loss_plate(inputs: ReportInputs) -> draw.Plate | None:
    """Draws the training losses and each cell's last evaluation; None where neither is there."""
    order = [n for n in model_names(inputs.scores) if n in inputs.metrics]
    order = (order + [n for n in inputs.metrics if n not in order])[:MOST_CURVES]
    curves = {name: _curve(inputs.metrics[name]) for name in order}
    curves = {name: curve for name, curve in curves.items() if len(curve) > 1}
    last = {name: row for name in order if (row := _last_evaluation(inputs.metrics[name]))}
    if not curves and not last:
        return None
    rows = -(-len(last) // MOST_COLUMNS)
    heights = [2.9] * bool(curves) + [2.1 * rows + 0.4] * bool(last)
    fig = draw.new_figure(9.6, sum(heights))
    subfigures = list(fig.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
    if last:
        _draw_panels(subfigures.pop(), last)
    if curves:
        _draw_curves(subfigures.pop().add_subplot(), curves)
    parts = (
        ["Training loss over images seen; bold where noisy: its running mean."] if curves else []
    )
    if last:
        parts.append(
            "The panels: denoising loss at each noise level at the last evaluation. Where held-out "
            "loss lies above training loss, the model has fitted its training images in particular."
        )
    cut = f" The first {len(order)} cells." if len(inputs.metrics) > len(order) else ""
    alt = f"Loss curves of {len(order)} trained cells: {', '.join(order)}."
    return draw.Plate("loss", "Training", " ".join(parts) + cut, alt, fig)


def _curve(rows: Sequence[Mapping]) -> np.ndarray:
    """Returns the finite (images, loss) of the training rows, `[n, 2]`, sorted by images."""
    points = [(r["images"], r["loss"]) for r in rows if "images" in r and r.get("loss") is not None]
    points = np.asarray(points, float).reshape(-1, 2)
    points = points[np.isfinite(points).all(1) & (points[:, 0] > 0)]
    return points[np.argsort(points[:, 0], kind="stable")]


def _last_evaluation(rows: Sequence[Mapping]) -> Mapping | None:
    evaluations = [row for row in rows if row.get("sigma") and row.get("loss_train")]
    return max(evaluations, key=lambda row: row.get("step", 0), default=None)


def _draw_curves(ax: Axes, curves: Mapping[str, np.ndarray]) -> None:
    styles = draw.line_styles(list(curves))
    for name, points in curves.items():
        images, loss = points.T
        if len(points) > SMOOTH_ABOVE:
            ax.plot(images, loss, color=styles[name]["color"], alpha=0.18, linewidth=0.7)
            window = len(points) // (SMOOTH_ABOVE // 2)
            kernel = np.ones(window) / window
            images, loss = (np.convolve(v, kernel, mode="valid") for v in (images, loss))
        ax.plot(images, loss, linewidth=1.5, label=draw.label(name), **styles[name])
    every = np.concatenate(list(curves.values()))
    if every[:, 0].max() > 10 * every[:, 0].min():
        ax.set_xscale("log")
    if every[:, 1].min() > 0:
        ax.set_yscale("log")
    draw.style_axes(ax, x="training images seen", y="training loss")
    style = {"fontsize": 7.5, "frameon": False, "ncols": 1 if len(curves) <= 10 else 2}
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), **style)


def _draw_panels(fig: SubFigure, last: Mapping[str, Mapping]) -> None:
    """Draws a panel for each cell, all with the same axes."""
    columns = min(MOST_COLUMNS, len(last))
    rows = -(-len(last) // columns)
    axes = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax, (name, row) in zip(axes.flat, last.items()):
        _draw_levels(ax, name, row)
    for ax in axes.flat[len(last) :]:
        ax.set_axis_off()
    for ax in axes.flat[max(0, len(last) - columns) : len(last)]:
        ax.tick_params(labelbottom=True)
    fig.supxlabel("noise level σ", fontsize=8)
    fig.supylabel("denoising loss", fontsize=8)
    handles = [draw.entry("training images", color=draw.BLUE, marker="o", ms=3)]
    if any(row.get("loss_heldout") for row in last.values()):
        handles.append(
            draw.entry("held-out images", color=draw.RED, linestyle="--", marker="s", ms=3)
        )
    fig.legend(handles=handles, loc="outside upper right", ncols=2, fontsize=8, frameon=False)


def _draw_levels(ax: Axes, name: str, row: Mapping) -> None:
    for key, color, style in (("loss_train", draw.BLUE, "o-"), ("loss_heldout", draw.RED, "s--")):
        if row.get(key):
            ax.plot(row["sigma"], row[key], style, color=color, linewidth=1.4, ms=2.5)
    ax.set_xscale("log")
    values = [*row["loss_train"], *(row.get("loss_heldout") or ())]
    if min(values) > 0:
        ax.set_yscale("log")
    draw.style_axes(ax)
    ax.tick_params(which="both", labelsize=7)
    ax.set_title(draw.label(name), fontsize=7.5)
