"""The figure of model families: all pairs with native samplers, with one solver, in the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from reprojax.report.formats import (
    format_bound,
    format_count,
    format_percent,
    format_share,
    format_span,
)
from reprojax.report.inputs import ReportInputs
from reprojax.report.plotting import (
    INK,
    Plate,
    draw_matrix,
    label,
    listed,
    new_figure,
)

DAGGER = "†"
SCORE_NAMES = {"rp": "RP", "mae": "MAE score"}
WIDTH = 9.6  # inches of the page
CELLS = (0.2, 0.5)  # least and greatest side of a matrix's cell, inches
NARROWEST = 4.5  # inches
GAP, MARGIN, BAR, NOTE = 0.18, 0.08, 0.35, 0.25  # inches between panels, at the edges, for the rest
SMALLEST = 6.5  # points of the printed numbers

Found = Mapping[str, Any]


@dataclass(frozen=True)
class Panel:
    """One matrix.

    Attributes:
        key: of its summary.
        title: above it.
        names: of the models, in order.
        values: `[n, n]`, NaN where unknown.
        rows: labels at the left.
        columns: labels beneath.
        closed: how many of the last models are closed forms, which stand apart.
    """

    key: str
    title: str
    names: Sequence[str]
    values: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]
    closed: int = 0


def families_plates(inputs: ReportInputs) -> list[Plate]:
    """Draws RP and MAE score of all pairs in heat maps side by side; none without the analysis."""
    found = inputs.analyses.get("shared_solver") or {}
    if not found.get("native"):
        return []
    source = (inputs.scores.get("data") or {}).get("source")
    return [_plate(found, score, source) for score in SCORE_NAMES]


def _plate(found: Found, score: str, source: str | None) -> Plate:
    panels = _panels(found, score)
    marked = any(how["own"] for how in found["samplers"].values())
    fig = _draw(panels, found["summary"], score, marked)
    spans = [f"{p.title} {format_span(p.values[np.isfinite(p.values)])}" for p in panels]
    name = SCORE_NAMES[score]
    alt = f"Heat maps of the {name} over {len(found['cells'])} models: {'; '.join(spans)}."
    title = f"Families of models: {name} with native samplers and with one solver"
    return Plate(f"families_{score}", title, _caption(found, score, source), alt, fig)


def _panels(found: Found, score: str) -> list[Panel]:
    """Two matrices of the study's models, and one of the paper's where cells have counterparts."""
    closed = [name for name in found["cells"] if name in found["closed"]]
    names = [name for name in found["cells"] if name not in closed] + closed
    labels = [label(name) for name in names]
    own = [DAGGER if found["samplers"][name]["own"] else "" for name in names]
    native, shared = (_matrix(names, found[key], score) for key in ("native", "shared"))
    daggers = [f"{text} {mark}".rstrip() for text, mark in zip(labels, own)]
    shared_title = f"one shared solver ({label(found['solver']['solver'])})"
    panels = [
        Panel("native", "native samplers", names, native, labels, labels, len(closed)),
        Panel("shared", shared_title, names, shared, own, daggers, len(closed)),
    ]
    if found.get("paper"):
        models = found["paper"]["models"]
        values = _matrix(list(models), found["paper"]["rows"], score)
        theirs = [label(name) for name in models.values()]
        panels.append(Panel("paper", "the paper (CIFAR-10)", theirs, values, theirs, theirs))
    return panels


def _matrix(names: Sequence[str], rows: Sequence[Found], score: str) -> np.ndarray:
    """A score of all pairs, symmetric `[n, n]` with NaN on the diagonal."""
    values, place = np.full((len(names), len(names)), np.nan), {n: i for i, n in enumerate(names)}
    for row in rows:
        i, j = place[row["a"]], place[row["b"]]
        values[i, j] = values[j, i] = row[score]
    return values


def _draw(panels: Sequence[Panel], summary: Found, score: str, marked: bool) -> Figure:
    fig = new_figure(WIDTH, WIDTH / 2)
    fig.set_layout_engine("none")  # which would shrink the panels unequally
    axes = [fig.add_axes((0, 0, 1, 1)) for _ in panels]
    for ax, panel in zip(axes, panels):
        image = _panel(ax, panel)
        ax.set_title(panel.title, fontsize=8.5, color=INK)
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
            color=INK,
        )
    bar = fig.colorbar(image, cax=fig.add_axes((0, 0, 1, 1)), ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["0", ".5", "1"], fontsize=8)
    bar.outline.set_visible(False)
    _place(fig, axes, bar.ax, sizes, NOTE if marked else 0.0)
    if marked:
        text = f"{DAGGER} keeps its own sampler: no solver of the equation takes it"
        width, height = fig.get_size_inches()
        fig.text(MARGIN / width, MARGIN / height, text, fontsize=7.5, color=INK, va="bottom")
    return fig


def _overhang(ax: Axes) -> np.ndarray:
    """What the words around a panel take at its left, bottom, right and top, inches `[4]`."""
    box, whole = ax.get_window_extent(), ax.get_tightbbox()
    return np.subtract([box.x0, box.y0, *whole.max], [*whole.min, box.x1, box.y1]) / ax.figure.dpi


def _place(fig: Figure, axes: Sequence[Axes], bar: Axes, sizes: Sequence[int], note: float) -> None:
    """Gives all panels cells of one size, as large as the page's width allows, tops aligned.

    Args:
        fig: its size is set.
        axes: the panels, with all that is written around them.
        bar: of the colours.
        sizes: cells along a side of each panel.
        note: inches to leave at the bottom.
    """
    side = CELLS[0]
    for attempt in range(3):  # words that are wider than a panel take less beside a larger one
        around = np.array([_overhang(ax) for ax in axes])
        words = around[:, 0].sum() + around[:, 2].sum() + GAP * len(axes) + BAR + 2 * MARGIN
        if attempt:
            side = float(np.clip((WIDTH - words) / sum(sizes), *CELLS))
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
    image = draw_matrix(ax, panel.values, panel.rows, panel.columns)
    ax.tick_params(labelsize=7)
    for text in ax.texts:  # in cells this narrow two digits are all that there is room for
        column, row = map(round, text.get_position())
        value = f"{panel.values[row, column]:.2f}"
        text.set(text=value.removeprefix("0"), fontsize=SMALLEST, in_layout=False)
    if 0 < panel.closed < len(panel.names):
        edge = len(panel.names) - panel.closed - 0.5
        for line in (ax.axhline, ax.axvline):
            line(edge, color="white", linewidth=4)
            line(edge, color=INK, linewidth=1)
    return image


def _below(summary: Found, score: str) -> str:
    """What stands beneath a panel: mean, lowest pair, two seeds, chance."""
    own = summary[score]
    if not own["min_pair"]:
        return "no two trained models"
    lines = [f"mean {format_share(own['mean'])} of {_pairs(summary)}"]
    lines.append(f"lowest {format_share(own['min'])}")
    if own["ceiling"] is not None:
        lines.append(f"two seeds {format_share(own['ceiling'])}")
    if own["chance"] is not None:
        lines.append(f"chance ≤ {format_bound(own['chance'])}")
    return "\n".join(lines)


def _pairs(summary: Found) -> str:
    count = summary["num_pairs"]
    return f"{format_count(count)} pair{'s' * (count != 1)}"


def _caption(found: Found, score: str, source: str | None) -> str:
    summary, name = found["summary"], SCORE_NAMES[score]
    limit = f"less than {found['mae_threshold']:g} grey levels of 255 apart on average"
    if score == "rp":
        above = format_share(found["threshold"])
        limit = f"descriptors ({found['descriptor']}) with a cosine above {above}"
    data = f" trained on {source}" if source else ""
    parts = [
        f"Share of {format_count(found['n'])} noises that two models{data} turn into the same "
        f"image ({name}: {limit}). Left: each model with its native sampler. Beside it: all with "
        f"one solver, {_solver(found)}."
    ]
    if summary["native"]["num_pairs"]:
        parts.append(
            f"Over {_pairs(summary['native'])} of trained models the mean is "
            f"{_told(summary['native'], score, found)} with native samplers and "
            f"{_told(summary['shared'], score, found)} with the shared solver."
        )
        chance = format_bound(max(summary[k][score]["chance"] for k in ("native", "shared")))
        parts.append(f"Between samples of different noises (chance) it is at most {chance}.")
    parts += _left_out(found)
    if found.get("paper"):
        parts.append(_paper(found, score))
    return " ".join(parts)


def _solver(found: Found) -> str:
    """The shared solver, its evaluations where all have the same, and who does not use it."""
    words, samplers = found["solver"]["solver"], found["samplers"]
    used = {round(how["shared"]["nfe"]) for how in samplers.values() if not how["own"]}
    if len(used) == 1:
        words += f" with {used.pop()} evaluations"
    own = [name for name, how in samplers.items() if how["own"]]
    keeps = "keeps its" if len(own) == 1 else "keep their"
    return words + (f", but {listed(own)} {keeps} own ({DAGGER})" if own else "")


def _told(summary: Found, score: str, found: Found) -> str:
    """A mean with its lowest pair and its share of what two seeds reach."""
    own = summary[score]
    notes = [f"lowest {format_share(own['min'])}, {' × '.join(own['min_pair'])}"]
    if own["of_ceiling"] is not None:
        limit = f"the {format_share(own['ceiling'])} between two seeds of {found['ceiling'][0]}"
        notes.append(f"{format_percent(own['of_ceiling'])} of {limit}")
    return f"{format_share(own['mean'])} ({'; '.join(notes)})"


def _left_out(found: Found) -> list[str]:
    """Names what is drawn and not averaged."""
    others = [f"the second seed {found['ceiling'][1]}"] if found["ceiling"] else []
    others += list(found["closed"])
    return [f"Drawn but not averaged: {listed(others)}."] if others else []


def _paper(found: Found, score: str) -> str:
    models, summary = found["paper"]["models"], found["summary"]
    own = summary["paper"][score]
    a, b = (models[name] for name in own["min_pair"])
    ours = [format_share(summary[f"{k}_counterparts"][score]["mean"]) for k in ("native", "shared")]
    how = "an SSCD similarity above .6" if score == "rp" else "the same threshold"
    return (
        f"Right: models of the paper (arXiv 2310.05264, figure 6: CIFAR-10, native samplers, {how})"
        f", mean {format_share(own['mean'])} of {_pairs(summary['paper'])}, lowest "
        f"{format_share(own['min'])}, {a} × {b}. The mean of the pairs here that stand for these "
        f"is {ours[0]} with native samplers and {ours[1]} with the shared solver."
    )
