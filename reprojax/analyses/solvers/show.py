"""Shows how many evaluations each solver needs to draw the limit's images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from reprojax.analyses.solvers.measure import LEVELS
from reprojax.drawing import draw, formats
from reprojax.report.inputs import ReportInputs
from reprojax.report.tables import Table

LEADS = False
MOST_COLUMNS = 4
# The colours of deterministic solvers, and of stochastic ones, which are dashed besides.
STEADY = (draw.BLUE, draw.GREEN, draw.ORANGE, draw.PURPLE, draw.SKY, draw.INK)
RANDOM = (draw.RED, draw.DIM)

Rows = Sequence[Mapping[str, Any]]
Styles = Mapping[str, Mapping[str, str]]


def figures(inputs: ReportInputs) -> list[draw.Plate]:
    """Draws RP with and PFD to the solvers' limit over evaluations of the network."""
    analysis = inputs.analyses.get("solvers") or {}
    rows = analysis.get("rows")
    if not rows:
        return []
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    styles, limit = solver_styles(rows), analysis["limit"]
    guides = " and ".join(formats.share(guide) for guide in LEVELS.values())
    caption = (
        f"Above: RP with the limit, {limit['solver']} with {limit['nfe']:,.0f} evaluations, from "
        f"the same {formats.count(analysis['n'])} noises, over evaluations of the network "
        f"(threshold {formats.share(analysis['threshold'])}; bars: 95 % intervals; guides at "
        f"{guides}). Below: PFD, the root-mean-square distance to the limit in grey levels of 255. "
        f"Dotted: chance, at most {formats.bound(max(row['chance'] for row in rows))}."
        f"{_fewest(analysis['reaches'], cells)}"
    )
    counts = formats.span((row["nfe"] for row in rows), lambda v: formats.count(round(v)))
    alt = (
        f"Curves of {_counted(styles)} on {len(cells)} models; RP with the limit "
        f"{formats.span(row['rp'] for row in rows)} over {counts} evaluations."
    )
    fig = _draw(cells, rows, styles)
    return [draw.Plate("solvers", "How fast each solver reaches the limit", caption, alt, fig)]


def tables(inputs: ReportInputs) -> list[Table]:
    """Makes a table of the evaluations that each solver needs for each cell."""
    analysis = inputs.analyses["solvers"]
    texts = []
    for row in analysis["reaches"]:
        same = [r for r in analysis["rows"] if all(r[k] == row[k] for k in ("cell", "solver"))]
        most = max(same, key=lambda r: r["nfe"])
        solver = row["solver"] + (" (stochastic)" if most["stochastic"] else "")
        costs = (formats.MISSING if row[key] is None else f"{row[key]:.0f}" for key in LEVELS)
        rp = formats.with_interval(most["rp"], most["ci95"])
        texts.append((row["cell"], solver, *costs, f"{most['nfe']:.0f}", rp))
    columns = ("model", "solver", ".90", ".99", "most", "RP there")
    return [Table("Evaluations until RP with the limit is", columns, 2, tuple(texts))]


def solver_styles(rows: Rows) -> dict[str, dict[str, str]]:
    """Returns colour, dash and marker of each solver, deterministic ones first."""
    stochastic = {row["solver"]: row["stochastic"] for row in rows}
    steady = [name for name in stochastic if not stochastic[name]]
    random = [name for name in stochastic if stochastic[name]]
    styles = {
        name: {
            "color": STEADY[i % len(STEADY)],
            "linestyle": ("-", "-.", ":")[i // len(STEADY) % 3],
            "marker": draw.MARKERS[i % len(draw.MARKERS)],
        }
        for i, name in enumerate(steady)
    }
    for i, name in enumerate(random):
        marker = draw.MARKERS[-1 - i % len(draw.MARKERS)]
        styles[name] = {"color": RANDOM[i % 2], "linestyle": "--", "marker": marker}
    return styles


def _sorts(styles: Styles) -> dict[str, list[str]]:
    """Returns the deterministic and the stochastic solvers, without a sort that has none."""
    sorts = {
        "deterministic": [name for name, s in styles.items() if s["linestyle"] != "--"],
        "stochastic": [name for name, s in styles.items() if s["linestyle"] == "--"],
    }
    return {sort: names for sort, names in sorts.items() if names}


def _counted(styles: Styles) -> str:
    counts = (f"{len(names)} {sort}" for sort, names in _sorts(styles).items())
    return f"{' and '.join(counts)} solvers"


def _draw(cells: Sequence[str], rows: Rows, styles: Styles) -> Figure:
    """Draws a column for each cell, in blocks of as many as the page has room for."""
    blocks = -(-len(cells) // MOST_COLUMNS)
    columns = -(-len(cells) // blocks)
    fig = draw.new_figure(max(6.0, 2.35 * columns + 2.2), 4.6 * blocks)
    axes = fig.subplots(2 * blocks, columns, sharex=True, sharey="row", squeeze=False)
    for k in range(blocks * columns):
        top, bottom = axes[2 * (k // columns) :][:2, k % columns]
        if k >= len(cells):
            top.set_axis_off()
            bottom.set_axis_off()
            continue
        own, left = [row for row in rows if row["cell"] == cells[k]], k % columns == 0
        _draw_panel(top, own, styles, "rp")
        _draw_panel(bottom, own, styles, "pfd")
        draw.style_axes(top, title=draw.label(cells[k]), y="RP with the limit" if left else "")
        draw.style_axes(bottom, x="evaluations", y="PFD to the limit" if left else "")
        bottom.tick_params(labelbottom=True)
    draw.side_legend(fig, _entries(styles))
    return fig


def _draw_panel(ax: Axes, rows: Rows, styles: Styles, score: str) -> None:
    for name, style in styles.items():
        own = sorted((row for row in rows if row["solver"] == name), key=lambda row: row["nfe"])
        if not own:
            continue
        values = draw.numbers(row[score] for row in own)
        if score == "pfd":
            values[~(values > 0)] = np.nan  # the limit itself has no place on this scale
        intervals = [row["ci95"] if score == "rp" else None for row in own]
        nfe = [row["nfe"] for row in own]
        draw.intervals(ax, nfe, values, intervals, **{**style, "ms": 3.5, "lw": 1.2})
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(LogLocator(base=2, numticks=7))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    if score == "pfd":
        if any(row["pfd"] > 0 for row in rows):
            ax.set_yscale("log")
        return
    steps = sorted({row["nfe"] for row in rows})
    chance = [max(row["chance"] for row in rows if row["nfe"] == nfe) for nfe in steps]
    ax.plot(steps, chance, ":", color=draw.DIM, linewidth=1.2, zorder=1)
    for guide in LEVELS.values():
        ax.axhline(guide, color=draw.INK, linewidth=0.7, linestyle=(0, (6, 3)), zorder=1)
    ax.set_ylim(-0.03, 1.05)


def _entries(styles: Styles) -> list[Line2D]:
    """Returns legend entries of deterministic and stochastic solvers beneath their headings."""
    handles = []
    for sort, names in _sorts(styles).items():
        handles.append(draw.entry(f"{sort}:", linestyle=""))
        handles += [draw.entry(draw.label(name), lw=1.2, **styles[name]) for name in names]
    return [*handles, draw.entry("chance", color=draw.DIM, linestyle=":", linewidth=1.2)]


def _fewest(reaches: Rows, cells: Sequence[str]) -> str:
    """Says for each cell which solver reaches each guide with the fewest evaluations."""
    parts = []
    for cell in cells:
        words = []
        for key, guide in LEVELS.items():
            solvers = [r for r in reaches if r["cell"] == cell and r[key] is not None]
            best = min(solvers, key=lambda row: row[key], default=None)
            how = f"{best['solver']} with {best[key]:.0f}" if best else "no solver"
            words.append(f"{how} for {formats.share(guide)}")
        parts.append(f"{cell}: {', '.join(words)}")
    return f" The fewest evaluations that reach an RP: {'; '.join(parts)}." if reaches else ""
