"""Figures of pairs: the heat map of RP and MAE score, and RP with intervals and chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reprojax.report.formats import format_bound, format_share, format_span
from reprojax.report.inputs import ReportInputs
from reprojax.report.plotting import (
    BLUE,
    DIM,
    GREEN,
    INK,
    MOST_PRINTED,
    ORANGE,
    PURPLE,
    SKY,
    Plate,
    draw_matrix,
    error_lengths,
    label,
    new_figure,
    share_bar,
    share_ticks,
    style_axes,
)
from reprojax.report.rows import PAIR_KINDS, PairRow, main_pairs, model_names, pair_rows

PAIR_COLORS = {
    "networks": BLUE,
    "data": PURPLE,
    "sampler": SKY,
    "ceiling": GREEN,
    "contrast": DIM,
    "closed": ORANGE,
}
MOST_BARS, FIRST_BARS = 60, 40  # of more pairs than that, so many are drawn
MOST_LARGE = 24  # models up to which a heat map has room for letters of the usual size


def heatmap_plate(inputs: ReportInputs) -> Plate | None:
    """Draws RP of all pairs above the diagonal and MAE score below; None without pairs."""
    rows, scores = pair_rows(inputs.scores), inputs.scores
    main = {(row.a, row.b): row for row in [*rows, *main_pairs(scores)]}  # main descriptor wins
    paired = {name for pair in main for name in pair}
    names = [name for name in model_names(scores) if name in paired]
    if len(names) < 2:
        return None
    values = np.full((len(names), len(names)), np.nan)
    for (a, b), row in main.items():
        if a in names and b in names:
            i, j = sorted((names.index(a), names.index(b)))
            values[i, j] = row.rp["value"] if row.rp else np.nan
            values[j, i] = row.mae["value"] if row.mae else np.nan
    fig = _heatmap(names, values)
    rp = [row.rp for row in main.values() if row.rp]
    mae = [row.mae for row in main.values() if row.mae]
    chance = [
        f"at most {format_bound(max(r['chance'] for r in records))} for {what}"
        for what, records in (("RP", rp), ("MAE score", mae))
        if records
    ]
    caption = (
        "Share of noises that two models turn into the same image: RP above the diagonal, MAE "
        f"score below. Between samples of different noises it is (chance): {', '.join(chance)}."
    )
    alt = f"Heat map over {len(names)} models; RP {format_span(r['value'] for r in rp)}."
    return Plate("rp_heatmap", "Reproducibility of each pair", caption, alt, fig)


def _heatmap(names: list[str], values: np.ndarray):
    n = len(names)
    side = 0.56 * n + 2.4 if n <= MOST_PRINTED else 0.26 * n + 4.2
    side = min(12.0, max(3.6, side))
    fig = new_figure(side + 0.6, side if n <= MOST_PRINTED else side - 0.4)
    ax = fig.add_subplot()
    labels = [label(name) for name in names]
    image = draw_matrix(ax, values, labels, labels)
    ax.set_aspect("equal")
    ax.set_title("above the diagonal: RP; below: MAE score", fontsize=9, color=INK)
    if n > MOST_LARGE:
        ax.tick_params(labelsize=6)
    share_bar(fig, image, ax)
    return fig


def bars_plate(inputs: ReportInputs) -> Plate | None:
    """Draws RP of each pair with its interval and its chance; None without RP scores."""
    rows = main_pairs(inputs.scores)
    if not rows:
        return None
    shown = rows if len(rows) <= MOST_BARS else rows[:FIRST_BARS]
    fig = new_figure(9.0, 0.27 * len(shown) + 1.2)
    ax = fig.add_subplot()
    for y, row in enumerate(shown):
        _bar(ax, y, row.rp, row.kind)
    ax.set_yticks(range(len(shown)), [f"{label(r.a)}  ×  {label(r.b)}" for r in shown], fontsize=8)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    style_axes(ax, grid="x")
    share_ticks(ax)
    ax.set_xlim(-0.01, 1.12)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("RP score", fontsize=9)
    _legend(fig, shown)
    cut = ""
    if len(rows) > len(shown):
        cut = (
            f" Of {len(rows)} pairs the first {len(shown)} are drawn, trained models before "
            "closed forms and the highest RP first; the table has them all."
        )
    caption = (
        "RP of each pair with its 95 % interval. The black tick is the chance floor: the same "
        f"score between samples of different noises.{cut}"
    )
    if any(row.kind == "ceiling" for row in shown):
        caption += " Two seeds of one model (hatched) are the ceiling to read the others against."
    spans = [
        f"{PAIR_KINDS[kind]} {format_span(r.rp['value'] for r in shown if r.kind == kind)}"
        for kind in dict.fromkeys(row.kind for row in shown)
    ]
    alt = f"Bars of RP for {len(shown)} pairs: {'; '.join(spans)}."
    return Plate("rp_bars", "Reproducibility against its floor and ceiling", caption, alt, fig)


def _bar(ax, y: int, record: Mapping[str, Any], kind: str) -> None:
    style = {"hatch": "////", "edgecolor": "white", "linewidth": 0} if kind == "ceiling" else {}
    ax.barh(y, record["value"], height=0.66, color=PAIR_COLORS[kind], **style)
    ax.errorbar(record["value"], y, xerr=error_lengths(record), color=INK, capsize=2.5, linewidth=1)
    ax.plot([record["chance"]] * 2, [y - 0.42, y + 0.42], color="black", linewidth=2)
    end = max(record["value"], (record.get("ci95") or [0, 0])[1], record["chance"])
    ax.text(end + 0.012, y, format_share(record["value"]), va="center", fontsize=7.5, color=INK)


def _legend(fig, rows: list[PairRow]) -> None:
    kinds = [kind for kind in PAIR_KINDS if any(row.kind == kind for row in rows)]
    handles = [
        Patch(
            facecolor=PAIR_COLORS[kind],
            edgecolor="white",
            hatch="////" if kind == "ceiling" else None,
            label=PAIR_KINDS[kind],
        )
        for kind in kinds
    ]
    handles.append(Line2D([], [], color="black", linewidth=2, label="chance"))
    fig.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
