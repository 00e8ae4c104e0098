"""The figure of networks against closed forms of their own training images, over their number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reprojax.report.formats import format_count, format_share, format_span
from reprojax.report.inputs import ReportInputs
from reprojax.report.plotting import (
    DIM,
    INK,
    LINES,
    MARKERS,
    PALE,
    Plate,
    draw_intervals,
    label,
    listed,
    new_figure,
    rows_legend,
    sampling_words,
    size_ticks,
    style_axes,
)
from reprojax.report.rows import TRAINED, ModelRow, main_models, main_pairs

FEWEST_SIZES = 3
LEGEND_COLUMNS = 4
APART = 1.05  # factor between the same N of two groups, so that equal values do not hide
REFERENCES = {  # closed form: its dash and its name
    "optimum": ("-", "optimum of the same images"),
    "gaussian": ("--", "Gaussian of the same images"),
    "population": ("-.", "true distribution"),
}
WHAT_IS_SAME = ("family", "width", "kernel", "preconditioning", "objective", "seed", "subset")
SHOWN = ("kernel", "objective", "seed", "subset")  # of a label, where groups differ in it

Cells = Mapping[str, Mapping[str, Any]]
Records = Mapping[frozenset, Mapping[str, Any]]


@dataclass(frozen=True)
class Group:
    """Networks that differ in their number of training images alone.

    Attributes:
        label: what they have in common.
        names: per ``n_train`` the cell's name, ascending.
        color: of all that is drawn of them.
        marker: likewise.
        place: of all groups' places about 0, to draw equal values beside each other.
    """

    label: str
    names: Mapping[int, str]
    color: str
    marker: str
    place: float


def theory_plate(inputs: ReportInputs) -> Plate | None:
    """Draws RP and PFD with the closed forms, GL, and RP between networks, over ``n_train``.

    None with fewer than three training set sizes, or without an empirical optimum.
    """
    scores, cells = inputs.scores, inputs.scores.get("cells", {})
    groups = network_groups(cells)
    sizes = sorted({n for group in groups for n in group.names})
    families = [f for f in REFERENCES if any(c.get("family") == f for c in cells.values())]
    if len(sizes) < FEWEST_SIZES or "optimum" not in families:
        return None
    rp = {frozenset((row.a, row.b)): row.rp for row in main_pairs(scores)}
    pfd = _distances(scores)
    models = {row.name: row for row in main_models(scores)}
    ceiling = _ceiling(inputs)
    panels = _panels(groups, cells, rp, pfd, models, ceiling)
    if not panels:
        return None
    fig = _draw(panels, sizes, groups, families, bool(ceiling))
    caption = _caption(scores, panels, families)
    if ceiling:
        caption += (
            " Pale: the ceiling of RP with the optimum, that of the optimum itself between few and "
            "many steps of the solver."
        )
    values = [r["value"] for n, r in _series(groups, cells, rp, "optimum")]
    alt = (
        f"Curves over {format_count(sizes[0])} to {format_count(sizes[-1])} training images for "
        f"{listed([group.label for group in groups])}; RP with the optimum {format_span(values)}."
    )
    return Plate("theory", "Networks against theory", caption, alt, fig)


def network_groups(cells: Cells) -> list[Group]:
    """Trained cells that differ in nothing but ``n_train``, the narrowest of a family first.

    Cells that cannot be told apart by what is recorded stand in groups of their own.
    """
    found: dict[tuple, dict[int, str]] = {}
    for name, cell in cells.items():
        if cell.get("kind") not in TRAINED or not cell.get("n_train"):
            continue
        key = tuple(cell.get(field) for field in WHAT_IS_SAME)
        copy = 0
        while cell["n_train"] in found.get((*key, copy), {}):
            copy += 1
        found.setdefault((*key, copy), {})[cell["n_train"]] = name
    members = sorted(found.values(), key=lambda names: _width_order(cells, names))
    facts = [cells[next(iter(names.values()))] for names in members]
    varied = [f for f in SHOWN if len({fact.get(f) for fact in facts}) > 1]
    texts: list[str] = []
    for fact in facts:
        text = f"{fact.get('family') or ''}-{fact['width']}" if fact.get("width") else ""
        words = [text or str(fact.get("family") or "network")]
        words += [f"seed {fact[f]}" if f == "seed" else str(fact[f]) for f in varied if f in fact]
        texts.append(" ".join(words))
    texts = [t if texts.count(t) == 1 else f"{t} ({i + 1})" for i, t in enumerate(texts)]
    middle = (len(members) - 1) / 2
    return [
        Group(
            label=text,
            names=dict(sorted(names.items())),
            color=LINES[i % len(LINES)],
            marker=MARKERS[i % len(MARKERS)],
            place=i - middle,
        )
        for i, (text, names) in enumerate(zip(texts, members))
    ]


def _width_order(cells: Cells, names: Mapping[int, str]) -> tuple:
    cell = cells[next(iter(names.values()))]
    return str(cell.get("family")), cell.get("width") or 0, cell.get("seed") or 0


def _reference(cells: Cells, family: str, name: str) -> str | None:
    """The closed form to compare a network with: of its own images, or the one population."""
    own, found = cells[name], [n for n, c in cells.items() if c.get("family") == family]
    if family == "population":
        same = [n for n in found if cells[n].get("n_train") == own.get("n_train")]
        return next(iter(same or found), None)
    keys = ("n_train", "subset")
    return next((n for n in found if all(cells[n].get(k) == own.get(k) for k in keys)), None)


def _distances(scores: Mapping[str, Any]) -> Records:
    """PFD of each pair as a record like those of ``pairs``."""
    return {
        frozenset((row["a"], row["b"])): {
            "value": row["pfd"],
            "ci95": row.get("pfd_ci95"),
            "chance": row.get("pfd_chance"),
        }
        for row in scores.get("distances") or ()
        if row.get("pfd") is not None
    }


def _series(
    groups: Sequence[Group], cells: Cells, records: Records, family: str
) -> list[tuple[int, Mapping[str, Any]]]:
    """(n_train, record) of all networks of some groups with their closed form of a family."""
    found = []
    for group in groups:
        for n, name in group.names.items():
            record = records.get(frozenset((name, _reference(cells, family, name))))
            found += [(n, record)] if record else []
    return found


def _panels(
    groups: Sequence[Group],
    cells: Cells,
    rp: Records,
    pfd: Records,
    models: Mapping[str, ModelRow],
    ceiling: Mapping[int, float],
) -> dict[str, Callable[[Axes], None]]:
    """What there is something to draw of, by title."""
    panels: dict[str, Callable[[Axes], None]] = {}
    for title, records, worst, top in (
        ("RP with closed forms", rp, max, ceiling),
        ("PFD to closed forms (grey levels of 255)", pfd, min, {}),
    ):
        if any(_series(groups, cells, records, family) for family in REFERENCES):
            panels[title] = lambda ax, r=records, w=worst, t=top: (
                _closed(ax, groups, cells, r, w),
                _pale(ax, t),
            )
    if any(models[n].gl for group in groups for n in group.names.values() if n in models):
        panels["GL and memorized share"] = lambda ax: _models(ax, groups, models)
    if _between(groups, rp):
        panels["RP between networks of equal N"] = lambda ax: _networks(ax, groups, rp)
    return panels


def _draw(
    panels: Mapping[str, Callable[[Axes], None]],
    sizes: Sequence[int],
    groups: Sequence[Group],
    families: Sequence[str],
    with_ceiling: bool,
) -> Figure:
    columns = len(panels) if len(panels) != 4 else 2
    rows = -(-len(panels) // columns)
    fig = new_figure(9.6 if columns > 1 else 6.4, 3.1 * rows + 0.5)
    axes = fig.subplots(rows, columns, squeeze=False).flat  # as many as there are panels
    for ax, (letter, (title, draw)) in zip(axes, zip("abcd", panels.items())):
        draw(ax)
        style_axes(ax)
        size_ticks(ax, sizes)
        ax.set_title(f"({letter}) {title}", fontsize=9, loc="left", color=INK)
        ax.set_xlabel("training images N", fontsize=8)
        if "RP" in title or "GL" in title:
            ax.set_ylim(-0.03, 1.03)
        else:
            ax.set_ylim(bottom=0)
    _top_legend(fig, groups, families, with_ceiling)
    return fig


def _top_legend(
    fig: Figure, groups: Sequence[Group], families: Sequence[str], with_ceiling: bool
) -> None:
    """Rows of networks, and beneath them a row of what they are compared with."""
    handles = [
        Line2D([], [], color=g.color, marker=g.marker, ms=4, label=label(g.label)) for g in groups
    ]
    handles += [Line2D([], [], linestyle="", label=" ")] * (-len(handles) % LEGEND_COLUMNS)
    dashes = [REFERENCES[family] for family in families]
    handles += [Line2D([], [], color=INK, ls=dash, label=f"with the {t}") for dash, t in dashes]
    handles.append(Line2D([], [], color=DIM, linestyle=":", linewidth=1.2, label="chance"))
    if with_ceiling:
        handles.append(
            Line2D([], [], color=PALE, linewidth=3, label="ceiling: optimum with itself")
        )
    rows_legend(fig, handles, LEGEND_COLUMNS, handlelength=2.6)


def _closed(
    ax: Axes, groups: Sequence[Group], cells: Cells, records: Records, worst: Callable
) -> None:
    """A line for each group and closed form, and the strictest chance of each N, dotted."""
    chance: dict[int, float] = {}
    for group in groups:
        for family, (dash, _) in REFERENCES.items():
            points = _series([group], cells, records, family)
            style = {"color": group.color, "marker": group.marker, "linestyle": dash}
            _line(ax, points, group.place, **style)
            for n, record in points:
                if record.get("chance") is not None:
                    chance[n] = worst(chance.get(n, record["chance"]), record["chance"])
    _chance(ax, chance)


def _line(
    ax: Axes, points: Sequence[tuple[int, Mapping[str, Any]]], place: float, **style: Any
) -> None:
    if points:
        draw_intervals(
            ax,
            [n * APART**place for n, _ in points],
            [r["value"] for _, r in points],
            [r.get("ci95") for _, r in points],
            **style,
        )


def _chance(ax: Axes, chance: Mapping[int, float]) -> None:
    if chance:
        sizes = sorted(chance)
        ax.plot(sizes, [chance[n] for n in sizes], ":", color=DIM, linewidth=1.2, zorder=1)


def _ceiling(inputs: ReportInputs) -> dict[int, float]:
    """Per ``n_train``, RP of the optimum solved in few steps with itself in many."""
    rows = inputs.analyses.get("ceiling", {}).get("rows", ())
    return {r["n_train"]: r["rp"] for r in rows if "steps" in r["change"] and r["other_ci95"]}


def _pale(ax: Axes, values: Mapping[int, float]) -> None:
    sizes = sorted(values)
    ax.plot(sizes, [values[n] for n in sizes], color=PALE, linewidth=3, zorder=1)


def _models(ax: Axes, groups: Sequence[Group], models: Mapping[str, ModelRow]) -> None:
    reference: dict[int, float] = {}
    for group in groups:
        rows = [(n, models[name]) for n, name in group.names.items() if name in models]
        for score, dash in (("gl", "-"), ("memorized", "--")):
            points = [(n, r) for n, row in rows if (r := getattr(row, score))]
            face = {} if score == "gl" else {"markerfacecolor": "white"}
            style = {"color": group.color, "marker": group.marker, "linestyle": dash, **face}
            _line(ax, points, group.place, **style)
        known = {n: row.gl["reference"] for n, row in rows if row.gl}
        reference |= {n: value for n, value in known.items() if value is not None}
    sizes = sorted(reference)
    _pale(ax, reference)
    handles = [Line2D([], [], color=INK, marker="o", ms=4, label="GL")]
    if sizes:
        handles.append(Line2D([], [], color=PALE, linewidth=3, label="GL, held-out images"))
    if any(row.memorized for row in models.values()):
        style = {"linestyle": "--", "marker": "o", "ms": 4, "markerfacecolor": "white"}
        handles.append(Line2D([], [], color=INK, label="memorized", **style))
    _legend(ax, handles)


def _between(groups: Sequence[Group], rp: Records) -> dict[str, list]:
    """(n_train, record) of networks of two groups with equal ``n_train``, by the pair's label."""
    found = {}
    for a, b in combinations(groups, 2):
        both = [n for n in a.names if n in b.names]
        pairs = [(n, rp.get(frozenset((a.names[n], b.names[n])))) for n in both]
        points = [(n, record) for n, record in pairs if record]
        if points:
            found[f"{label(a.label)} × {label(b.label)}"] = points
    return found


def _networks(ax: Axes, groups: Sequence[Group], rp: Records) -> None:
    chance: dict[int, float] = {}
    lines, handles = _between(groups, rp), []
    for i, (text, points) in enumerate(lines.items()):
        style = {"color": LINES[(i + 3) % len(LINES)], "marker": MARKERS[(i + 3) % len(MARKERS)]}
        if len(lines) == 1:
            style["color"] = INK
        _line(ax, points, i - (len(lines) - 1) / 2, **style)
        handles.append(Line2D([], [], ms=4, label=text, **style))
        for n, record in points:
            chance[n] = max(chance.get(n, 0.0), record["chance"])
    _chance(ax, chance)
    _legend(ax, handles)


def _legend(ax: Axes, handles: Sequence[Line2D]) -> None:
    ax.legend(
        handles=handles, loc="best", fontsize=7.5, frameon=True, framealpha=0.8, edgecolor="w"
    )


def _caption(scores: Mapping[str, Any], panels: Mapping[str, Any], families: Sequence[str]) -> str:
    row = next(iter(main_pairs(scores)), None)
    how = [sampling_words(scores)]
    if row:
        how.append(f"RP: cosine above {format_share(row.rp['threshold'])} in {row.descriptor}")
    texts = [REFERENCES[family][1] for family in families]
    parts = [
        f"Over the number of training images, networks against the {listed(texts)}, all from the "
        f"same noises through the same solver ({'; '.join(filter(None, how))}). "
        "Thin bars: 95 % intervals; models at one N stand a little apart."
    ]
    if any("PFD" in title for title in panels):
        parts.append("PFD is the root-mean-square gap between two maps from noise to image.")
    parts.append(
        "Dotted: chance, the same between samples of different noises (the value hardest to tell "
        "from agreement at each N)."
    )
    return " ".join(parts)
