"""The figure of RP over its threshold: whether what the scores say depends on where it stands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from reprojax.drawing import draw, formats
from reprojax.report.inputs import ReportInputs
from reprojax.report.words import chance_words, sampling_words
from reprojax.scoring.scores import CurveRow, Scores
from reprojax.scoring.views import kind_rank, pair_kind

MOST = 8
ORDER = ("networks", "seeds", "sampler", "data", "contrast", "closed")
TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999)


def curve_plate(inputs: ReportInputs) -> draw.Plate | None:
    """Draws RP and its chance over the threshold for the first pairs; None without curves."""
    scores = inputs.scores
    taus = np.asarray(scores.rp_curves.taus)
    finite = taus < 1  # the scale ends at 1, where no cosine lies above
    rows = sorted(scores.rp_curves.rows, key=lambda row: _place(scores, row))
    if not rows or finite.sum() < 2:
        return None
    shown = rows[:MOST]
    names = [f"{draw.label(row.a)} × {draw.label(row.b)}" for row in shown]
    fig = draw.new_figure(9.6, 3.9)
    ax = fig.add_subplot()
    x = _stretch(taus[finite])
    for name, row, style in zip(names, shown, draw.line_styles(names).values()):
        ax.plot(x, np.asarray(row.rp)[finite], linewidth=1.5, label=name, **style)
        chance = np.asarray(row.chance)[finite]
        ax.plot(x, chance, ":", color=style["color"], linewidth=0.9, alpha=0.8)
    tau = scores.threshold("rp")
    _axes(ax, x, tau)
    handles = ax.get_legend_handles_labels()[0]
    handles.append(draw.entry("chance of each", color=draw.DIM, linestyle=":", linewidth=0.9))
    draw.side_legend(fig, handles, fontsize=7.5)
    at = tau if tau is not None and tau < 1 else float(np.median(taus[finite]))
    values = [_value_at(taus, row.rp, at) for row in shown]
    alt = (
        f"Falling curves of RP over the threshold for {len(shown)} pairs; at "
        f"{formats.share(at)} they are {formats.span(values)}."
    )
    caption = _caption(scores, tau, shown, len(rows))
    return draw.Plate("rp_curves", "Reproducibility at every threshold", caption, alt, fig)


def _place(scores: Scores, row: CurveRow) -> tuple[int, int, bool]:
    """Sorts networks with networks before closed forms, and the same images before others."""
    a, b = scores.cells[row.a], scores.cells[row.b]
    others = (a.n_train, a.subset) != (b.n_train, b.subset)
    return ORDER.index(pair_kind(a, b)), min(kind_rank(a), kind_rank(b)), others


def _stretch(tau: np.ndarray | Sequence[float] | float) -> np.ndarray:
    return -np.log10(1 - np.asarray(tau, float))


def _value_at(taus: np.ndarray, values: Sequence[float], tau: float) -> float:
    order = np.argsort(taus)
    return float(np.interp(tau, taus[order], np.asarray(values)[order]))


def _axes(ax: Axes, x: np.ndarray, tau: float | None) -> None:
    draw.style_axes(ax, x="threshold on the cosine of descriptors (stretched towards 1)", y="RP")
    if tau is not None and tau < 1:
        at = float(_stretch(tau))
        ax.axvline(at, color=draw.INK, linewidth=1)
        place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        style = {"ha": "center", "va": "bottom", "fontsize": 8, "color": draw.INK}
        ax.annotate(f"τ = {formats.share(tau)}", (at, 1.0), (0, 2), **place, **style)
    ticks = [t for t in TICKS if x.min() - 1e-9 <= _stretch(t) <= x.max() + 1e-9]
    ax.set_xticks(_stretch(ticks), [f"{t:g}".removeprefix("0") or "0" for t in ticks])
    ax.set_xlim(x.min(), x.max())
    ax.set_ylim(-0.02, 1.03)


def _caption(scores: Scores, tau: float | None, shown: Sequence[CurveRow], total: int) -> str:
    cosine = f"cosine in {scores.descriptor}" if scores.descriptor else ""
    how = "; ".join(filter(None, [sampling_words(scores), cosine]))
    parts = [
        "RP as its threshold moves; dotted in the same colour: chance, the same score between "
        f"{chance_words(scores)}{f' ({how})' if how else ''}."
    ]
    if tau is not None:
        taus = np.asarray(scores.rp_curves.taus)
        chance = max(_value_at(taus, row.chance, tau) for row in shown)
        parts.append(
            f"The vertical line is the threshold of all other figures, {formats.share(tau)}; there "
            f"chance is at most {formats.bound(chance)}."
        )
    if total > len(shown):
        parts.append(
            f"The first {len(shown)} of {total} pairs, networks before closed forms and those of "
            f"the same training images first; {total - len(shown)} are left out."
        )
    return " ".join(parts)
