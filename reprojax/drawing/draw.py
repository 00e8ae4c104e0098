"""What all figures share: palette, axes, legends. No global state of matplotlib is touched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from reprojax.drawing import formats

DPI = 150
WIDTH = 9.6  # inches of the page
INK, DIM, PALE, GRID = "#222222", "#777777", "#aaaaaa", "#e4e4e4"
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
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*", "h")
KINDS = {  # of cells: colour and name
    "network": (BLUE, "network"),
    "flow_map": (SKY, "flow map"),
    "external": (BLUE, "sample set"),
    "contrast": (DIM, "contrast model"),
    "closed_form": (ORANGE, "closed form"),
}
LONGEST = 28
MOST_PRINTED = 14  # rows up to which a matrix has room for its numbers


@dataclass(frozen=True)
class Plate:
    """A figure with the words around it.

    Attributes:
        name: The name of its file, without ``.png``.
        title: The heading on the page.
        caption: What the figure shows and how it was made.
        alt: The same for readers who cannot see it.
        figure: The figure.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure


def new_figure(width: float, height: float) -> Figure:
    """Makes a white figure with constrained layout; size in inches."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def label(name: str) -> str:
    """Returns a name for a figure: cut in the middle if long, ``$`` not as mathematics."""
    if len(name) > LONGEST:
        name = f"{name[: LONGEST // 2]}…{name[-(LONGEST // 2 - 1) :]}"
    if name.startswith("_"):
        name = f" {name}"  # matplotlib leaves such a name out of its legends
    return name.replace("$", r"\$")


# --- legends ---------------------------------------------------------------------------------


def entry(text: str, **style: Any) -> Line2D:
    """Returns a legend entry, by default a line of ink."""
    return Line2D([], [], label=text, **{"color": INK, "ms": 4, **style})


def dot_entry(text: str, **style: Any) -> Line2D:
    """Returns a legend entry of a marker alone, by default a dot."""
    return entry(text, **{"marker": "o", "linestyle": "", "ms": 6, **style})


def kind_entries(kinds: Iterable[str]) -> list[Line2D]:
    """Returns legend entries for the dots of these kinds of cells."""
    kinds = set(kinds)
    return [dot_entry(text, color=color) for k, (color, text) in KINDS.items() if k in kinds]


def top_legend(fig: Figure, handles: Sequence[Any], columns: int, **style: Any) -> None:
    """Puts a legend above a figure that reads along its rows; matplotlib's fills its columns."""
    columns = min(columns, len(handles))
    ordered = [handle for i in range(columns) for handle in handles[i::columns]]
    style = {"fontsize": 8, "frameon": False, **style}
    fig.legend(handles=ordered, loc="outside upper center", ncols=columns, **style)


def side_legend(fig: Figure, handles: Sequence[Any], fontsize: float = 8) -> None:
    """Puts a legend at the right of a figure."""
    fig.legend(handles=handles, loc="outside right center", fontsize=fontsize, frameon=False)


def panel_legend(ax: Axes, handles: Sequence[Any]) -> None:
    """Puts a legend where it hides the least of a panel."""
    style = {"frameon": True, "framealpha": 0.8, "edgecolor": "w", "fontsize": 7.5}
    ax.legend(handles=list(handles), loc="best", **style)


# --- axes ------------------------------------------------------------------------------------


def style_axes(
    ax: Axes, grid: str | None = "both", *, title: str = "", x: str = "", y: str = ""
) -> None:
    """Gives axes a quiet frame (no box, small ticks, a pale grid beneath the data) and labels."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(DIM)
    ax.tick_params(which="both", labelsize=8, color=DIM, labelcolor=INK)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, color=GRID, linewidth=0.8)
    if title:
        ax.set_title(title, fontsize=9, color=INK)
    ax.set_xlabel(x, fontsize=8)
    ax.set_ylabel(y, fontsize=8)


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Makes the y axis one of names, the first on top."""
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def share_ticks(ax: Axes) -> None:
    """Makes the x axis one of shares, 0 to 1 with room for the marks at its ends."""
    ax.set_xlim(-0.03, 1.03)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])


def plain_ticks(axis: Axis) -> None:
    """Writes the shares at the ticks of an axis as they read elsewhere, ``.875``."""
    axis.set_major_formatter(lambda x, _: f"{x:.6g}".replace("-", "−").replace("0.", "."))


def log_ticks(ax: Axes, values: Sequence[float]) -> None:
    """Makes the x axis logarithmic over these values, with plain numbers at powers of ten."""
    ax.set_xscale("log")
    low, high = np.log10(min(values)), np.log10(max(values))
    powers = [10.0**k for k in range(int(np.ceil(low - 1e-9)), int(np.floor(high + 1e-9)) + 1)]
    if len(powers) > 1:
        ax.set_xticks(powers, [f"{p:,g}" if p >= 1 else f"{p:g}"[1:] for p in powers])


def log_values(axis: Axis, subs: Sequence[float]) -> None:
    """Writes plain numbers on a logarithmic axis, at these multiples of powers of ten."""
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(lambda y, _: f"{y:,g}")
    axis.set_minor_locator(NullLocator())


# --- lines, dots, matrices -------------------------------------------------------------------


def line_styles(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Returns a colour and a dash pattern for each name, distinct up to 21 of them."""
    return {
        name: {
            "color": LINES[i % len(LINES)],
            "linestyle": DASHES[i // len(LINES) % len(DASHES)],
        }
        for i, name in enumerate(names)
    }


def marked_styles(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Returns `line_styles` with a marker for each name, distinct up to 12 of them."""
    return {
        name: {**style, "marker": MARKERS[i % len(MARKERS)]}
        for i, (name, style) in enumerate(line_styles(names).items())
    }


def numbers(values: Iterable[float | None]) -> np.ndarray:
    """Returns values of a JSON file as float64; null becomes NaN."""
    return np.asarray([np.nan if v is None else v for v in values], float)


def error_lengths(value: float, interval: Sequence[float] | None) -> list[list[float]]:
    """Returns an interval as the lengths beneath and above its value that errorbar wants."""
    low, high = interval or (value, value)
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]


def intervals(
    ax: Axes, x: Sequence[float], values: Sequence, intervals: Sequence, **style: Any
) -> None:
    """Draws a line through values with thin bars for their `(low, high)`, None where unknown."""
    lengths = np.hstack([error_lengths(v, i) for v, i in zip(values, intervals)])
    lengths = np.nan_to_num(lengths)
    style = {"lw": 1.4, "ms": 4, "elinewidth": 0.8, **style}
    ax.errorbar(numbers(x), numbers(values), yerr=lengths, **style)


def matrix(
    ax: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    printed: bool | None = None,
) -> AxesImage:
    """Draws a heat map of shares from 0 to 1; NaN stays grey.

    Args:
        ax: The axes to draw in.
        values: The shares, `[rows, columns]`.
        rows: The labels of the rows, from the top.
        columns: The labels of the columns, from the left.
        printed: Whether to print the numbers; None prints them up to `MOST_PRINTED` rows.
    """
    cmap = colormaps["viridis"]
    image = ax.imshow(values, cmap=cmap, vmin=0, vmax=1, aspect="auto")
    ax.set_facecolor("#f2f2f2")
    printed = max(values.shape) <= MOST_PRINTED if printed is None else printed
    for i, j in np.argwhere(np.isfinite(values)) if printed else ():
        red, green, blue = cmap(values[i, j])[:3]
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5
        ink, text = "white" if dark else INK, formats.share(values[i, j])
        ax.text(j, i, text, ha="center", va="center", fontsize=8, color=ink)
    turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.set_xticks(range(len(columns)), columns, fontsize=8, **turned)
    ax.set_xticks(np.arange(0.5, len(columns) - 1), minor=True)
    ax.set_yticks(np.arange(0.5, len(rows) - 1), minor=True)
    ax.grid(which="minor", color="white", linewidth=1.5)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    return image


def share_bar(
    fig: Figure, image: AxesImage, texts: Sequence[str] = ("0", ".5", "1"), **place: Any
) -> Axes:
    """Draws the colour bar of a matrix of shares and returns its axes."""
    bar = fig.colorbar(image, ticks=[0, 0.5, 1], **place)
    bar.ax.set_yticklabels(texts, fontsize=8)
    bar.outline.set_visible(False)
    return bar.ax
