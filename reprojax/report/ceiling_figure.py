"""The figure of the solver's ceiling: what RP can be at most when the sampler alone changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reprojax.report.formats import format_count, format_span
from reprojax.report.inputs import ReportInputs
from reprojax.report.plotting import (
    Plate,
    label,
    marked_styles,
    new_figure,
    plain_ticks,
    style_axes,
)

PANELS = {
    "other_image": "share on another training image",
    "rp": "RP with itself",
    "pfd": "PFD, grey levels of 255",
}
INTERVALS = {"other_image": "other_ci95", "rp": "ci95"}


def ceiling_plate(inputs: ReportInputs) -> Plate | None:
    """Draws what a change of the sampler alone does to each cell; None where it is unknown."""
    found = inputs.analyses.get("ceiling") or {}
    rows = found.get("rows") or []
    panels = [key for key in PANELS if any(row.get(key) is not None for row in rows)]
    if not panels:
        return None
    sizes = {row["cell"]: row.get("n_train") or 0 for row in rows}
    cells = sorted(sizes, key=sizes.get)
    changes = list(dict.fromkeys(row["change"] for row in rows))
    spread = 0.3 if len(changes) == 1 else 0.19 * len(changes) + 0.1
    fig = new_figure(9.6, spread * len(cells) + 1.5)
    axes = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    styles = {
        change: {k: v for k, v in style.items() if k != "linestyle"}
        for change, style in marked_styles(changes).items()
    }
    for ax, key in zip(axes, panels):
        _dots(ax, rows, key, cells, styles)
    axes[0].set_yticks(range(len(cells)), [label(cell) for cell in cells], fontsize=8)
    axes[0].set_ylim(len(cells) - 0.4, -0.6)
    handles = [
        Line2D([], [], linestyle="", ms=5, label=c.replace("$", r"\$"), **s)
        for c, s in styles.items()
    ]
    fig.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    caption = (
        f"The same model sampled twice from the same {format_count(found.get('n'))} noises, with "
        "another number of steps or another range of noise levels, and its 95 % interval. "
    )
    if "other_image" in panels:
        caption += (
            "Left: the share of noises that then land on another training image (lower is better); "
            "what it leaves is about the highest RP with theory to hope for. "
        )
    caption += f"Numbers of training images: {format_span(sizes.values(), _count)}."
    shares = [row["other_image"] for row in rows if row.get("other_image") is not None]
    alt = f"Dots for {len(cells)} models and {len(changes)} changes of the sampler" + (
        f"; {format_span(shares)} of the noises land on another image." if shares else "."
    )
    return Plate("ceiling", "The sampler's own ceiling", caption, alt, fig)


def _count(value: float) -> str:
    return format_count(int(value))


def _dots(
    ax: Axes,
    rows: Sequence[Mapping[str, Any]],
    key: str,
    cells: Sequence[str],
    styles: Mapping[str, Mapping[str, str]],
) -> None:
    offsets = np.linspace(-0.28, 0.28, len(styles)) if len(styles) > 1 else [0.0]
    places = dict(zip(styles, offsets))
    highest = 0.0
    for row in rows:
        value = row.get(key)
        if value is None:
            continue
        y = cells.index(row["cell"]) + places[row["change"]]
        low, high = row.get(INTERVALS.get(key, "")) or (value, value)
        lengths = [[max(value - low, 0.0)], [max(high - value, 0.0)]]
        ax.errorbar(value, y, xerr=lengths, ms=5, capsize=2, elinewidth=1, **styles[row["change"]])
        highest = max(highest, high, value)
    style_axes(ax)
    ax.grid(axis="y", visible=False)
    for y in np.arange(0.5, len(cells) - 1):
        ax.axhline(y, color="#eeeeee", linewidth=0.8, zorder=0)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(PANELS[key], fontsize=8)
    if key != "pfd":
        plain_ticks(ax.xaxis)
    if key == "rp":
        ax.set_xlim(right=1.01)
    else:
        ax.set_xlim(0, max(1.06 * highest, 0.02))
