"""The grid of samples: a row for each model, a column for each noise."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from reprojax.drawing import draw
from reprojax.report.inputs import ReportInputs
from reprojax.scoring.views import model_names

COLUMNS = 12
MODELS = 16  # rows beyond this would be too small to see
TILE, GAP = 64, 6  # pixels of the canvas
PIXELS_PER_INCH = 112  # of the canvas
LETTER, MARGIN = 0.082, 0.12  # inches: a wide average letter of a label; around everything


def samples_plate(inputs: ReportInputs) -> draw.Plate | None:
    """Draws the samples of all models from the same noises; None without samples.

    The nearest training images stand, smaller, beneath each row where they are known.
    """
    sampled = [n for n in model_names(inputs.scores) if len(inputs.samples.get(n, ())) > 0]
    names = sampled[:MODELS]
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
        text.set(fontsize=9 if main else 7, color=draw.INK if main else draw.DIM)
    columns = min(COLUMNS, max(len(inputs.samples[name]) for name in names))
    cut = len(sampled) > len(names)
    shown = f"the first {len(names)} of {len(sampled)} models" if cut else "all models"
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
    return draw.Plate("samples", "The same noise through each model", caption, alt, fig)


def _fitted_axes(width: int, height: int, letters: int) -> tuple[Figure, Axes]:
    """Makes axes of exactly the canvas, with room for labels of so many letters at the left."""
    inner = width / PIXELS_PER_INCH, height / PIXELS_PER_INCH
    left = letters * LETTER + 2 * MARGIN
    outer = left + inner[0] + MARGIN, inner[1] + 2 * MARGIN
    fig = draw.new_figure(*outer)
    fig.set_layout_engine("none")
    place = (left / outer[0], MARGIN / outer[1], inner[0] / outer[0], inner[1] / outer[1])
    return fig, fig.add_axes(place)


def _canvas(inputs: ReportInputs, names: list[str]) -> tuple[np.ndarray, list]:
    """Stacks all rows on white; returns also each row's (middle, label, whether of samples)."""
    strips, ticks, y = [], [], 0
    for name in names:
        near = inputs.nearest.get(name)
        rows = [(inputs.samples[name], TILE, draw.label(name), True)]
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
    """Returns an image as RGB of height `size`: blocks when enlarged, means when reduced."""
    image = image[..., None] if image.ndim == 2 else image
    image = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    h, w = image.shape[:2]
    width = max(1, min(TILE, round(size * w / h)))
    way = Image.Resampling.NEAREST if size >= h else Image.Resampling.BOX
    return np.asarray(Image.fromarray(image).resize((width, size), way))
