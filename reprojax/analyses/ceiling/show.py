"""Shows the solver's own error: what a change of the sampler alone does to a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from reprojax.drawing import draw, formats
from reprojax.report.inputs import ReportInputs
from reprojax.report.tables import Table

LEADS = False
PANELS = {  # by key of a row: title, and the key of the interval
    "other_image": ("share on another training image", "other_ci95"),
    "rp": ("RP with itself", "ci95"),
    "pfd": ("PFD, grey levels of 255", None),
}

Row = Mapping[str, Any]


def figures(inputs: ReportInputs) -> list[draw.Plate]:
    """Draws what a change of the sampler alone does to each cell."""
    analysis = inputs.analyses.get("ceiling") or {}
    rows = analysis.get("rows") or []
    panels = [key for key in PANELS if any(row[key] is not None for row in rows)]
    if not panels:
        return []
    sizes = {row["cell"]: row["n_train"] for row in rows}
    cells = sorted(sizes, key=sizes.get)
    changes = list(dict.fromkeys(row["change"] for row in rows))
    height = 0.3 if len(changes) == 1 else 0.19 * len(changes) + 0.1
    fig = draw.new_figure(9.6, height * len(cells) + 1.5)
    axes = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    styles = {
        change: {"color": style["color"], "marker": style["marker"]}
        for change, style in draw.marked_styles(changes).items()
    }
    for ax, key in zip(axes, panels):
        _draw_dots(ax, rows, key, cells, styles)
    handles = [draw.dot_entry(c.replace("$", r"\$"), **{**s, "ms": 5}) for c, s in styles.items()]
    draw.top_legend(fig, handles, 3)
    caption = (
        f"The same model sampled twice from the same {formats.count(analysis['n'])} noises, with "
        "another number of steps or another range of noise levels, and its 95 % interval: what "
        "moves is the solver's own error. "
    )
    if "other_image" in panels:
        caption += (
            "Left: the share of noises that then land on another training image (lower is better); "
            "agreement with theory below RP 1 by about that much says nothing about a network. "
        )
    numbers = formats.span(sizes.values(), lambda n: formats.count(int(n)))
    caption += f"Numbers of training images: {numbers}."
    shares = [row["other_image"] for row in rows if row["other_image"] is not None]
    alt = f"Dots for {len(cells)} models and {len(changes)} changes of the sampler" + (
        f"; {formats.span(shares)} of the noises land on another image." if shares else "."
    )
    return [draw.Plate("ceiling", "The solver's own error", caption, alt, fig)]


def tables(inputs: ReportInputs) -> list[Table]:
    """Makes a table with a row for each cell and change of the sampler."""
    rows = tuple(
        (
            row["cell"],
            row["change"],
            formats.with_interval(row["other_image"], row["other_ci95"]),
            formats.with_interval(row["rp"], row["ci95"]),
            formats.distance(row["pfd"]),
        )
        for row in inputs.analyses["ceiling"]["rows"]
    )
    columns = ("model", "change", "other image", "RP", "PFD")
    return [Table("The solver's own error", columns, 2, rows)]


def _draw_dots(
    ax: Axes,
    rows: Sequence[Row],
    key: str,
    cells: Sequence[str],
    styles: Mapping[str, Mapping[str, str]],
) -> None:
    offsets = np.linspace(-0.28, 0.28, len(styles)) if len(styles) > 1 else [0.0]
    places, (title, ci95) = dict(zip(styles, offsets)), PANELS[key]
    highest = 0.0
    for row in rows:
        value, interval = row[key], row[ci95] if ci95 else None
        if value is None:
            continue
        y = cells.index(row["cell"]) + places[row["change"]]
        style = {"ms": 5, "capsize": 2, "elinewidth": 1, **styles[row["change"]]}
        ax.errorbar(value, y, xerr=draw.error_lengths(value, interval), **style)
        highest = max(highest, value, *(interval or ()))
    draw.style_axes(ax, grid="x", x=title)
    for y in np.arange(0.5, len(cells) - 1):
        ax.axhline(y, color="#eeeeee", linewidth=0.8, zorder=0)
    draw.name_rows(ax, [draw.label(cell) for cell in cells])
    if key != "pfd":
        draw.plain_ticks(ax.xaxis)
    if key == "rp":
        ax.set_xlim(right=1.01)
    else:
        ax.set_xlim(0, max(1.06 * highest, 0.02))
