"""The figure of encoding: an image to its noise through one model, and back through another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reprojax.report.formats import format_bound, format_distance, format_share, format_span
from reprojax.report.inputs import ReportInputs
from reprojax.report.plotting import (
    INK,
    MOST_PRINTED,
    Plate,
    draw_matrix,
    label,
    listed,
    new_figure,
    share_bar,
)

SOURCES = {"heldout": "held-out images", "samples": "encoder's own samples"}
WIDEST = 9.0  # inches of matrices side by side


def encoding_plate(inputs: ReportInputs) -> Plate | None:
    """Draws RP of images with what is decoded from their encodings, a matrix for each source.

    After them stands, where it is known, how the encodings of two models correlate. None
    without encodings.
    """
    found = inputs.analyses.get("encoding") or {}
    trips, transplants = found.get("round_trips") or [], found.get("transplants") or []
    rows = [*trips, *transplants]
    if not rows:
        return None
    cells = list(
        dict.fromkeys([r["cell"] for r in trips] + [r[s] for r in transplants for s in "ab"])
    )
    latents = found.get("latents") or []
    sources = [s for s in SOURCES if any(row["source"] == s for row in rows)]
    panels = [(f"{SOURCES[s]}: RP", _exchanges(cells, s, trips, transplants)) for s in sources]
    for s in SOURCES:
        if any(row["source"] == s for row in latents):
            panels.append((f"{SOURCES[s]}: correlation of noises", _likeness(cells, s, latents)))
    fig = _draw(panels, [label(cell) for cell in cells], len(sources))
    alt = (
        f"Matrices of RP over {len(cells)} models for {listed([SOURCES[s] for s in sources])}; "
        f"round trips {format_span(r['rp'] for r in trips)}, between models "
        f"{format_span(r['rp'] for r in transplants)}."
    )
    return Plate("encoding", "Encoded by one model, decoded by another", _caption(found), alt, fig)


def _draw(panels: Sequence[tuple[str, np.ndarray]], names: Sequence[str], exchanges: int) -> Figure:
    n = len(names)
    side = (0.5 if n <= MOST_PRINTED else 0.24) * n + 0.35
    columns = len(panels) if side * len(panels) < WIDEST or len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    fig = new_figure(max(5.2, side * columns + 2.2), (side + 1.05) * rows)
    fig.set_layout_engine("compressed", hspace=0.08)
    axes = fig.subplots(rows, columns, squeeze=False, sharey=True)
    for i, (ax, (title, values)) in enumerate(zip(axes.flat, panels)):
        image = draw_matrix(ax, values, names, names)
        ax.set_aspect("equal")
        ax.set_title(title, fontsize=8.5, color=INK)
        if i < exchanges:
            ax.set_xlabel("decoded with", fontsize=8)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    axes[0, 0].set_ylabel("encoded with", fontsize=8)
    share_bar(fig, image, axes)
    return fig


def _exchanges(
    cells: Sequence[str],
    source: str,
    trips: Sequence[Mapping[str, Any]],
    transplants: Sequence[Mapping[str, Any]],
) -> np.ndarray:
    """RP `[encoder, decoder]`, NaN where unknown."""
    values = np.full((len(cells), len(cells)), np.nan)
    found = [(row["cell"], row["cell"], row) for row in trips]
    found += [(row["a"], row["b"], row) for row in transplants]
    for a, b, row in found:
        if row["source"] == source and row["rp"] is not None:
            values[cells.index(a), cells.index(b)] = row["rp"]
    return values


def _likeness(
    cells: Sequence[str], source: str, latents: Sequence[Mapping[str, Any]]
) -> np.ndarray:
    """Correlation of two models' noises of the same images, NaN where unknown."""
    values = np.full((len(cells), len(cells)), np.nan)
    for row in latents:
        if row["source"] == source and row["correlation"] is not None:
            i, j = cells.index(row["a"]), cells.index(row["b"])
            values[i, j] = values[j, i] = row["correlation"]
    return values


def _caption(found: Mapping[str, Any]) -> str:
    trips, transplants = found.get("round_trips") or [], found.get("transplants") or []
    how = [f"{found['n']} images"]
    if found.get("solver"):
        how.append(f"{found['solver']} with {found.get('steps')} steps each way")
    if found.get("threshold") is not None:
        how.append(f"threshold {format_share(found['threshold'])}")
    parts = [
        "RP between images and what a model (column) makes of the noise that a model (row) encodes "
        f"them to; on the diagonal the round trip through one model ({', '.join(how)})."
    ]
    chance = [r["chance"] for r in [*trips, *transplants] if r.get("chance") is not None]
    if chance:
        parts.append(
            f"Between different images it is (chance) at most {format_bound(max(chance))}."
        )
    pfd = [
        f"{format_span(gaps, format_distance)} {what}"
        for rows, what in ((trips, "for round trips"), (transplants, "between models"))
        if (gaps := [row["pfd"] for row in rows if row.get("pfd") is not None])
    ]
    if pfd:
        parts.append(f"Root-mean-square gap in grey levels of 255: {', '.join(pfd)}.")
    if found.get("latents"):
        gaps = [r["rmse"] for r in found["latents"] if r.get("rmse") is not None]
        parts.append(
            "Last: correlation of the noises that two models encode the same images to"
            + (f"; they differ by {format_span(gaps, format_distance)} (RMS)." if gaps else ".")
        )
    return " ".join(parts)
