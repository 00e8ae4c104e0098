"""Shows encoding: an image to its noise through one model, and back through another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reprojax.drawing import draw, formats
from reprojax.report.inputs import ReportInputs
from reprojax.report.tables import Table
from reprojax.report.words import listed

LEADS = False
SOURCES = {"heldout": "held-out images", "samples": "encoder's own samples"}
WIDEST = 9.0  # inches of matrices side by side

Rows = Sequence[Mapping[str, Any]]


def figures(inputs: ReportInputs) -> list[draw.Plate]:
    """Draws RP of images with what is decoded from their encodings, a matrix for each source.

    After them stand matrices of how the encodings of two models correlate, where that is known.
    """
    analysis = inputs.analyses.get("encoding") or {}
    rows = _exchanges(analysis) if analysis else []
    if not rows:
        return []
    latents = analysis["latents"]
    cells = list(dict.fromkeys(name for row in rows for name in (row["a"], row["b"])))
    sources = [s for s in SOURCES if any(row["source"] == s for row in rows)]
    panels = [(f"{SOURCES[s]}: RP", _matrix(cells, s, rows, "rp")) for s in sources]
    for s in SOURCES:
        if any(row["source"] == s for row in latents):
            both = [*latents, *({**row, "a": row["b"], "b": row["a"]} for row in latents)]
            values = _matrix(cells, s, both, "correlation")
            panels.append((f"{SOURCES[s]}: correlation of noises", values))
    fig = _draw(panels, [draw.label(cell) for cell in cells], len(sources))
    trips, transplants = analysis["round_trips"], analysis["transplants"]
    alt = (
        f"Matrices of RP over {len(cells)} models for {listed([SOURCES[s] for s in sources])}; "
        f"round trips {formats.span(r['rp'] for r in trips)}, between models "
        f"{formats.span(r['rp'] for r in transplants)}."
    )
    title = "Encoded by one model, decoded by another"
    return [draw.Plate("encoding", title, _caption(analysis, rows), alt, fig)]


def tables(inputs: ReportInputs) -> list[Table]:
    """Makes a table with a row for each encoder, decoder and source of images."""
    rows = tuple(
        (
            row["a"],
            row["b"],
            row["source"],
            formats.with_interval(row["rp"], row["ci95"]),
            formats.share(row["chance"]),
            formats.distance(row["pfd"]),
        )
        for row in _exchanges(inputs.analyses["encoding"])
    )
    columns = ("encoded by", "decoded by", "images", "RP", "chance", "PFD")
    return [Table("Images encoded and decoded", columns, 3, rows)]


def _exchanges(analysis: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns all rows with their encoder ``a`` and decoder ``b``, the round trips first."""
    trips = [{**row, "a": row["cell"], "b": row["cell"]} for row in analysis["round_trips"]]
    return [*trips, *analysis["transplants"]]


def _matrix(cells: Sequence[str], source: str, rows: Rows, key: str) -> np.ndarray:
    """Returns a value by ``[a, b]``, NaN where unknown."""
    values = np.full((len(cells), len(cells)), np.nan)
    for row in rows:
        if row["source"] == source and row[key] is not None:
            values[cells.index(row["a"]), cells.index(row["b"])] = row[key]
    return values


def _draw(panels: Sequence[tuple[str, np.ndarray]], names: Sequence[str], exchanges: int) -> Figure:
    n = len(names)
    side = (0.5 if n <= draw.MOST_PRINTED else 0.24) * n + 0.35
    columns = len(panels) if side * len(panels) < WIDEST or len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    fig = draw.new_figure(max(5.2, side * columns + 2.2), (side + 1.05) * rows)
    fig.set_layout_engine("compressed", hspace=0.08)
    axes = fig.subplots(rows, columns, squeeze=False, sharey=True)
    for i, (ax, (title, values)) in enumerate(zip(axes.flat, panels)):
        image = draw.matrix(ax, values, names, names)
        ax.set_aspect("equal")
        ax.set_title(title, fontsize=8.5, color=draw.INK)
        if i < exchanges:
            ax.set_xlabel("decoded with", fontsize=8)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    axes[0, 0].set_ylabel("encoded with", fontsize=8)
    draw.share_bar(fig, image, ax=axes, shrink=0.7)
    return fig


def _caption(analysis: Mapping[str, Any], rows: Rows) -> str:
    parts = [
        "RP between images and what a model (column) makes of the noise that a model (row) encodes "
        f"them to; on the diagonal the round trip through one model ({analysis['n']} images; "
        f"{analysis['solver']} with {analysis['steps']} steps each way; threshold "
        f"{formats.share(analysis['threshold'])}).",
        "Between different images it is (chance) at most "
        f"{formats.bound(max(row['chance'] for row in rows))}.",
    ]
    gaps = [
        f"{formats.span((row['pfd'] for row in own), formats.distance)} {what}"
        for key, what in (("round_trips", "for round trips"), ("transplants", "between models"))
        if (own := analysis[key])
    ]
    parts.append(f"Root-mean-square gap in grey levels of 255: {', '.join(gaps)}.")
    if analysis["latents"]:
        rmse = formats.span((row["rmse"] for row in analysis["latents"]), formats.distance)
        parts.append(
            "Last: correlation of the noises that two models encode the same images to; they "
            f"differ by {rmse} (RMS)."
        )
    return " ".join(parts)
