"""The figure of solvers: how many evaluations each needs to draw the limit's images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from reprojax.report.formats import format_bound, format_count, format_share, format_span
from reprojax.report.inputs import ReportInputs
from reprojax.report.plotting import (
    BLUE,
    DIM,
    GREEN,
    INK,
    MARKERS,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    Plate,
    draw_intervals,
    label,
    new_figure,
    numbers,
    style_axes,
)

MOST_COLUMNS = 4
GUIDES = (0.9, 0.99)
STEADY = (BLUE, GREEN, ORANGE, PURPLE, SKY, INK)  # of deterministic solvers
RANDOM = (RED, DIM)  # of stochastic ones, which are dashed besides

Rows = Sequence[Mapping[str, Any]]


def solver_plate(inputs: ReportInputs) -> Plate | None:
    """Draws RP with and PFD to the solvers' limit over evaluations; None without such a study."""
    found = inputs.analyses.get("solvers") or {}
    rows = [row for row in found.get("rows") or () if row.get("nfe")]
    if not rows:
        return None
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    styles = solver_styles(rows)
    fig = _draw(cells, rows, styles)
    limit = found["limit"]
    chance = [row["chance"] for row in rows if row.get("chance") is not None]
    caption = (
        f"Above: RP with the limit, {limit['solver']} with {limit['nfe']:,.0f} evaluations, from "
        f"the same {format_count(found.get('n'))} noises, over evaluations of the network "
        f"(threshold {format_share(found.get('threshold'))}; bars: 95 % intervals; guides at "
        f"{' and '.join(format_share(g) for g in GUIDES)}). Below: PFD, the root-mean-square "
        "distance to the limit in grey levels of 255."
    )
    if chance:
        caption += f" Dotted: chance, at most {format_bound(max(chance))}."
    caption += _reached(found.get("reaches") or (), cells)
    counts = format_span((row["nfe"] for row in rows), lambda v: format_count(round(v)))
    alt = (
        f"Curves of {listed_solvers(styles)} on {len(cells)} models; RP with the limit "
        f"{format_span(row['rp'] for row in rows)} over {counts} evaluations."
    )
    return Plate("solvers", "How fast each solver reaches the limit", caption, alt, fig)


def solver_styles(rows: Rows) -> dict[str, dict[str, str]]:
    """Colour, dash and marker of each solver, deterministic ones first."""
    random = {row["solver"]: bool(row.get("stochastic")) for row in rows}
    steady = [name for name, stochastic in random.items() if not stochastic]
    others = [name for name, stochastic in random.items() if stochastic]
    styles = {
        name: {
            "color": STEADY[i % len(STEADY)],
            "linestyle": ("-", "-.", ":")[i // len(STEADY) % 3],
            "marker": MARKERS[i % len(MARKERS)],
        }
        for i, name in enumerate(steady)
    }
    for i, name in enumerate(others):
        marker = MARKERS[-1 - i % len(MARKERS)]
        styles[name] = {"color": RANDOM[i % 2], "linestyle": "--", "marker": marker}
    return styles


def listed_solvers(styles: Mapping[str, Mapping[str, str]]) -> str:
    """How many solvers of each sort, in words."""
    stochastic = sum(style["linestyle"] == "--" for style in styles.values())
    parts = [f"{len(styles) - stochastic} deterministic"] if stochastic < len(styles) else []
    parts += [f"{stochastic} stochastic"] if stochastic else []
    return f"{' and '.join(parts)} solvers"


def _draw(cells: Sequence[str], rows: Rows, styles: Mapping[str, Mapping[str, str]]) -> Figure:
    """A column for each cell, in blocks of as many as the page has room for."""
    blocks = -(-len(cells) // MOST_COLUMNS)
    columns = -(-len(cells) // blocks)
    fig = new_figure(max(6.0, 2.35 * columns + 2.2), 4.6 * blocks)
    axes = fig.subplots(2 * blocks, columns, sharex=True, squeeze=False)
    for k, cell in enumerate(cells):
        top, bottom = axes[2 * (k // columns) :][:2, k % columns]
        own = [row for row in rows if row["cell"] == cell]
        _panel(top, own, styles, "rp")
        _panel(bottom, own, styles, "pfd")
        top.set_title(label(cell), fontsize=8.5, color=INK)
        bottom.set_xlabel("evaluations", fontsize=8)
        bottom.tick_params(labelbottom=True)
        if k % columns == 0:
            top.set_ylabel("RP with the limit", fontsize=8)
            bottom.set_ylabel("PFD to the limit", fontsize=8)
    for k in range(len(cells), blocks * columns):
        for ax in axes[2 * (k // columns) :][:2, k % columns]:
            ax.set_axis_off()
    _share_rows(axes)
    fig.legend(handles=_handles(styles), loc="outside right center", fontsize=8, frameon=False)
    return fig


def _panel(ax: Axes, rows: Rows, styles: Mapping[str, Mapping[str, str]], score: str) -> None:
    for name, style in styles.items():
        own = sorted((row for row in rows if row["solver"] == name), key=lambda row: row["nfe"])
        if not own:
            continue
        values = numbers([row.get(score) for row in own])
        if score == "pfd":
            values[~(values > 0)] = np.nan  # the limit itself has no place on this scale
        intervals = [row.get("ci95") if score == "rp" else None for row in own]
        nfe = [row["nfe"] for row in own]
        draw_intervals(ax, nfe, values, intervals, **{**style, "ms": 3.5, "lw": 1.2})
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(LogLocator(base=2, numticks=7))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    style_axes(ax)
    if score == "pfd":
        if any((row.get("pfd") or 0) > 0 for row in rows):
            ax.set_yscale("log")
        return
    chance: dict[float, float] = {}
    for row in rows:
        if row.get("chance") is not None:
            chance[row["nfe"]] = max(chance.get(row["nfe"], 0.0), row["chance"])
    steps = sorted(chance)
    ax.plot(steps, [chance[x] for x in steps], ":", color=DIM, linewidth=1.2, zorder=1)
    for guide in GUIDES:
        ax.axhline(guide, color=INK, linewidth=0.7, linestyle=(0, (6, 3)), zorder=1)
    ax.set_ylim(-0.03, 1.05)


def _share_rows(axes: np.ndarray) -> None:
    """The same range of RP and of PFD in all panels, with labels at the left only."""
    shown = [ax for ax in axes[1::2].flat if ax.axison]
    low = min(ax.get_ylim()[0] for ax in shown)
    high = max(ax.get_ylim()[1] for ax in shown)
    for ax in shown:
        ax.set_ylim(low, high)
    for ax in axes[:, 1:].flat:
        ax.tick_params(labelleft=False)


def _handles(styles: Mapping[str, Mapping[str, str]]) -> list[Line2D]:
    """Deterministic and stochastic solvers beneath headings of their own."""
    groups = {
        "deterministic": [n for n, s in styles.items() if s["linestyle"] != "--"],
        "stochastic": [n for n, s in styles.items() if s["linestyle"] == "--"],
    }
    handles = []
    for heading, names in groups.items():
        if names:
            handles.append(Line2D([], [], linestyle="", label=f"{heading}:"))
        handles += [Line2D([], [], ms=4, lw=1.2, label=label(n), **styles[n]) for n in names]
    handles.append(Line2D([], [], color=DIM, linestyle=":", linewidth=1.2, label="chance"))
    return handles


def _reached(reaches: Rows, cells: Sequence[str]) -> str:
    """Per cell the solver with the fewest evaluations to RP .9 and .99."""
    parts = []
    for cell in cells:
        own = [row for row in reaches if row["cell"] == cell]
        if not own:
            continue
        words = []
        for key, share in (("nfe_90", ".90"), ("nfe_99", ".99")):
            known = [row for row in own if row.get(key) is not None]
            best = min(known, key=lambda row: row[key], default=None)
            words.append(
                f"{share} {best['solver']} with {best[key]:.0f}" if best else f"{share} none"
            )
        parts.append(f"{cell} {', '.join(words)}")
    return f" Fewest evaluations to reach RP: {'; '.join(parts)}." if parts else ""
