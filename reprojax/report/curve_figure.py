"""The figure of RP over its threshold: whether what the scores say depends on where it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reprojax.report.formats import format_bound, format_share, format_span
from reprojax.report.inputs import ReportInputs
from reprojax.report.plotting import (
    DIM,
    INK,
    Plate,
    label,
    line_styles,
    new_figure,
    numbers,
    sampling_words,
    style_axes,
)
from reprojax.report.rows import kind_rank, main_pairs, pair_kind

MOST = 8
ORDER = ("networks", "ceiling", "sampler", "data", "contrast", "closed")
TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999)


def curve_plate(inputs: ReportInputs) -> Plate | None:
    """Draws RP and its chance over the threshold for the first pairs; None without curves."""
    scores = inputs.scores
    curves = scores.get("rp_curves") or {}
    taus = numbers(curves.get("taus") or ())
    finite = taus < 1  # the scale ends at 1, where no cosine lies above
    cells = scores.get("cells", {})
    rows = sorted(curves.get("rows") or (), key=lambda row: _place(cells, row))
    if not rows or finite.sum() < 2:
        return None
    shown = rows[:MOST]
    names = [f"{label(row['a'])} × {label(row['b'])}" for row in shown]
    fig = new_figure(9.6, 3.9)
    ax = fig.add_subplot()
    x = _stretch(taus[finite])
    for name, row, style in zip(names, shown, line_styles(names).values()):
        ax.plot(x, numbers(row["rp"])[finite], linewidth=1.5, label=name, **style)
        if row.get("chance"):
            chance = numbers(row["chance"])[finite]
            ax.plot(x, chance, ":", color=style["color"], linewidth=0.9, alpha=0.8)
    main = next(iter(main_pairs(scores)), None)
    tau = main.rp["threshold"] if main else None
    _axes(ax, x, tau)
    handles = ax.get_legend_handles_labels()[0]
    handles.append(Line2D([], [], color=DIM, linestyle=":", linewidth=0.9, label="chance of each"))
    fig.legend(handles=handles, loc="outside right center", fontsize=7.5, frameon=False)
    caption = _caption(scores, main.descriptor if main else None, tau, shown, len(rows))
    at = tau if tau is not None and tau < 1 else float(np.median(taus[finite]))
    values = [_value_at(taus, row["rp"], at) for row in shown]
    alt = (
        f"Falling curves of RP over the threshold for {len(shown)} pairs; at "
        f"{format_share(at)} they are {format_span(values)}."
    )
    return Plate("rp_curves", "Reproducibility at every threshold", caption, alt, fig)


def _place(cells: Mapping[str, Any], row: Mapping[str, Any]) -> tuple:
    """Networks with networks come first, then with closed forms; the same images before others."""
    a, b = (cells.get(row[side], {}) for side in "ab")
    others = any(a.get(key) != b.get(key) for key in ("n_train", "subset"))
    return ORDER.index(pair_kind(a, b)), min(kind_rank(a), kind_rank(b)), others


def _stretch(tau: np.ndarray | float) -> np.ndarray:
    return -np.log10(1 - np.asarray(tau, float))


def _value_at(taus: np.ndarray, values: Sequence[float], tau: float) -> float:
    order = np.argsort(taus)
    return float(np.interp(tau, taus[order], numbers(values)[order]))


def _axes(ax: Axes, x: np.ndarray, tau: float | None) -> None:
    style_axes(ax)
    if tau is not None and tau < 1:
        at = float(_stretch(tau))
        ax.axvline(at, color=INK, linewidth=1)
        ax.annotate(
            f"τ = {format_share(tau)}",
            (at, 1.0),
            (0, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
            color=INK,
        )
    ticks = [t for t in TICKS if x.min() - 1e-9 <= _stretch(t) <= x.max() + 1e-9]
    ax.set_xticks(_stretch(np.asarray(ticks)), [f"{t:g}".removeprefix("0") or "0" for t in ticks])
    ax.set_xlim(x.min(), x.max())
    ax.set_ylim(-0.02, 1.03)
    ax.set_xlabel("threshold on the cosine of descriptors (stretched towards 1)", fontsize=8)
    ax.set_ylabel("RP", fontsize=8)


def _caption(
    scores: Mapping[str, Any],
    descriptor: str | None,
    tau: float | None,
    shown: Sequence[Mapping[str, Any]],
    total: int,
) -> str:
    how = "; ".join(
        filter(None, [sampling_words(scores), descriptor and f"cosine in {descriptor}"])
    )
    parts = [
        "RP as its threshold moves; dotted in the same colour: chance, the same score between "
        f"samples of different noises{f' ({how})' if how else ''}."
    ]
    if tau is not None:
        parts.append(
            f"The vertical line is the threshold of all other figures, {format_share(tau)}"
        )
        taus = numbers(scores["rp_curves"]["taus"])
        chance = [_value_at(taus, row["chance"], tau) for row in shown if row.get("chance")]
        parts[-1] += f"; there chance is at most {format_bound(max(chance))}." if chance else "."
    if total > len(shown):
        parts.append(
            f"The first {len(shown)} of {total} pairs, networks before closed forms and those of "
            f"the same training images first; {total - len(shown)} are left out."
        )
    return " ".join(parts)
