"""The figure of optimal transport: how near a model's map comes to the cheapest pairing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reprojax.report.formats import format_distance, format_span
from reprojax.report.inputs import ReportInputs
from reprojax.report.plotting import (
    DIM,
    INK,
    KIND_COLORS,
    KIND_LABELS,
    Plate,
    label,
    new_figure,
    plain_ticks,
    sampling_words,
    signed_share,
    style_axes,
)
from reprojax.report.rows import model_names


def transport_plate(inputs: ReportInputs) -> Plate | None:
    """Draws each model's place between random and optimal pairing; None where it is unknown."""
    scores = inputs.scores
    order = {name: i for i, name in enumerate(model_names(scores))}
    rows = [row for row in scores.get("transport") or () if row.get("recovered") is not None]
    rows.sort(key=lambda row: order.get(row["name"], len(order)))
    if not rows:
        return None
    kinds = {n: cell.get("kind") for n, cell in scores.get("cells", {}).items()}
    fig = new_figure(7.6, 0.3 * len(rows) + 1.4)
    ax = fig.add_subplot()
    _dots(ax, rows, kinds)
    shown = [k for k in KIND_LABELS if k in {kinds.get(row["name"]) for row in rows}]
    handles = [
        Line2D([], [], marker="o", linestyle="", color=KIND_COLORS[k], label=KIND_LABELS[k])
        for k in shown
    ]
    if any(row.get("matched") is not None for row in rows):
        style = {"color": INK, "markerfacecolor": "white", "label": "noises paired alike"}
        handles.append(Line2D([], [], marker="D", ms=4, linestyle="", **style))
    if len(handles) > 1:
        fig.legend(handles=handles, loc="outside upper center", ncols=5, fontsize=8, frameon=False)
    values = [row["recovered"] for row in rows]
    costs = [
        f"{name} {format_span([row[key] for row in rows], format_distance)}"
        for key, name in (("cost", "of the model"), ("optimal", "optimal"), ("random", "random"))
        if all(row.get(key) is not None for row in rows)
    ]
    caption = (
        "How much of the saving of optimal transport a model's pairing of noises with its own "
        "images recovers: 1 is the pairing of least squared distance, 0 a random one"
        f" ({sampling_words(scores, max(row.get('n') or 0 for row in rows))})."
    )
    if any(row.get("matched") is not None for row in rows):
        caption += " Diamonds: the share of noises that the optimal pairing gives the same image."
    if costs:
        caption += f" Mean squared distance per pixel: {', '.join(costs)}."
    span = format_span(values, signed_share)
    alt = f"Dots for {len(rows)} models; share of the saving recovered {span}."
    return Plate("transport", "Distance from optimal transport", caption, alt, fig)


def _dots(ax: Axes, rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> None:
    values = [row["recovered"] for row in rows]
    for x in (0, 1):
        ax.axvline(x, color=DIM, linewidth=1, linestyle=":")
    low, high = min(0.0, *values), max(1.0, *values)
    room = 0.03 * (high - low)
    for y, (row, x) in enumerate(zip(rows, values)):
        color = KIND_COLORS.get(kinds.get(row["name"]), DIM)
        ax.plot([0, x], [y, y], color=color, linewidth=1.2, alpha=0.5)
        ax.plot(x, y, "o", color=color, ms=6)
        if (share := row.get("matched")) is not None:
            ax.plot(share, y, "D", color=color, mfc="white", ms=4, zorder=1.9)
        ax.annotate(
            signed_share(x) if abs(x) >= 0.005 else ".00",
            (1.0, y),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="center",
            fontsize=8,
            color=INK,
        )
    style_axes(ax, grid="x")
    ax.set_xlim(low - room, high + 4 * room)
    plain_ticks(ax.xaxis)
    ax.set_yticks(range(len(rows)), [label(row["name"]) for row in rows], fontsize=8)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("recovered: 0 random pairing, 1 optimal transport", fontsize=9)
