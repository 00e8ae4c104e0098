"""The figure of single models: GL, memorized share and Fréchet distance."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.lines import Line2D

from reprojax.report.formats import format_span
from reprojax.report.inputs import ReportInputs
from reprojax.report.plotting import (
    DIM,
    KIND_COLORS,
    KIND_LABELS,
    Plate,
    error_lengths,
    label,
    new_figure,
    share_ticks,
    style_axes,
)
from reprojax.report.rows import ModelRow, main_models

PANELS = (
    ("gl", "GL score", "held-out images"),
    ("memorized", "memorized share", "held-out images"),
    ("frechet", "Fréchet distance", "training images"),
)


def gl_plate(inputs: ReportInputs) -> Plate | None:
    """Draws GL, memorized share and Fréchet distance of each model; None without any of them."""
    rows = [r for r in main_models(inputs.scores) if r.gl or r.memorized or r.frechet]
    panels = [p for p in PANELS if any(getattr(row, p[0]) for row in rows)]
    if not panels:
        return None
    fig = new_figure(9.6, 0.3 * len(rows) + 1.5)
    axes = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (score, title, _) in zip(axes, panels):
        _dots(ax, rows, score)
        style_axes(ax)
        ax.set_xlabel(title, fontsize=9)
        ax.tick_params(axis="y", length=0)
        if score != "frechet":
            share_ticks(ax)
    axes[0].set_yticks(range(len(rows)), [label(row.name) for row in rows], fontsize=8)
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    marks = [
        (title, what)
        for score, title, what in panels
        if any((getattr(row, score) or {}).get("reference") is not None for row in rows)
    ]
    _dot_legend(fig, rows, bool(marks))
    caption = "Each model with its 95 % interval."
    if marks:
        told = [
            f"{what} score ({', '.join(title for title, w in marks if w == what)})"
            for what in dict.fromkeys(what for _, what in marks)
        ]
        caption += f" The black mark is the reference: what {' and what '.join(told)}."
    gl = [row.gl["value"] for row in rows if row.gl]
    alt = f"Dots for {len(rows)} models" + (f"; GL {format_span(gl)}." if gl else ".")
    return Plate("gl", "New images, copies, and distance from the data", caption, alt, fig)


def _dots(ax, rows: Sequence[ModelRow], score: str) -> None:
    for y, row in enumerate(rows):
        record = getattr(row, score)
        if record is None:
            continue
        color = KIND_COLORS.get(row.cell.get("kind"), DIM)
        lengths = error_lengths(record)
        ax.errorbar(record["value"], y, xerr=lengths, fmt="o", color=color, ms=5.5, capsize=2.5)
        if record.get("reference") is not None:
            ax.plot([record["reference"]] * 2, [y - 0.36, y + 0.36], color="black", linewidth=2)
    if score == "frechet":
        records = [row.frechet for row in rows if row.frechet]
        values = [v for r in records for v in (r["value"], r.get("reference")) if v is not None]
        if min(values) > 0 and max(values) > 20 * min(values):  # else the small ones are one dot
            ax.set_xscale("log")
        else:
            ax.set_xlim(left=0)


def _dot_legend(fig, rows: Sequence[ModelRow], reference: bool) -> None:
    kinds = list(dict.fromkeys(row.cell.get("kind") for row in rows))
    handles = [
        Line2D([], [], marker="o", linestyle="", color=KIND_COLORS[kind], label=KIND_LABELS[kind])
        for kind in kinds
        if kind in KIND_COLORS
    ]
    if reference:
        handles.append(
            Line2D([], [], marker="|", ms=11, mew=2, linestyle="", color="black", label="reference")
        )
    fig.legend(handles=handles, loc="outside upper center", ncols=6, fontsize=8, frameon=False)
