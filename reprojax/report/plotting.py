"""What all figures share: palette, fonts, axes. Nothing here touches matplotlib's global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import NullLocator

from reprojax.report.formats import format_count, format_share

DPI = 150
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
MOST_PRINTED = 14  # rows up to which a matrix has room for its numbers


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
    if name.startswith("_"):
        name = f" {name}"  # matplotlib leaves such a name out of its legends
    return name.replace("$", r"\$")


def rows_legend(fig: Figure, handles: Sequence[Any], columns: int, **style: Any) -> None:
    """A legend above a figure that reads along its rows; matplotlib's own fills its columns."""
    columns = min(columns, len(handles))
    ordered = [handle for i in range(columns) for handle in handles[i::columns]]
    style = {"fontsize": 8, "frameon": False, **style}
    fig.legend(handles=ordered, loc="outside upper center", ncols=columns, **style)


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


def marked_styles(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """`line_styles` with a marker for each name, distinct up to 12 of them."""
    return {
        name: {**style, "marker": MARKERS[i % len(MARKERS)]}
        for i, (name, style) in enumerate(line_styles(names).items())
    }


def numbers(values: Sequence[float | None]) -> np.ndarray:
    """Values of a JSON file as float64; what is null there is NaN."""
    return np.asarray([np.nan if v is None else v for v in values], float)


def draw_intervals(
    ax: Axes, x: Sequence[float], values: Sequence, intervals: Sequence, **style: Any
) -> None:
    """A line through values with thin bars for their `(low, high)`, None where unknown."""
    x, y = numbers(x), numbers(values)
    known = [pair or (None, None) for pair in intervals]
    lengths = np.stack([y - numbers([p[0] for p in known]), numbers([p[1] for p in known]) - y])
    lengths = np.nan_to_num(lengths).clip(min=0)
    ax.errorbar(x, y, yerr=lengths, **{"lw": 1.4, "ms": 4, "elinewidth": 0.8, **style})


def size_ticks(ax: Axes, sizes: Sequence[int]) -> None:
    """A logarithmic x axis of training set sizes, each a tick, labelled where there is room."""
    sizes = sorted(set(sizes))
    ax.set_xscale("log", base=2)
    wide_as = 0.47 / (ax.get_position().width * ax.figure.get_figwidth())  # a label, of the axis
    room, last, texts = np.log2(sizes[-1] / sizes[0]) * wide_as, -np.inf, []
    for n in sizes:
        wide = np.log2(n) - last > room
        texts.append(format_count(n) if wide else "")
        last = np.log2(n) if wide else last
    ax.set_xticks(sizes, texts)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.tick_params(axis="x", labelsize=7.5)


def draw_matrix(
    ax: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    vmax: float = 1.0,
    printed: bool | None = None,
) -> AxesImage:
    """A heat map of shares from 0, with its numbers where they have room; NaN stays grey.

    Args:
        ax: where to.
        values: `[rows, columns]`.
        rows: labels from the top.
        columns: labels from the left.
        vmax: value of the brightest colour.
        printed: whether to print the numbers; by default up to `MOST_PRINTED` rows.
    """
    cmap = colormaps["viridis"]
    image = ax.imshow(values, cmap=cmap, vmin=0, vmax=vmax, aspect="auto")
    ax.set_facecolor("#f2f2f2")
    printed = max(values.shape) <= MOST_PRINTED if printed is None else printed
    for i, j in np.argwhere(np.isfinite(values)) if printed else ():
        red, green, blue = cmap(values[i, j] / vmax)[:3]
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5
        ink, text = "white" if dark else INK, format_share(values[i, j])
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


def share_bar(fig: Figure, image: AxesImage, axes: Any) -> None:
    """The colour bar of a matrix of shares from 0 to 1."""
    bar = fig.colorbar(image, ax=axes, shrink=0.7, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["0", ".5", "1"], fontsize=8)
    bar.outline.set_visible(False)


def signed_share(value: float) -> str:
    """A share that may be negative, ``−.20``, as r² may."""
    return format_share(value) if value >= 0 else f"−{format_share(-value)}"


def plain_ticks(axis: Any) -> None:
    """Shares at the ticks of an axis as they read elsewhere, ``.875``."""
    axis.set_major_formatter(lambda x, _: f"{x:.6g}".replace("-", "−").replace("0.", "."))


def sampling_words(scores: Mapping[str, Any], n: int | None = None) -> str:
    """How many noises were used and their solver: ``512 noises, heun with 35 evaluations``.

    Args:
        scores: the content of ``scores.json``.
        n: noises, where not all of the study's.
    """
    count = n or (scores.get("noise") or {}).get("n")
    records = [*scores.get("pairs", []), *scores.get("models", [])]
    count = count or max((r["n"] for r in records if r.get("n")), default=None)
    cells = scores.get("cells", {}).values()
    used = {(c["solver"], c.get("nfe")) for c in cells if c.get("solver")}
    words = [f"{format_count(count)} noises"] if count else []
    if len(used) == 1:
        solver, nfe = used.pop()
        words.append(f"{solver} with {nfe} evaluations" if nfe else solver)
    elif used:
        words.append(f"{len(used)} samplers")
    return ", ".join(words)


def listed(words: Sequence[str]) -> str:
    """Words as a sentence has them: ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
