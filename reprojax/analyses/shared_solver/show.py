"""Shows families of models: all pairs with native samplers, with one solver, in the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from reprojax.drawing import draw, formats
from reprojax.report.inputs import ReportInputs
from reprojax.report.tables import Table
from reprojax.report.words import SCORE_NAMES, chance_words, listed
from reprojax.scoring.scores import Scores

LEADS = True
DAGGER = "†"
SCORES = ("rp", "mae")
ROWS = {  # of the table, by key of the summary
    "native": "native",
    "native_counterparts": "native, the paper's pairs",
    "shared": "one solver",
    "shared_counterparts": "one solver, the paper's pairs",
    "paper": "the paper, CIFAR-10",
}
CELLS = (0.2, 0.5)  # least and greatest side of a matrix's cell, inches
NARROWEST = 4.5  # inches
GAP, MARGIN, BAR, NOTE = 0.18, 0.08, 0.35, 0.25  # inches between panels, at the edges, for the rest
SMALLEST = 6.5  # points of the printed numbers

Analysis = Mapping[str, Any]


@dataclass(frozen=True)
class Panel:
    """One matrix of a score over pairs of models.

    Attributes:
        key: The key of its summary.
        title: The title above it.
        names: The models, in order.
        values: The score, `[n, n]`, NaN where unknown.
        rows: The labels at the left.
        columns: The labels beneath.
        closed: The number of closed forms, which stand last and apart.
    """

    key: str
    title: str
    names: Sequence[str]
    values: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]
    closed: int = 0


def figures(inputs: ReportInputs) -> list[draw.Plate]:
    """Draws RP and MAE score of all pairs in heat maps side by side."""
    analysis = inputs.analyses.get("shared_solver") or {}
    if not analysis.get("native"):
        return []
    return [_plate(analysis, score, inputs.scores) for score in SCORES]


def tables(inputs: ReportInputs) -> list[Table]:
    """Makes a table of the mean and the lowest score of each group of pairs."""
    analysis = inputs.analyses["shared_solver"]
    summary, models = analysis["summary"], (analysis["paper"] or {}).get("models", {})
    rows = []
    for key, words in ROWS.items():
        group = summary.get(key)
        whole = summary[key.removesuffix("_counterparts")] if group else None
        if group is None or (whole is not group and whole["num_pairs"] == group["num_pairs"]):
            continue  # the paper has all pairs: a second row would only repeat the first
        for score, name in (("rp", "RP"), ("mae", "MAE")):
            own = group[score]
            pair = [models[n] if key == "paper" else n for n in own["min_pair"] or ()]
            numbers = (
                formats.count(group["num_pairs"]),
                formats.share(own["mean"]),
                formats.share(own["min"]),
                formats.share(own["ceiling"]),
                formats.percent(own["of_ceiling"]),
                formats.MISSING if own["chance"] is None else formats.bound(own["chance"]),
            )
            rows.append((words, name, " × ".join(pair) or formats.MISSING, *numbers))
    words = ("samplers", "score", "lowest pair")
    columns = (*words, "pairs", "mean", "lowest", "two seeds", "mean of it", "chance")
    title = "Agreement of trained models: native samplers, and one solver for all"
    return [Table(title, columns, len(words), tuple(rows))]


def _plate(analysis: Analysis, score: str, scores: Scores) -> draw.Plate:
    panels = _panels(analysis, score)
    marked = any(how["own"] for how in analysis["samplers"].values())
    fig = _draw(panels, analysis["summary"], score, marked)
    spans = [f"{p.title} {formats.span(p.values[np.isfinite(p.values)])}" for p in panels]
    name = SCORE_NAMES[score]
    alt = f"Heat maps of the {name} over {len(analysis['cells'])} models: {'; '.join(spans)}."
    title = f"Families of models: {name} with native samplers and with one solver"
    return draw.Plate(f"families_{score}", title, _caption(analysis, score, scores), alt, fig)


def _panels(analysis: Analysis, score: str) -> list[Panel]:
    """Makes two matrices of the study's models, and the paper's where cells have counterparts."""
    closed = [name for name in analysis["cells"] if name in analysis["closed"]]
    names = [name for name in analysis["cells"] if name not in closed] + closed
    labels = [draw.label(name) for name in names]
    own = [DAGGER if analysis["samplers"][name]["own"] else "" for name in names]
    native, shared = (_matrix(names, analysis[key], score) for key in ("native", "shared"))
    daggers = [f"{text} {mark}".rstrip() for text, mark in zip(labels, own)]
    shared_title = f"one shared solver ({draw.label(analysis['solver']['solver'])})"
    panels = [
        Panel("native", "native samplers", names, native, labels, labels, len(closed)),
        Panel("shared", shared_title, names, shared, own, daggers, len(closed)),
    ]
    if analysis.get("paper"):
        models = analysis["paper"]["models"]
        values = _matrix(list(models), analysis["paper"]["rows"], score)
        theirs = [draw.label(name) for name in models.values()]
        panels.append(Panel("paper", "the paper (CIFAR-10)", theirs, values, theirs, theirs))
    return panels


def _matrix(names: Sequence[str], rows: Sequence[Analysis], score: str) -> np.ndarray:
    """Returns a score of all pairs, symmetric `[n, n]` with NaN on the diagonal."""
    values, place = np.full((len(names), len(names)), np.nan), {n: i for i, n in enumerate(names)}
    for row in rows:
        i, j = place[row["a"]], place[row["b"]]
        values[i, j] = values[j, i] = row[score]
    return values


def _draw(panels: Sequence[Panel], summary: Analysis, score: str, marked: bool) -> Figure:
    fig = draw.new_figure(draw.WIDTH, draw.WIDTH / 2)
    fig.set_layout_engine("none")  # which would shrink the panels unequally
    axes = [fig.add_axes((0, 0, 1, 1)) for _ in panels]
    for ax, panel in zip(axes, panels):
        image = _panel(ax, panel)
        ax.set_title(panel.title, fontsize=8.5, color=draw.INK)
    sizes = [len(panel.names) for panel in panels]
    depths = [72 * _overhang(ax)[1] + 6 for ax in axes]  # points that labels of columns take
    for ax, panel in zip(axes, panels):
        depth = max(d for d, n in zip(depths, sizes) if n == len(panel.names))
        ax.annotate(
            _below(summary[panel.key], score),
            (0.5, 0),
            (0, -depth),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=7.5,
            linespacing=1.35,
            color=draw.INK,
        )
    bar = draw.share_bar(fig, image, cax=fig.add_axes((0, 0, 1, 1)))
    _place(fig, axes, bar, sizes, NOTE if marked else 0.0)
    if marked:
        text = f"{DAGGER} keeps its own sampler: no solver of the equation takes it"
        width, height = fig.get_size_inches()
        fig.text(MARGIN / width, MARGIN / height, text, fontsize=7.5, color=draw.INK, va="bottom")
    return fig


def _overhang(ax: Axes) -> np.ndarray:
    """Returns the inches that words take at the left, bottom, right and top of a panel, `[4]`."""
    box, whole = ax.get_window_extent(), ax.get_tightbbox()
    return np.subtract([box.x0, box.y0, *whole.max], [*whole.min, box.x1, box.y1]) / ax.figure.dpi


def _place(fig: Figure, axes: Sequence[Axes], bar: Axes, sizes: Sequence[int], note: float) -> None:
    """Gives all panels cells of one size, as large as the page's width allows, tops aligned.

    Args:
        fig: The figure, whose size is set.
        axes: The panels, with all that is written around them.
        bar: The colour bar.
        sizes: The number of cells along a side of each panel.
        note: The inches to leave at the bottom.
    """
    side = CELLS[0]
    for attempt in range(3):  # words that are wider than a panel take less beside a larger one
        around = np.array([_overhang(ax) for ax in axes])
        words = around[:, 0].sum() + around[:, 2].sum() + GAP * len(axes) + BAR + 2 * MARGIN
        if attempt:
            side = float(np.clip((draw.WIDTH - words) / sum(sizes), *CELLS))
        top, below = MARGIN + around[:, 3].max(), note + MARGIN
        width = max(NARROWEST, words + side * sum(sizes))
        height = top + max(side * n + bottom for n, bottom in zip(sizes, around[:, 1])) + below
        fig.set_size_inches(width, height)
        x = MARGIN
        for ax, n, (left, _, right, _) in zip(axes, sizes, around):
            x += left
            _put(ax, x, height - top - side * n, side * n, side * n)
            x += side * n + right + GAP
        tall = side * max(sizes)
        _put(bar, x, height - top - 0.85 * tall, 0.12, 0.7 * tall)


def _put(ax: Axes, x: float, y: float, width: float, height: float) -> None:
    """Places an axes, in inches from the figure's lower left corner."""
    w, h = ax.figure.get_size_inches()
    ax.set_position((x / w, y / h, width / w, height / h))


def _panel(ax: Axes, panel: Panel) -> AxesImage:
    image = draw.matrix(ax, panel.values, panel.rows, panel.columns)
    ax.tick_params(labelsize=7)
    for text in ax.texts:  # in cells this narrow two digits are all that there is room for
        column, row = map(round, text.get_position())
        value = f"{panel.values[row, column]:.2f}"
        text.set(text=value.removeprefix("0"), fontsize=SMALLEST, in_layout=False)
    if 0 < panel.closed < len(panel.names):
        edge = len(panel.names) - panel.closed - 0.5
        for line in (ax.axhline, ax.axvline):
            line(edge, color="white", linewidth=4)
            line(edge, color=draw.INK, linewidth=1)
    return image


def _below(summary: Analysis, score: str) -> str:
    """Returns the words beneath a panel: mean, lowest pair, two seeds, chance."""
    own = summary[score]
    if not own["min_pair"]:
        return "no two trained models"
    lines = [f"mean {formats.share(own['mean'])} of {_pairs(summary)}"]
    lines.append(f"lowest {formats.share(own['min'])}")
    if own["ceiling"] is not None:
        lines.append(f"two seeds {formats.share(own['ceiling'])}")
    if own["chance"] is not None:
        lines.append(f"chance ≤ {formats.bound(own['chance'])}")
    return "\n".join(lines)


def _pairs(summary: Analysis) -> str:
    count = summary["num_pairs"]
    return f"{formats.count(count)} pair{'s' * (count != 1)}"


def _caption(analysis: Analysis, score: str, scores: Scores) -> str:
    summary, name, source = analysis["summary"], SCORE_NAMES[score], scores.data.get("source")
    limit = f"less than {analysis['mae_threshold']:g} grey levels of 255 apart on average"
    if score == "rp":
        above = formats.share(analysis["threshold"])
        limit = f"descriptors ({analysis['descriptor']}) with a cosine above {above}"
    data = f" trained on {source}" if source else ""
    parts = [
        f"Share of {formats.count(analysis['n'])} noises that two models{data} turn into the same "
        f"image ({name}: {limit}). Left: each model with its native sampler. Beside it: all with "
        f"one solver, {_solver(analysis)}."
    ]
    if summary["native"]["num_pairs"]:
        parts.append(
            f"Over {_pairs(summary['native'])} of trained models the mean is "
            f"{_mean_words(summary['native'], score, analysis)} with native samplers and "
            f"{_mean_words(summary['shared'], score, analysis)} with the shared solver."
        )
        chance = formats.bound(max(summary[k][score]["chance"] for k in ("native", "shared")))
        parts.append(f"Between {chance_words(scores)} (chance) it is at most {chance}.")
    parts += _left_out(analysis)
    if analysis.get("paper"):
        parts.append(_paper(analysis, score))
    return " ".join(parts)


def _solver(analysis: Analysis) -> str:
    """Returns the shared solver, its evaluations where all have the same, and its exceptions."""
    words, samplers = analysis["solver"]["solver"], analysis["samplers"]
    used = {round(how["shared"]["nfe"]) for how in samplers.values() if not how["own"]}
    if len(used) == 1:
        words += f" with {used.pop()} evaluations"
    own = [name for name, how in samplers.items() if how["own"]]
    keeps = "keeps its" if len(own) == 1 else "keep their"
    return words + (f", but {listed(own)} {keeps} own ({DAGGER})" if own else "")


def _mean_words(summary: Analysis, score: str, analysis: Analysis) -> str:
    """Returns a mean with its lowest pair and its share of what two seeds reach."""
    own = summary[score]
    notes = [f"lowest {formats.share(own['min'])}, {' × '.join(own['min_pair'])}"]
    if own["of_ceiling"] is not None:
        limit = f"the {formats.share(own['ceiling'])} between two seeds of {analysis['ceiling'][0]}"
        notes.append(f"{formats.percent(own['of_ceiling'])} of {limit}")
    return f"{formats.share(own['mean'])} ({'; '.join(notes)})"


def _left_out(analysis: Analysis) -> list[str]:
    """Says what is drawn and not averaged."""
    others = [f"the second seed {analysis['ceiling'][1]}"] if analysis["ceiling"] else []
    others += list(analysis["closed"])
    return [f"Drawn but not averaged: {listed(others)}."] if others else []


def _paper(analysis: Analysis, score: str) -> str:
    models, summary = analysis["paper"]["models"], analysis["summary"]
    own = summary["paper"][score]
    a, b = (models[name] for name in own["min_pair"])
    ours = [
        formats.share(summary[f"{k}_counterparts"][score]["mean"]) for k in ("native", "shared")
    ]
    how = "an SSCD similarity above .6" if score == "rp" else "the same threshold"
    return (
        f"Right: models of the paper (arXiv 2310.05264, figure 6: CIFAR-10, native samplers, {how})"
        f", mean {formats.share(own['mean'])} of {_pairs(summary['paper'])}, lowest "
        f"{formats.share(own['min'])}, {a} × {b}. The mean of the pairs here that stand for these "
        f"is {ours[0]} with native samplers and {ours[1]} with the shared solver."
    )
