"""The figure of optimal transport: how near a model's map comes to the cheapest pairing."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from reprojax.drawing import draw, formats
from reprojax.report.inputs import ReportInputs
from reprojax.report.words import sampling_words
from reprojax.scoring.scores import TransportRow
from reprojax.scoring.views import model_names


def transport_plate(inputs: ReportInputs) -> draw.Plate | None:
    """Draws each model's place between random and optimal pairing; None where it is unknown."""
    scores = inputs.scores
    by_name = {row.name: row for row in scores.transport}
    rows = [by_name[name] for name in model_names(scores) if name in by_name]
    if not rows:
        return None
    kinds = [scores.cells[row.name].kind for row in rows]
    fig = draw.new_figure(7.6, 0.3 * len(rows) + 1.4)
    _dots(fig.add_subplot(), rows, kinds)
    pairing = draw.dot_entry("noises paired alike", marker="D", ms=4, markerfacecolor="white")
    draw.top_legend(fig, [*draw.kind_entries(kinds), pairing], 5)
    costs = [
        f"{name} {formats.span((getattr(row, key) for row in rows), formats.distance)}"
        for key, name in (("cost", "of the model"), ("optimal", "optimal"), ("random", "random"))
    ]
    caption = (
        "How much of the saving of optimal transport a model's pairing of noises with its own "
        "images recovers: 1 is the pairing of least squared distance, 0 a random one "
        f"({sampling_words(scores, max(row.n for row in rows))}). Diamonds: the share of noises "
        "that the optimal pairing gives the same image. Mean squared distance per pixel: "
        f"{', '.join(costs)}."
    )
    span = formats.span((row.recovered for row in rows), formats.signed)
    alt = f"Dots for {len(rows)} models; share of the saving recovered {span}."
    return draw.Plate("transport", "Distance from optimal transport", caption, alt, fig)


def _dots(ax: Axes, rows: Sequence[TransportRow], kinds: Sequence[str]) -> None:
    for x in (0, 1):
        ax.axvline(x, color=draw.DIM, linewidth=1, linestyle=":")
    text = {"ha": "right", "va": "center", "fontsize": 8, "color": draw.INK}
    for y, (row, kind) in enumerate(zip(rows, kinds)):
        color, x = draw.KINDS.get(kind, (draw.DIM, ""))[0], row.recovered
        ax.plot([0, x], [y, y], color=color, linewidth=1.2, alpha=0.5)
        ax.plot(x, y, "o", color=color, ms=6)
        ax.plot(row.matched, y, "D", color=color, mfc="white", ms=4, zorder=1.9)
        share = formats.signed(x) if abs(x) >= 0.005 else ".00"
        ax.annotate(share, (1.0, y), xycoords=("axes fraction", "data"), **text)
    values = [row.recovered for row in rows]
    low, high = min(0.0, *values), max(1.0, *values)
    room = 0.03 * (high - low)
    draw.style_axes(ax, grid="x", x="recovered: 0 random pairing, 1 optimal transport")
    ax.set_xlim(low - room, high + 4 * room)
    draw.plain_ticks(ax.xaxis)
    draw.name_rows(ax, [draw.label(row.name) for row in rows])
