"""The figure of single models: GL, memorized share and Fréchet distance."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from reprojax.drawing import draw, formats
from reprojax.report.inputs import ReportInputs
from reprojax.scoring.views import ModelView, main_models

PANELS = {  # by score: its name, and what its reference scores
    "gl": ("GL score", "held-out images"),
    "memorized": ("memorized share", "held-out images"),
    "frechet": ("Fréchet distance", "training images"),
}


def gl_plate(inputs: ReportInputs) -> draw.Plate | None:
    """Draws GL, memorized share and Fréchet distance of each model; None without any of them."""
    views = [v for v in main_models(inputs.scores) if v.gl or v.memorized or v.frechet]
    panels = [score for score in PANELS if any(getattr(view, score) for view in views)]
    if not panels:
        return None
    fig = draw.new_figure(9.6, 0.3 * len(views) + 1.5)
    axes = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    marked: dict[str, list[str]] = {}
    for ax, score in zip(axes, panels):
        _dots(ax, views, score)
        title, reference = PANELS[score]
        draw.style_axes(ax, x=title)
        if score != "frechet":
            draw.share_ticks(ax)
        rows = [row for view in views if (row := getattr(view, score))]
        if any(row.reference is not None for row in rows):
            marked.setdefault(reference, []).append(title)
    for ax in axes:
        draw.name_rows(ax, [draw.label(view.name) for view in views])
    handles = draw.kind_entries(view.cell.kind for view in views)
    if marked:
        handles.append(draw.dot_entry("reference", marker="|", ms=11, mew=2, color="black"))
    draw.top_legend(fig, handles, 6)
    caption = "Each model with its 95 % interval."
    if marked:
        parts = [f"{images} score ({', '.join(titles)})" for images, titles in marked.items()]
        caption += f" The black mark is the reference: what {' and what '.join(parts)}."
    gl = [view.gl.value for view in views if view.gl]
    alt = f"Dots for {len(views)} models" + (f"; GL {formats.span(gl)}." if gl else ".")
    return draw.Plate("gl", "New images, copies, and distance from the data", caption, alt, fig)


def _dots(ax: Axes, views: Sequence[ModelView], score: str) -> None:
    values = []
    for y, view in enumerate(views):
        row = getattr(view, score)
        if row is None:
            continue
        color, _ = draw.KINDS.get(view.cell.kind, (draw.DIM, ""))
        lengths = draw.error_lengths(row.value, row.ci95)
        ax.errorbar(row.value, y, xerr=lengths, fmt="o", color=color, ms=5.5, capsize=2.5)
        if row.reference is not None:
            ax.plot([row.reference] * 2, [y - 0.36, y + 0.36], color="black", linewidth=2)
        values += [v for v in (row.value, row.reference) if v is not None]
    if score == "frechet":
        if min(values) > 0 and max(values) > 20 * min(values):  # else the small ones are one dot
            ax.set_xscale("log")
        else:
            ax.set_xlim(left=0)
