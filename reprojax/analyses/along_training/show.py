"""Shows scores along training, and when networks get good and when they memorize."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from reprojax.drawing import draw, formats
from reprojax.drawing import size_series as series
from reprojax.report.inputs import ReportInputs
from reprojax.report.tables import Table
from reprojax.report.words import crossing_words, listed

LEADS = True
MOST_ROWS = 3  # capacities beneath each other
MOST_COLUMNS = 9  # of the legend
COLUMNS = {
    "memorized": "memorized",
    "gl": "GL",
    "optimum": "RP with the optimum",
    "frechet": "Fréchet distance",
}
PAIRS = {"capacity": "two capacities", "seed": "two seeds"}
TIMES = {
    "t_gen": ("good", series.Style(draw.GREEN, "o")),
    "t_mem": ("memorizes", series.Style(draw.RED, "s")),
}

Analysis = Mapping[str, Any]


def figures(inputs: ReportInputs) -> list[draw.Plate]:
    """Draws scores over steps, and times over N."""
    analysis = inputs.analyses.get("along_training") or {}
    if not analysis.get("cells"):
        return []
    plates = [_scores_plate(analysis), _times_plate(analysis)]
    return [plate for plate in plates if plate]


def tables(inputs: ReportInputs) -> list[Table]:
    """Makes a table of the times of each network, and one of how they grow with N."""
    analysis = inputs.analyses["along_training"]
    times = tuple(
        (
            cell["name"],
            formats.count(cell["n_train"]),
            crossing_words(cell["t_gen"]),
            crossing_words(cell["t_mem"]),
            formats.share(cell["rows"][-1]["memorized"]["value"]),
            formats.share(cell["rows"][-1]["gl"]["value"]),
        )
        for cell in analysis["cells"]
    )
    growth = tuple(
        (
            _group_name(group, analysis["groups"]),
            TIMES[key][0],
            _slope_words(group[key]),
            *(formats.count(group[key][k]) for k in ("num_reached", "num_never", "num_at_once")),
        )
        for group in analysis["groups"]
        if len(group["names"]) > 1
        for key in ("t_mem", "t_gen")
    )
    columns = ("model", "N", "good at step", "memorizes at step", "memorized", "GL")
    tables = [Table("When networks get good, and when they memorize", columns, 1, times)]
    columns = ("capacity", "time", "slope in log N", "reached", "never", "at once")
    title = "How these times grow with the number of training images"
    return tables + ([Table(title, columns, 2, growth)] if growth else [])


def _group_name(group: Analysis, groups: Sequence[Analysis]) -> str:
    """Returns the capacity of a group, with what tells it from others of that capacity."""
    same = [other for other in groups if other["capacity"] == group["capacity"]]
    words = [group["capacity"]]
    words += [f"seed {group['seed']}"] if len({other["seed"] for other in same}) > 1 else []
    words += [group["subset"]] if len({other["subset"] for other in same}) > 1 else []
    return ", ".join(words)


def _slope_words(line: Analysis) -> str:
    """Returns a slope, which may be negative, with its interval."""
    if line["slope"] is None:
        return formats.MISSING
    ends = f" [{line['ci95'][0]:.2f}, {line['ci95'][1]:.2f}]" if line["ci95"] else ""
    return f"{line['slope']:.2f}{ends}".replace("-", "−")


def _shown(analysis: Analysis) -> dict[str, Analysis]:
    """Returns the groups of networks that differ in N alone by name, those of the most sizes."""
    most = sorted(analysis["groups"], key=lambda group: -len(group["names"]))[:MOST_ROWS]
    groups = [group for group in analysis["groups"] if group in most]
    return {_group_name(group, groups): group for group in groups}


def _scores_plate(analysis: Analysis) -> draw.Plate:
    groups, cells = _shown(analysis), {cell["name"]: cell for cell in analysis["cells"]}
    sizes = sorted({cell["n_train"] for cell in analysis["cells"]})
    pairs = {k: [p for p in analysis["pairs"] if p["differ"] == k] for k in PAIRS}
    pairs = {k: rows for k, rows in pairs.items() if rows}
    heights = [2.2 * len(groups) + 0.2] + ([2.5] if pairs else [])
    fig = draw.new_figure(9.6, sum(heights) + 0.5)
    parts = fig.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_groups(parts[0], groups, cells, sizes)
    if pairs:
        _draw_pairs(parts[1], pairs, sizes)
    draw.top_legend(fig, [*series.color_entries(sizes), series.chance_entry()], MOST_COLUMNS)
    caption = (
        f"Scores of {listed(list(groups))} at log-spaced steps of training, on "
        f"{formats.count(analysis['n'])} noises, a colour for each number of training images. "
        "A sample is memorized if the nearest training image is at less than a third of the "
        "distance of the second nearest. RP is that with the optimum of the same images. The "
        "Fréchet distance is that to held-out images."
    )
    if pairs:
        caption += (
            " Beneath: RP between two networks of the same images at the same step; thin bars are "
            "95 % intervals."
        )
    numbers = listed([formats.count(n) for n in sizes])
    alt = f"Curves over training steps for {listed(list(groups))}, N = {numbers}."
    return draw.Plate("training", "Along training", caption, alt, fig)


def _draw_groups(
    fig: SubFigure,
    groups: Mapping[str, Analysis],
    cells: Mapping[str, Analysis],
    sizes: Sequence[int],
) -> None:
    rows = [r for group in groups.values() for name in group["names"] for r in cells[name]["rows"]]
    columns = [key for key in COLUMNS if any(row.get(key) for row in rows)]
    axes = fig.subplots(len(groups), len(columns), squeeze=False, sharex=True, sharey="col")
    for i, (line, (name, group)) in enumerate(zip(axes, groups.items())):
        for j, (ax, key) in enumerate(zip(line, columns)):
            for cell in (cells[name] for name in group["names"]):
                points = [(row["step"], row[key]) for row in cell["rows"] if row.get(key)]
                if points:  # a cell without an optimum of its images has none
                    _draw_curve(ax, points, series.color(cell["n_train"], sizes))
            words = {"title": "" if i else COLUMNS[key], "y": "" if j else draw.label(name)}
            _finish(ax, [row["step"] for row in rows], share=key != "frechet", **words)
    fig.supxlabel("training steps", fontsize=8)


def _draw_pairs(
    fig: SubFigure, pairs: Mapping[str, Sequence[Analysis]], sizes: Sequence[int]
) -> None:
    axes = fig.subplots(1, len(pairs), squeeze=False, sharey=True)[0]
    for ax, (kind, own) in zip(axes, pairs.items()):
        for pair in own:
            points = ((row["step"], row) for row in pair["rows"])
            _draw_curve(ax, points, series.color(pair["n_train"], sizes))
        steps = [row["step"] for pair in own for row in pair["rows"]]
        _finish(ax, steps, title=f"RP between {PAIRS[kind]}", x="training steps")


def _draw_curve(ax: Axes, points: Iterable[tuple[int, Analysis]], color: Any) -> None:
    """Draws a score over steps with intervals, and its chance where it has one."""
    steps, rows = zip(*points)
    values = [row.get("value", row.get("rp")) for row in rows]
    style = {"color": color, "lw": 1.2, "ms": 2.5, "marker": "o", "elinewidth": 0.6}
    draw.intervals(ax, steps, values, [row["ci95"] for row in rows], **style)
    if "chance" in rows[0]:
        chance = [row["chance"] for row in rows]
        ax.plot(steps, chance, ":", color=color, linewidth=0.8, alpha=0.7)


def _finish(ax: Axes, steps: Sequence[int], *, share: bool = True, **words: str) -> None:
    draw.log_ticks(ax, steps)
    draw.style_axes(ax, **words)
    ax.tick_params(which="both", labelsize=7)
    if share:
        ax.set_ylim(-0.04, 1.04)
    else:
        ax.set_yscale("log")
        draw.log_values(ax.yaxis, (1, 1.5, 2, 3, 5, 7))


def _times_plate(analysis: Analysis) -> draw.Plate | None:
    """Draws when networks get good and when they memorize over N, with fitted powers."""
    groups = {name: g for name, g in _shown(analysis).items() if len(g["names"]) > 1}
    if not groups:
        return None
    cells = {cell["name"]: cell for cell in analysis["cells"]}
    fig, axes = series.panel_row(len(groups), sharey=True)
    last = max(cell["rows"][-1]["step"] for cell in analysis["cells"])
    for i, (ax, (name, group)) in enumerate(zip(axes, groups.items())):
        own = [cells[cell] for cell in group["names"]]
        ax.set_yscale("log")
        draw.log_values(ax.yaxis, (1, 2, 5))
        ax.axhline(last, color=draw.DIM, linewidth=0.8)
        for key, (_, style) in TIMES.items():
            _draw_times(ax, [(c["n_train"], c[key]) for c in own if c[key]], group[key], style)
        sizes = [cell["n_train"] for cell in own]
        series.style_axes(ax, sizes, draw.label(name), y="" if i else "training steps")
    handles = [series.Line((), style).entry(words) for words, style in TIMES.values()]
    never = {"marker": "^", "markerfacecolor": "white", "ms": 5}
    handles.append(draw.dot_entry("not within the budget", **never))
    handles.append(draw.entry("budget", color=draw.DIM, linewidth=0.8))
    draw.top_legend(fig, handles, 4)
    alt = f"Times over training images for {listed(list(groups))}."
    caption = _times_words(analysis, groups)
    return draw.Plate("training_times", "When networks memorize", caption, alt, fig)


def _draw_times(
    ax: Axes, times: Sequence[tuple[int, Analysis]], line: Analysis, style: series.Style
) -> None:
    """Draws points with intervals, the fitted power of N, and arrows where the budget ended."""
    points = []
    for n, time in times:
        if time["censored"] == "above":
            ax.plot(n, time["largest"], "^", color=style.color, markerfacecolor="white", ms=6)
        elif time["value"] is not None:
            limits = time["smallest"], time["largest"]
            interval = [b if a is None else a for a, b in zip(time["ci95"], limits)]
            points.append(series.Point(n, time["value"], interval))
    series.Line(points, style, {"linestyle": ""}).draw(ax)
    if line["slope"] is not None and len(points) > 1:
        x = np.array([points[0].n_train, points[-1].n_train], float)
        y = np.exp(line["intercept"]) * x ** line["slope"]
        ax.plot(x, y, color=style.color, linewidth=1.2, alpha=0.7)


def _times_words(analysis: Analysis, groups: Mapping[str, Analysis]) -> str:
    parts = [
        "Good: the Fréchet distance to held-out images has fallen to "
        f"{analysis['quality']:g} times its lowest along training. Memorizes: "
        f"{formats.share(analysis['memorized_share'])} of the samples are memorized. Interpolated "
        "between snapshots; lines: least squares in logarithms over the networks that get there "
        "within the budget. In arXiv 2505.17638 the first hardly depends on N and the second "
        "grows like N."
    ]
    for name, group in groups.items():
        slopes = [
            f"{words} {_slope_words(group[key])}"
            for key, (words, _) in TIMES.items()
            if group[key]["slope"] is not None
        ]
        if slopes:
            parts.append(f"Slopes of {name}: {', '.join(slopes)}.")
    return " ".join(parts)
