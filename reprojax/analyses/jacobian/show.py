"""Shows the numerical rank of the denoiser's Jacobian over the noise level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from reprojax.drawing import draw, formats
from reprojax.report.inputs import ReportInputs
from reprojax.report.tables import Table

LEADS = False
TITLES = {"rank": "numerical rank", "stable_rank": "stable rank"}


def figures(inputs: ReportInputs) -> list[draw.Plate]:
    """Draws the rank of each cell's Jacobian over sigma with its interval."""
    analysis = inputs.analyses.get("jacobian") or {}
    rows = analysis.get("rows")
    if not rows:
        return []
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    fig = draw.new_figure(4.1 * len(TITLES) + 1.6, 3.4)
    axes = fig.subplots(1, len(TITLES), squeeze=False)[0]
    styles = draw.marked_styles(cells)
    for ax, (key, title) in zip(axes, TITLES.items()):
        for cell in cells:
            own = sorted((r for r in rows if r["cell"] == cell), key=lambda r: r["sigma"])
            _draw_line(ax, own, key, styles[cell])
        _finish(ax, title, analysis["dimension"] if key == "rank" else None)
    draw.side_legend(fig, axes[0].get_legend_handles_labels()[0])
    eta, dimension = formats.share(analysis["eta"]), formats.count(analysis["dimension"])
    caption = (
        "Numerical rank of the denoiser's Jacobian at noise level σ: how many of its "
        f"{dimension} singular values it takes to hold {eta} of its Frobenius norm. Mean over "
        f"{formats.count(analysis['n'])} images with the noise of σ added; bands: 95 % intervals. "
        "Stable rank: squared Frobenius norm over squared largest singular value."
    )
    alt = (
        f"Rank over noise level for {len(cells)} models, from "
        f"{formats.span([row['rank'] for row in rows], formats.distance)} of {dimension}."
    )
    title = "How many directions a denoiser lets through"
    return [draw.Plate("jacobian", title, caption, alt, fig)]


def tables(inputs: ReportInputs) -> list[Table]:
    """Makes a table of the rank at the smallest, the most telling and the largest sigma."""
    analysis = inputs.analyses["jacobian"]
    texts = []
    for cell in dict.fromkeys(row["cell"] for row in analysis["rows"]):
        rows = [row for row in analysis["rows"] if row["cell"] == cell]
        rows.sort(key=lambda row: row["sigma"])
        top = max(rows, key=lambda row: row["rank"])
        ends = (f"{row['rank']:.1f} at {row['sigma']:g}" for row in (rows[0], top, rows[-1]))
        texts.append((cell, *ends, formats.count(analysis["dimension"])))
    columns = ("model", "smallest sigma", "most", "largest sigma", "dimension")
    return [Table("Rank of the Jacobian", columns, 1, tuple(texts))]


def _draw_line(
    ax: Axes, rows: Sequence[Mapping[str, Any]], key: str, style: Mapping[str, str]
) -> None:
    sigma, name = [row["sigma"] for row in rows], draw.label(rows[0]["cell"])
    ax.plot(sigma, draw.numbers(row[key] for row in rows), ms=3.5, lw=1.4, label=name, **style)
    if key == "rank":
        low, high = (draw.numbers(row["ci95"][end] for row in rows) for end in (0, 1))
        ax.fill_between(sigma, low, high, color=style["color"], alpha=0.18, linewidth=0)


def _finish(ax: Axes, title: str, dimension: int | None) -> None:
    ax.set_xscale("log")
    draw.style_axes(ax, x="noise level σ")
    ax.set_title(title, fontsize=9, loc="left", color=draw.INK)
    if dimension:
        ax.axhline(dimension, color=draw.DIM, linewidth=1, linestyle=":")
        place = {"transform": ax.get_yaxis_transform(), "ha": "right", "va": "bottom"}
        ax.text(0.99, dimension, f"all {dimension}", fontsize=7.5, color=draw.DIM, **place)
    ax.set_ylim(bottom=0)
