"""Figures of pairs: the heat map of RP and MAE score, and RP with intervals and chance."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reprojax.drawing import draw, formats
from reprojax.report.inputs import ReportInputs
from reprojax.report.words import chance_words
from reprojax.scoring.views import PAIR_KINDS, PairView, main_pairs, model_names, pair_views

PAIR_STYLES = {
    "networks": {"facecolor": draw.BLUE},
    "data": {"facecolor": draw.PURPLE},
    "sampler": {"facecolor": draw.SKY},
    "seeds": {"facecolor": draw.GREEN, "hatch": "////"},
    "contrast": {"facecolor": draw.DIM},
    "closed": {"facecolor": draw.ORANGE},
}
MOST_BARS, FIRST_BARS = 60, 40  # of more pairs than that, so many are drawn
MOST_LARGE = 24  # models up to which a heat map has room for letters of the usual size


def heatmap_plate(inputs: ReportInputs) -> draw.Plate | None:
    """Draws RP of all pairs above the diagonal and MAE score below; None without pairs."""
    scores = inputs.scores
    views = {(v.a, v.b): v for v in [*pair_views(scores), *main_pairs(scores)]}  # the main wins
    paired = {name for pair in views for name in pair}
    names = [name for name in model_names(scores) if name in paired]
    if len(names) < 2:
        return None
    values = np.full((len(names), len(names)), np.nan)
    for (a, b), view in views.items():
        i, j = sorted((names.index(a), names.index(b)))
        values[i, j] = view.rp.value if view.rp else np.nan
        values[j, i] = view.mae.value if view.mae else np.nan
    rp = [view.rp for view in views.values() if view.rp]
    mae = [view.mae for view in views.values() if view.mae]
    chance = [
        f"at most {formats.bound(max(row.chance for row in rows))} for {what}"
        for what, rows in (("RP", rp), ("MAE score", mae))
        if rows
    ]
    caption = (
        "Share of noises that two models turn into the same image: RP above the diagonal, MAE "
        f"score below. Between {chance_words(scores)} it is (chance): {', '.join(chance)}."
    )
    spans = (
        f"RP {formats.span(r.value for r in rp)}, MAE score {formats.span(r.value for r in mae)}"
    )
    alt = f"Heat map over {len(names)} models; {spans}."
    fig = _heatmap(names, values)
    return draw.Plate("rp_heatmap", "Reproducibility of each pair", caption, alt, fig)


def _heatmap(names: list[str], values: np.ndarray) -> Figure:
    n = len(names)
    side = 0.56 * n + 2.4 if n <= draw.MOST_PRINTED else 0.26 * n + 4.2
    side = min(12.0, max(3.6, side))
    fig = draw.new_figure(side + 0.6, side if n <= draw.MOST_PRINTED else side - 0.4)
    ax = fig.add_subplot()
    labels = [draw.label(name) for name in names]
    image = draw.matrix(ax, values, labels, labels)
    ax.set_aspect("equal")
    ax.set_title("above the diagonal: RP; below: MAE score", fontsize=9, color=draw.INK)
    if n > MOST_LARGE:
        ax.tick_params(labelsize=6)
    draw.share_bar(fig, image, ax=ax, shrink=0.7)
    return fig


def bars_plate(inputs: ReportInputs) -> draw.Plate | None:
    """Draws RP of each pair with its interval and its chance; None without RP scores."""
    views = main_pairs(inputs.scores)
    if not views:
        return None
    shown = views if len(views) <= MOST_BARS else views[:FIRST_BARS]
    kinds = list(dict.fromkeys(view.kind for view in shown))
    fig = draw.new_figure(9.0, 0.27 * len(shown) + 1.2)
    ax = fig.add_subplot()
    for y, view in enumerate(shown):
        _bar(ax, y, view)
    draw.style_axes(ax, grid="x", x="RP score")
    draw.name_rows(ax, [f"{draw.label(view.a)}  ×  {draw.label(view.b)}" for view in shown])
    draw.share_ticks(ax)
    ax.set_xlim(-0.01, 1.12)
    styles = {kind: {"edgecolor": "white", **PAIR_STYLES[kind]} for kind in kinds}
    handles = [Patch(label=PAIR_KINDS[kind], **style) for kind, style in styles.items()]
    draw.top_legend(fig, [*handles, draw.entry("chance", color="black", linewidth=2)], 4)
    caption = (
        "RP of each pair with its 95 % interval. The black tick is the chance floor: the same "
        f"score between {chance_words(inputs.scores)}."
    )
    if len(views) > len(shown):
        caption += (
            f" Of {len(views)} pairs the first {len(shown)} are drawn, trained models before "
            "closed forms and the highest RP first; the table has them all."
        )
    if "seeds" in kinds:
        caption += (
            " Two seeds of one model (hatched) show how far the seed alone moves a model: "
            "read the other pairs beside them."
        )
    spans = [
        f"{PAIR_KINDS[kind]} {formats.span(v.rp.value for v in shown if v.kind == kind)}"
        for kind in kinds
    ]
    alt = f"Bars of RP for {len(shown)} pairs: {'; '.join(spans)}."
    title = "Reproducibility of each pair, above chance"
    return draw.Plate("rp_bars", title, caption, alt, fig)


def _bar(ax: Axes, y: int, view: PairView) -> None:
    style = {"edgecolor": "white", "linewidth": 0, **PAIR_STYLES[view.kind]}
    rp = view.rp
    ax.barh(y, rp.value, height=0.66, **style)
    lengths = draw.error_lengths(rp.value, rp.ci95)
    ax.errorbar(rp.value, y, xerr=lengths, color=draw.INK, capsize=2.5, linewidth=1)
    ax.plot([rp.chance] * 2, [y - 0.42, y + 0.42], color="black", linewidth=2)
    end = max(rp.value, rp.ci95[1], rp.chance)
    ax.text(end + 0.012, y, formats.share(rp.value), va="center", fontsize=7.5, color=draw.INK)
