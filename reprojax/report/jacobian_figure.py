"""The figure of the denoiser's Jacobian: its numerical rank over the noise level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from reprojax.report.formats import format_count, format_distance, format_share, format_span
from reprojax.report.inputs import ReportInputs
from reprojax.report.plotting import (
    DIM,
    INK,
    Plate,
    label,
    marked_styles,
    new_figure,
    numbers,
    style_axes,
)

TITLES = {"rank": "numerical rank", "stable_rank": "stable rank"}


def jacobian_plate(inputs: ReportInputs) -> Plate | None:
    """Draws the rank of each cell's Jacobian over sigma with its interval; None without it."""
    found = inputs.analyses.get("jacobian") or {}
    rows = [row for row in found.get("rows") or () if row.get("rank") is not None]
    if not rows:
        return None
    panels = [key for key in TITLES if any(row.get(key) is not None for row in rows)]
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    fig = new_figure(4.1 * len(panels) + 1.6, 3.4)
    axes = fig.subplots(1, len(panels), squeeze=False)[0]
    styles = marked_styles(cells)
    for ax, key in zip(axes, panels):
        for cell in cells:
            own = sorted((r for r in rows if r["cell"] == cell), key=lambda r: r["sigma"])
            _line(ax, own, key, styles[cell])
        _axes(ax, TITLES[key], found.get("dimension") if key == "rank" else None)
    handles = axes[0].get_legend_handles_labels()[0]
    fig.legend(handles=handles, loc="outside right center", fontsize=8, frameon=False)
    eta, dimension = format_share(found.get("eta")), format_count(found.get("dimension"))
    caption = (
        "Numerical rank of the denoiser's Jacobian at noise level σ: how many of its "
        f"{dimension} singular values it takes to hold {eta} of its Frobenius norm. Mean over "
        f"{format_count(found.get('n'))} images with the noise of σ added; bands: 95 % intervals."
    )
    if "stable_rank" in panels:
        caption += " Stable rank: squared Frobenius norm over squared largest singular value."
    alt = (
        f"Rank over noise level for {len(cells)} models, from "
        f"{format_span([row['rank'] for row in rows], format_distance)} of {dimension}."
    )
    return Plate("jacobian", "How many directions a denoiser lets through", caption, alt, fig)


def _line(ax: Axes, rows: Sequence[Mapping[str, Any]], key: str, style: Mapping[str, str]) -> None:
    sigma = [row["sigma"] for row in rows]
    name = label(rows[0]["cell"])
    ax.plot(sigma, numbers([row.get(key) for row in rows]), ms=3.5, lw=1.4, label=name, **style)
    if key == "rank":
        bands = [row.get("ci95") or (np.nan, np.nan) for row in rows]
        low, high = numbers([b[0] for b in bands]), numbers([b[1] for b in bands])
        ax.fill_between(sigma, low, high, color=style["color"], alpha=0.18, linewidth=0)


def _axes(ax: Axes, title: str, dimension: int | None) -> None:
    ax.set_xscale("log")
    style_axes(ax)
    ax.set_xlabel("noise level σ", fontsize=8)
    ax.set_title(title, fontsize=9, loc="left", color=INK)
    if dimension:
        ax.axhline(dimension, color=DIM, linewidth=1, linestyle=":")
        ax.text(
            0.99, dimension, f"all {dimension}", transform=ax.get_yaxis_transform(),
            ha="right", va="bottom", fontsize=7.5, color=DIM,
        )  # fmt: skip
    ax.set_ylim(bottom=0)
