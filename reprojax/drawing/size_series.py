"""Networks that differ only in their number of training images N: grouping and drawing over N."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from reprojax.drawing import draw, formats
from reprojax.scoring.scores import CellRow, DistanceRow, ModelRow, PairRow
from reprojax.scoring.views import TRAINED

APART = 1.05  # factor between the same N of two lines, so that equal values do not hide
SIZE_COLORS = "viridis"
WHAT_IS_SAME = ("family", "width", "kernel", "preconditioning", "objective", "seed", "subset")
IN_LABELS = ("kernel", "objective", "seed", "subset")  # where groups differ in it
CHANCE = {"color": draw.DIM, "linestyle": ":", "linewidth": 1.2}
REFERENCE = {"color": draw.PALE, "linewidth": 3}


class Point(NamedTuple):
    """A value at one number of training images.

    Args:
        n_train: The number of training images.
        value: The value.
        ci95: Its 95 % interval, or None.
        chance: What chance alone gives, or None.
    """

    n_train: int
    value: float
    ci95: Sequence[float] | None = None
    chance: float | None = None


@dataclass(frozen=True)
class Style:
    """How one of several lines over N is drawn.

    Attributes:
        color: The colour of the line.
        marker: The marker of its points.
        place: The place among all lines, counted from their middle: lines stand a little apart.
    """

    color: str
    marker: str
    place: float = 0.0


@dataclass(frozen=True)
class Group:
    """Networks that differ in their number of training images alone.

    Attributes:
        label: What they have in common, in a few words.
        names: The name of the cell by ``n_train``, ascending.
        style: How they are drawn.
    """

    label: str
    names: Mapping[int, str]
    style: Style


# --- grouping --------------------------------------------------------------------------------


def styles(count: int, first: int = 0) -> list[Style]:
    """Returns a style for each of some lines.

    Args:
        count: The number of lines.
        first: Where in the palette to begin; lines of another kind begin behind those beside them.
    """
    return [
        Style(
            draw.LINES[i % len(draw.LINES)],
            draw.MARKERS[i % len(draw.MARKERS)],
            i - first - (count - 1) / 2,
        )
        for i in range(first, first + count)
    ]


def network_groups(cells: Mapping[str, CellRow]) -> list[Group]:
    """Groups trained cells that differ in nothing but ``n_train``, the narrowest networks first.

    Cells that cannot be told apart by what is recorded stand in groups of their own.
    """
    members: dict[tuple, dict[int, str]] = {}
    for name, cell in cells.items():
        if cell.kind not in TRAINED or not cell.n_train:
            continue
        key, copy = tuple(getattr(cell, field) for field in WHAT_IS_SAME), 0
        while cell.n_train in members.get((*key, copy), {}):
            copy += 1
        members.setdefault((*key, copy), {})[cell.n_train] = name

    def first(names: Mapping[int, str]) -> CellRow:
        return cells[next(iter(names.values()))]

    def order(names: Mapping[int, str]) -> tuple[str, int, int]:
        return first(names).family, first(names).width, first(names).seed

    groups = sorted(members.values(), key=order)
    texts = _labels([first(names) for names in groups])
    return [
        Group(text, dict(sorted(names.items())), style)
        for text, names, style in zip(texts, groups, styles(len(groups)))
    ]


def _labels(cells: Sequence[CellRow]) -> list[str]:
    """Returns labels that tell groups apart: family, width, and the facts in which they differ."""
    varied = [f for f in IN_LABELS if len({getattr(cell, f) for cell in cells}) > 1]
    texts = []
    for cell in cells:
        words = [f"{cell.family}-{cell.width}" if cell.width else cell.family]
        facts = ((field, getattr(cell, field)) for field in varied)
        words += [f"seed {v}" if field == "seed" else v for field, v in facts if v is not None]
        texts.append(" ".join(filter(None, words)))
    return [t if texts.count(t) == 1 else f"{t} ({i + 1})" for i, t in enumerate(texts)]


def row_points(
    rows: Iterable[tuple[int, PairRow | ModelRow | DistanceRow | None]],
) -> list[Point]:
    """Returns the points of ``(n_train, row)``, PFD of distances; what has no row is left out."""
    points = []
    for n, row in rows:
        if isinstance(row, DistanceRow):
            points.append(Point(n, row.pfd, row.pfd_ci95, row.pfd_chance))
        elif row:
            points.append(Point(n, row.value, row.ci95, getattr(row, "chance", None)))
    return points


def json_points(rows: Iterable[tuple[int, Mapping[str, Any] | None]]) -> list[Point]:
    """Returns the points of ``(n_train, {"value", "ci95", "chance"})`` of an analysis."""
    return [Point(n, r["value"], r["ci95"], r.get("chance")) for n, r in rows if r]


# --- drawing ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A line over N.

    Attributes:
        points: Its points.
        style: Its colour, marker and place.
        look: Further keywords of matplotlib, such as ``linestyle``.
    """

    points: Sequence[Point]
    style: Style
    look: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keywords(self) -> dict[str, Any]:
        """All keywords of matplotlib."""
        return {"color": self.style.color, "marker": self.style.marker, **self.look}

    def draw(self, ax: Axes) -> None:
        """Draws the line with thin bars for the intervals of its points."""
        if self.points:
            x = [point.n_train * APART**self.style.place for point in self.points]
            intervals = [point.ci95 for point in self.points]
            draw.intervals(ax, x, [p.value for p in self.points], intervals, **self.keywords)

    def entry(self, text: str) -> Line2D:
        """Returns its legend entry."""
        return draw.entry(draw.label(text), **self.keywords)


@dataclass(frozen=True)
class Panel:
    """One of several axes over N.

    Attributes:
        sizes: The numbers of training images, which become ticks.
        lines: The lines.
        behind: Values by N that stand behind the lines, each with keywords of matplotlib.
        entries: The entries of its legend.
        share: Whether the values are shares from 0 to 1, else distances from 0: chance is then
            drawn at its lowest, since small distances are what agreement has.
    """

    sizes: Iterable[int]
    lines: Sequence[Line]
    behind: Sequence[tuple[Mapping[int, float | None], Mapping[str, Any]]] = ()
    entries: Sequence[Line2D] = ()
    share: bool = True

    def draw(self, ax: Axes, title: str) -> None:
        """Draws all of it; chance is dotted, at each N the value nearest to agreement."""
        chance: dict[int, float] = {}
        for line in self.lines:
            line.draw(ax)
            for n, _, _, value in line.points:
                if value is not None:
                    nearest = max if self.share else min
                    chance[n] = nearest(chance.get(n, value), value)
        for values, look in (*self.behind, (chance, CHANCE)):
            draw_values(ax, values, **look)
        style_axes(ax, self.sizes)
        ax.set_title(title, fontsize=9, loc="left", color=draw.INK)
        if self.share:
            ax.set_ylim(-0.03, 1.03)
        else:
            ax.set_ylim(bottom=0)
        if self.entries:
            draw.panel_legend(ax, self.entries)


def draw_values(ax: Axes, values: Mapping[int, float | None], **look: Any) -> None:
    """Draws values by N behind all lines, without those that are None."""
    sizes = sorted(n for n, value in values.items() if value is not None)
    if sizes:
        ax.plot(sizes, [values[n] for n in sizes], **{"zorder": 1, **look})


def lettered_figure(panels: Mapping[str, Panel], height: float, columns: int) -> Figure:
    """Draws panels by title, each with its letter.

    Args:
        panels: The panels, one at least.
        height: The height of a row of panels in inches.
        columns: The number of panels beside each other.
    """
    rows = -(-len(panels) // columns)
    fig = draw.new_figure(draw.WIDTH if columns > 1 else 6.4, height * rows + 0.5)
    axes = list(fig.subplots(rows, columns, squeeze=False).flat)
    for ax, letter, (title, panel) in zip(axes, "abcd", panels.items()):
        panel.draw(ax, f"({letter}) {title}")
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    return fig


def size_ticks(ax: Axes, sizes: Iterable[int]) -> None:
    """Makes the x axis logarithmic with a tick at each N, labelled where there is room."""
    sizes = sorted(set(sizes))
    ax.set_xscale("log", base=2)
    width = 0.47 / (ax.get_position().width * ax.figure.get_figwidth())  # a label, of the axis
    room, last, texts = np.log2(sizes[-1] / sizes[0]) * width, -np.inf, []
    for n in sizes:
        fits = np.log2(n) - last > room
        texts.append(formats.count(n) if fits else "")
        last = np.log2(n) if fits else last
    ax.set_xticks(sizes, texts)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.tick_params(axis="x", labelsize=7.5)


def style_axes(ax: Axes, sizes: Iterable[int], title: str = "", **words: Any) -> None:
    """Gives axes over N their frame, ticks and labels."""
    draw.style_axes(ax, title=title, x="training images N", **words)
    size_ticks(ax, sizes)


def panel_row(count: int, **options: Any) -> tuple[Figure, Sequence[Axes]]:
    """Makes a figure with axes beside each other, as wide as the page has room for."""
    fig = draw.new_figure(min(draw.WIDTH, max(5.0, 3.2 * count)), 3.2)
    fig.get_layout_engine().set(wspace=0.07)  # labels at the ends reach into the gap
    return fig, fig.subplots(1, count, squeeze=False, **options)[0]


# --- legends ---------------------------------------------------------------------------------


def chance_entry() -> Line2D:
    """Returns the legend entry of chance."""
    return draw.entry("chance", **CHANCE)


def color(n: int, sizes: Iterable[int]) -> Any:
    """Returns the colour of one N among all of them, dark for few images."""
    sizes = sorted(sizes)
    return colormaps[SIZE_COLORS](0.92 * sizes.index(n) / max(1, len(sizes) - 1))


def color_entries(sizes: Iterable[int]) -> list[Line2D]:
    """Returns the legend entries of the colours of all N."""
    texts = [(n, f"N = {formats.count(n)}") for n in sorted(sizes)]
    return [draw.entry(text, color=color(n, sizes), lw=2) for n, text in texts]
