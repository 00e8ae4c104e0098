"""The figures of scores along training, and of when networks get good and when they memorize."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D

from reprojax.report.formats import format_count, format_share
from reprojax.report.grid_figure import log_ticks, log_values, size_color, size_handles
from reprojax.report.grid_tables import group_name, slope_words
from reprojax.report.inputs import ReportInputs
from reprojax.report.plotting import (
    DIM,
    GREEN,
    INK,
    RED,
    Plate,
    draw_intervals,
    label,
    listed,
    new_figure,
    rows_legend,
    size_ticks,
    style_axes,
)

MOST_ROWS = 3  # capacities beneath each other
MOST_COLUMNS = 9  # of the legend
COLUMNS = {
    "memorized": "memorized",
    "gl": "GL",
    "optimum": "RP with the optimum",
    "frechet": "Fréchet distance",
}
PAIRS = {"capacity": "two capacities", "seed": "two seeds"}
TIMES = {"t_gen": ("good", GREEN, "o"), "t_mem": ("memorizes", RED, "s")}

Found = Mapping[str, Any]


def training_plates(inputs: ReportInputs) -> list[Plate]:
    """Draws scores over steps, and times over N; none without the analysis."""
    found = inputs.analyses.get("along_training") or {}
    if not found.get("cells"):
        return []
    plates = [_scores_plate(found), _times_plate(found)]
    return [plate for plate in plates if plate]


def _shown(found: Found) -> list[Found]:
    """Groups of networks that differ in N alone, those with the most sizes first, in order."""
    most = sorted(found["groups"], key=lambda g: -len(g["names"]))[:MOST_ROWS]
    return [group for group in found["groups"] if group in most]


def _named(group: Found, groups: Sequence[Found]) -> str:
    return label(group_name(group, groups))


def _scores_plate(found: Found) -> Plate:
    groups, cells = _shown(found), {cell["name"]: cell for cell in found["cells"]}
    sizes = sorted({cell["n_train"] for cell in found["cells"]})
    pairs = {k: [p for p in found["pairs"] if p["differ"] == k] for k in PAIRS}
    pairs = {k: rows for k, rows in pairs.items() if rows}
    heights = [2.2 * len(groups) + 0.2] + ([2.5] if pairs else [])
    fig = new_figure(9.6, sum(heights) + 0.5)
    parts = fig.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_groups(parts[0], groups, cells, sizes)
    if pairs:
        _draw_pairs(parts[1], pairs, sizes)
    handles = [*size_handles(sizes), Line2D([], [], color=DIM, ls=":", lw=1.2, label="chance")]
    rows_legend(fig, handles, MOST_COLUMNS)
    names = listed([_named(group, groups) for group in groups])
    caption = (
        f"Scores of {names} at log-spaced steps of training, on {format_count(found['n'])} noises, "
        "a colour for each number of training images. Memorized: nearer to one training image "
        "than to a third of the distance to the next. RP with the optimum of the same images. The "
        "Fréchet distance is that to held-out images."
    )
    if pairs:
        caption += (
            " Beneath: RP between two networks of the same images at the same step; thin bars are "
            "95 % intervals."
        )
    alt = f"Curves over training steps for {names}, N = {listed([format_count(n) for n in sizes])}."
    return Plate("training", "Along training", caption, alt, fig)


def _draw_groups(
    fig: SubFigure, groups: Sequence[Found], cells: Mapping[str, Found], sizes: Sequence[int]
) -> None:
    rows = [row for g in groups for name in g["names"] for row in cells[name]["rows"]]
    columns = [key for key in COLUMNS if any(row.get(key) for row in rows)]
    axes = fig.subplots(len(groups), len(columns), squeeze=False, sharex=True, sharey="col")
    for line, group in zip(axes, groups):
        for ax, key in zip(line, columns):
            for name in group["names"]:
                color = size_color(cells[name]["n_train"], sizes)
                _curve(ax, [(r["step"], r.get(key)) for r in cells[name]["rows"]], color)
            _axes(ax, [row["step"] for row in rows], share=key != "frechet")
        line[0].set_ylabel(_named(group, groups), fontsize=8)
    for ax, key in zip(axes[0], columns):
        ax.set_title(COLUMNS[key], fontsize=9, color=INK)
    fig.supxlabel("training steps", fontsize=8)


def _draw_pairs(fig: SubFigure, pairs: Mapping[str, list[Found]], sizes: Sequence[int]) -> None:
    axes = fig.subplots(1, len(pairs), squeeze=False, sharey=True)[0]
    for ax, (kind, found) in zip(axes, pairs.items()):
        for pair in found:
            color = size_color(pair["n_train"], sizes)
            _curve(ax, [(r["step"], {**r, "value": r["rp"]}) for r in pair["rows"]], color)
        _axes(ax, [row["step"] for pair in found for row in pair["rows"]], share=True)
        ax.set_title(f"RP between {PAIRS[kind]}", fontsize=9, color=INK)
        ax.set_xlabel("training steps", fontsize=8)


def _curve(ax: Axes, points: Sequence[tuple[int, Found | None]], color: Any) -> None:
    known = [(step, r) for step, r in points if r]
    values = [r["value"] if "value" in r else r["rp"] for _, r in known]
    style = {"color": color, "lw": 1.2, "ms": 2.5, "marker": "o", "elinewidth": 0.6}
    draw_intervals(ax, [s for s, _ in known], values, [r["ci95"] for _, r in known], **style)
    if known and known[0][1].get("chance") is not None:
        chance = [r["chance"] for _, r in known]
        ax.plot([s for s, _ in known], chance, ":", color=color, linewidth=0.8, alpha=0.7)


def _axes(ax: Axes, steps: Sequence[int], *, share: bool) -> None:
    log_ticks(ax, steps)
    style_axes(ax)
    ax.tick_params(which="both", labelsize=7)
    if share:
        ax.set_ylim(-0.04, 1.04)
    else:
        ax.set_yscale("log")
        log_values(ax.yaxis, (1, 1.5, 2, 3, 5, 7))


def _times_plate(found: Found) -> Plate | None:
    """When networks get good and when they memorize over N, with fitted powers."""
    groups = [group for group in _shown(found) if len(group["names"]) > 1]
    if not groups:
        return None
    cells = {cell["name"]: cell for cell in found["cells"]}
    fig = new_figure(min(9.6, max(5.0, 3.2 * len(groups))), 3.4)
    fig.get_layout_engine().set(wspace=0.07)  # labels at the ends reach into the gap
    axes = fig.subplots(1, len(groups), squeeze=False, sharey=True)[0]
    last = max(cell["rows"][-1]["step"] for cell in found["cells"])
    for ax, group in zip(axes, groups):
        own = [cells[name] for name in group["names"]]
        ax.set_yscale("log")
        log_values(ax.yaxis, (1, 2, 5))
        ax.axhline(last, color=DIM, linewidth=0.8)
        for key, (_, color, marker) in TIMES.items():
            _draw_times(ax, own, key, group[key], color, marker)
        style_axes(ax)
        size_ticks(ax, [cell["n_train"] for cell in own])
        ax.set_title(_named(group, groups), fontsize=9, color=INK)
        ax.set_xlabel("training images N", fontsize=8)
    axes[0].set_ylabel("training steps", fontsize=8)
    handles = [
        Line2D([], [], color=color, marker=marker, ms=4, lw=1.2, label=words)
        for words, color, marker in TIMES.values()
    ]
    never = {"linestyle": "", "marker": "^", "markerfacecolor": "white", "ms": 5}
    handles.append(Line2D([], [], color=INK, label="not within the budget", **never))
    handles.append(Line2D([], [], color=DIM, linewidth=0.8, label="budget"))
    fig.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    alt = f"Times over training images for {listed([_named(group, groups) for group in groups])}."
    return Plate("training_times", "When networks memorize", _words(found, groups), alt, fig)


def _draw_times(
    ax: Axes, cells: Sequence[Found], key: str, line: Found, color: str, marker: str
) -> None:
    """Points with intervals, the fitted power of N, and arrows where the budget ended first."""
    for cell in cells:
        time, n = cell[key], cell["n_train"]
        if not time:
            continue
        if time["censored"] == "above":
            ax.plot(n, time["largest"], "^", color=color, markerfacecolor="white", ms=6)
        elif time["value"] is not None:
            low, high = (
                end if known is None else known
                for known, end in zip(time["ci95"], (time["smallest"], time["largest"]))
            )
            style = {"color": color, "marker": marker, "linestyle": ""}
            draw_intervals(ax, [n], [time["value"]], [(low, high)], **style)
    reached = [c["n_train"] for c in cells if c[key] and c[key]["value"] is not None]
    if line["slope"] is not None and len(reached) > 1:
        x = np.array([min(reached), max(reached)], float)
        y = np.exp(line["intercept"]) * x ** line["slope"]
        ax.plot(x, y, color=color, linewidth=1.2, alpha=0.7)


def _words(found: Found, groups: Sequence[Found]) -> str:
    parts = [
        "Good: the Fréchet distance to held-out images has fallen to "
        f"{found['quality']:g} times its lowest along training. Memorizes: "
        f"{format_share(found['memorized_share'])} of the samples are memorized. Interpolated "
        "between snapshots; lines: least squares in logarithms over the networks that get there "
        "within the budget. In arXiv 2505.17638 the first hardly depends on N and the second "
        "grows like N."
    ]
    for group in groups:
        slopes = [
            f"{words} {slope_words(group[key])}"
            for key, (words, _, _) in TIMES.items()
            if group[key]["slope"] is not None
        ]
        if slopes:
            parts.append(f"Slopes of {_named(group, groups)}: {', '.join(slopes)}.")
    return " ".join(parts)
