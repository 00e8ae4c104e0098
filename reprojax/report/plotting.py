"""What all figures share: palette, fonts, axes. Nothing here touches matplotlib's global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

DPI = 150
INK, DIM, GRID = "#222222", "#777777", "#e4e4e4"
# Okabe and Ito's palette: told apart with any common colour vision
BLUE, ORANGE, GREEN, PURPLE, SKY, RED = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
)
LINES = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, INK)
DASHES = ("-", "--", ":")
KIND_COLORS = {
    "network": BLUE,
    "flow_map": SKY,
    "external": BLUE,
    "contrast": DIM,
    "closed_form": ORANGE,
}
KIND_LABELS = {
    "network": "network",
    "flow_map": "flow map",
    "external": "sample set",
    "contrast": "contrast model",
    "closed_form": "closed form",
}
LONGEST = 28


@dataclass(frozen=True)
class Plate:
    """A figure with the words around it.

    Attributes:
        name: of its file, without ``.png``.
        title: heading on the page.
        caption: what is seen and how it was made.
        alt: the same for who cannot see it.
        figure: the figure.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure


def new_figure(width: float, height: float) -> Figure:
    """A white figure with constrained layout; size in inches."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def label(name: str) -> str:
    """A model's name as a figure shows it: cut in the middle if long, ``$`` not as mathematics."""
    if len(name) > LONGEST:
        name = f"{name[: LONGEST // 2]}…{name[-(LONGEST // 2 - 1) :]}"
    return name.replace("$", r"\$")


def style_axes(ax: Axes, grid: str | None = "both") -> None:
    """A quiet frame: no box, small ticks, a pale grid beneath the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(DIM)
    ax.tick_params(which="both", labelsize=8, color=DIM, labelcolor=INK)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, color=GRID, linewidth=0.8)


def share_ticks(ax: Axes) -> None:
    """A share's x axis, 0 to 1 with room for the marks at its ends."""
    ax.set_xlim(-0.03, 1.03)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])


def error_lengths(record: Mapping[str, Any]) -> list[list[float]]:
    """The 95 % interval of a score as `[[below], [above]]`, the way errorbar wants it."""
    low, high = record.get("ci95") or (record["value"],) * 2
    return [[max(record["value"] - low, 0.0)], [max(high - record["value"], 0.0)]]


def line_styles(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """A colour and a dash pattern for each name, distinct up to 21 of them."""
    return {
        name: {
            "color": LINES[i % len(LINES)],
            "linestyle": DASHES[i // len(LINES) % len(DASHES)],
        }
        for i, name in enumerate(names)
    }
