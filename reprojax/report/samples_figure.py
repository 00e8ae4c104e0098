"""The grid of samples: a row for each model, a column for each noise."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reprojax.report.inputs import ReportInputs
from reprojax.report.plotting import DIM, INK, Plate, label, new_figure
from reprojax.report.rows import model_names

COLUMNS = 12
MODELS = 16  # rows beyond this would be too small to see
TILE, GAP = 64, 6  # pixels of the canvas
PIXELS_PER_INCH = 112  # of the canvas
LETTER, MARGIN = 0.082, 0.12  # inches: a wide average letter of a label; around everything


def samples_plate(inputs: ReportInputs) -> Plate | None:
    """Draws the samples of all models from the same noises; None without samples.

    Beneath each row stand, smaller, the nearest training images where they are known.
    """
    known = [name for name in model_names(inputs.scores) if len(inputs.samples.get(name, ())) > 0]
    names = known[:MODELS]
    if not names:
        return None
    canvas, ticks = _canvas(inputs, names)
    height, width = canvas.shape[:2]
    fig, ax = _fitted_axes(width, height, max(len(text) for _, text, _ in ticks))
    ax.imshow(canvas, interpolation="nearest")
    ax.spines[:].set_visible(False)
    ax.set_xticks([])
    ax.set_yticks([y for y, _, _ in ticks], [text for _, text, _ in ticks])
    ax.tick_params(length=0)
    for text, (_, _, main) in zip(ax.get_yticklabels(), ticks):
        text.set(fontsize=9 if main else 7, color=INK if main else DIM)
    columns = min(COLUMNS, max(len(inputs.samples[name]) for name in names))
    shown = f"first {len(names)} of {len(known)} models" if len(known) > MODELS else "all models"
    nearest = any(not main for _, _, main in ticks)
    caption = (
        f"Samples of {shown}, a row each, closed forms last; a column is one initial noise, the "
        "same for every model."
    )
    if nearest:
        caption += " The smaller row beneath: the training image nearest to each sample."
    alt = f"Sample images of {', '.join(names)} for {columns} shared noises" + (
        ", with the nearest training image below each." if nearest else "."
    )
    return Plate("samples", "The same noise through each model", caption, alt, fig)


def _fitted_axes(width: int, height: int, letters: int) -> tuple[Figure, Axes]:
    """Axes of exactly the canvas, with room for labels of so many letters on their left."""
    inner = width / PIXELS_PER_INCH, height / PIXELS_PER_INCH
    left = letters * LETTER + 2 * MARGIN
    outer = left + inner[0] + MARGIN, inner[1] + 2 * MARGIN
    fig = new_figure(*outer)
    fig.set_layout_engine("none")
    place = (left / outer[0], MARGIN / outer[1], inner[0] / outer[0], inner[1] / outer[1])
    return fig, fig.add_axes(place)


def _canvas(inputs: ReportInputs, names: list[str]) -> tuple[np.ndarray, list]:
    """All rows stacked on white, and for each (middle, label, whether a model's own row)."""
    strips, ticks, y = [], [], 0
    for name in names:
        near = inputs.nearest.get(name)
        rows = [(inputs.samples[name], TILE, label(name), True)]
        if near is not None and len(near):
            rows.append((near, int(0.7 * TILE), "nearest training image", False))
        for i, (images, size, text, main) in enumerate(rows):
            strip = _strip(np.asarray(images), size)
            ticks.append((y + strip.shape[0] / 2, text, main))
            gap = GAP // 2 if i + 1 < len(rows) else 3 * GAP
            strips += [strip, np.full((gap, strip.shape[1], 3), 255, np.uint8)]
            y += strip.shape[0] + gap
    columns = max(min(COLUMNS, len(inputs.samples[name])) for name in names)
    return np.concatenate(strips[:-1])[:, : columns * (TILE + GAP) - GAP], ticks


def _strip(images: np.ndarray, size: int) -> np.ndarray:
    """Lays uint8 `[n, h, w(, c)]` side by side, each `size` high in the middle of its column."""
    strip = np.full((size, COLUMNS * (TILE + GAP), 3), 255, np.uint8)
    for i, image in enumerate(images[:COLUMNS]):
        tile = _resize(image, size)
        left = i * (TILE + GAP) + (TILE - tile.shape[1]) // 2
        strip[:, left : left + tile.shape[1]] = tile
    return strip


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    """An image as RGB of height `size`: blocks when enlarged, area means when reduced."""
    image = image[..., None] if image.ndim == 2 else image
    image = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    h, w = image.shape[:2]
    width = max(1, min(TILE, round(size * w / h)))
    factor = h // size
    if factor > 1:
        image = image[: h // factor * factor, : w // factor * factor].astype(np.float32)
        image = image.reshape(h // factor, factor, w // factor, factor, 3).mean((1, 3))
    rows = (np.arange(size) + 0.5) * image.shape[0] / size
    columns = (np.arange(width) + 0.5) * image.shape[1] / width
    return image[rows.astype(int)][:, columns.astype(int)].astype(np.uint8)
