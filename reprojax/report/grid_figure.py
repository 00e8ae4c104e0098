"""The figures of a grid of capacity and number of training images, beside the paper's curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator

from reprojax.report.formats import format_count, format_share, format_span
from reprojax.report.grid_tables import crossing_words
from reprojax.report.inputs import ReportInputs
from reprojax.report.plotting import (
    BLUE,
    DIM,
    GREEN,
    INK,
    LINES,
    MARKERS,
    ORANGE,
    PALE,
    Plate,
    draw_intervals,
    label,
    listed,
    new_figure,
    rows_legend,
    sampling_words,
    size_ticks,
    style_axes,
)

APART = 1.04  # factor between the same N of two lines, so that equal values do not hide
STATES = {"memorized": BLUE, "spurious": ORANGE, "generalized": GREEN}
OVERLAY = {"linewidth": 3.5, "alpha": 0.22, "zorder": 1, "solid_capstyle": "round"}
WIDTH = 9.6  # inches of the page
MOST_PANELS = 4  # capacities side by side, the smallest first
MOST_COLUMNS = 8  # of a legend of sizes
SIZE_COLORS = "viridis"

Found = Mapping[str, Any]
Panel = Callable[[Axes], None]


def grid_plates(inputs: ReportInputs) -> list[Plate]:
    """Draws scores over N, states of samples, and the gap of losses; none without the analysis."""
    found = inputs.analyses.get("grid") or {}
    if not found.get("models"):
        return []
    plates = [_scores_plate(found, inputs), _states_plate(found), _losses_plate(found)]
    return [plate for plate in plates if plate]


def _scores_plate(found: Found, inputs: ReportInputs) -> Plate:
    panels: dict[str, Panel] = {}
    if found["pairs"]:
        panels["RP between capacities"] = lambda ax: _between(ax, found)
    panels["GL (memorized: dashed)"] = lambda ax: _new(ax, found)
    if any(p[form] for m in found["models"] for p in m["points"] for form in CLOSED):
        panels["RP with closed forms"] = lambda ax: _closed(ax, found)
    if found["disjoint"]:
        panels["RP on disjoint images"] = lambda ax: _disjoint(ax, found)
    columns = 2 if len(panels) > 1 else 1
    rows = -(-len(panels) // columns)
    fig = new_figure(WIDTH if columns > 1 else 6.4, 3.5 * rows + 0.4)
    axes = list(fig.subplots(rows, columns, squeeze=False).flat)
    for ax, (letter, (title, draw)) in zip(axes, zip("abcd", panels.items())):
        draw(ax)
        style_axes(ax)
        ax.set_title(f"({letter}) {title}", fontsize=9, loc="left", color=INK)
        ax.set_xlabel("training images N", fontsize=8)
        ax.set_ylim(-0.03, 1.03)
        size_ticks(ax, [*found["sizes"], *_paper_sizes(found, title)])
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    _top_legend(fig, found)
    capacities = listed([label(m["capacity"]) for m in found["models"]])
    values = [p["rp"]["value"] for pair in found["pairs"] for p in pair["points"]]
    span = f"; RP between them {format_span(values)}" if values else ""
    alt = (
        f"Curves over {format_count(found['sizes'][0])} to {format_count(found['sizes'][-1])} "
        f"training images for {capacities}{span}."
    )
    return Plate("grid", "Capacity and dataset size", _caption(found, inputs, panels), alt, fig)


CLOSED = {"optimum": "-", "gaussian": "--"}


def _paper_sizes(found: Found, title: str) -> list[int]:
    """The paper's sizes, where its curves are drawn."""
    drawn = found.get("paper") and title.startswith(("RP between", "GL", "RP with"))
    return found["paper"]["sizes"] if drawn else []


def _top_legend(fig: Figure, found: Found) -> None:
    handles = [
        Line2D([], [], ms=4, label=label(m["capacity"]), **_style(i))
        for i, m in enumerate(found["models"])
    ]
    handles.append(Line2D([], [], color=DIM, linestyle=":", linewidth=1.2, label="chance"))
    if found.get("paper"):
        text = "the paper's (CIFAR-10)"
        handles.append(Line2D([], [], color=INK, linewidth=3.5, alpha=0.22, label=text))
    style = {"fontsize": 8, "frameon": False, "handlelength": 2.6}
    fig.legend(handles=handles, loc="outside upper center", ncols=min(6, len(handles)), **style)


def _color(i: int) -> str:
    return LINES[i % len(LINES)]


def _style(i: int) -> dict[str, str]:
    return {"color": _color(i), "marker": MARKERS[i % len(MARKERS)]}


def _pair_color(i: int) -> str:
    """Of a pair of capacities: none that a capacity has where there are three or fewer."""
    return LINES[(i + 3) % len(LINES)]


def _line(ax: Axes, points: Sequence[Found], place: float, **style: Any) -> None:
    """A line through ``(n_train, record)``; what has no record is left out."""
    known = [(n, r) for n, r in points if r]
    if known:
        x = [n * APART**place for n, _ in known]
        draw_intervals(
            ax, x, [r["value"] for _, r in known], [r["ci95"] for _, r in known], **style
        )


def _chance(ax: Axes, points: Sequence[tuple[int, Found | None]]) -> None:
    """The highest chance at each N, dotted."""
    chance: dict[int, float] = {}
    for n, record in points:
        if record:
            chance[n] = max(chance.get(n, 0.0), record["chance"])
    sizes = sorted(chance)
    ax.plot(sizes, [chance[n] for n in sizes], ":", color=DIM, linewidth=1.2, zorder=1)


def _places(count: int) -> list[float]:
    return [i - (count - 1) / 2 for i in range(count)]


def _between(ax: Axes, found: Found) -> None:
    every, handles, paper = [], [], found.get("paper")
    labels = [m["capacity"] for m in found["models"]]
    alike = paper and len(labels) == len(paper["models"])  # then pairs have counterparts
    for place, (i, pair) in zip(_places(len(found["pairs"])), enumerate(found["pairs"])):
        points = [(p["n_train"], p["rp"]) for p in pair["points"]]
        style = {"color": _pair_color(i), "marker": MARKERS[(i + 3) % len(MARKERS)]}
        _line(ax, points, place, **style)
        text = f"{label(pair['a'])} × {label(pair['b'])}"
        handles.append(Line2D([], [], ms=4, label=text, **style))
        every += points
    own = {(labels.index(p["a"]), labels.index(p["b"])): i for i, p in enumerate(found["pairs"])}
    for row in paper["rp"] if paper else ():
        i = own.get((row["a"], row["b"])) if alike else None
        color = PALE if i is None else _pair_color(i)
        ax.plot(paper["sizes"], row["values"], color=color, **OVERLAY)
    _chance(ax, every)
    _legend(ax, handles)


def _new(ax: Axes, found: Found) -> None:
    paper, count = found.get("paper"), len(found["models"])
    reference = {}
    for place, (i, model) in zip(_places(count), enumerate(found["models"])):
        style = _style(i)
        for score, dash in (("gl", "-"), ("memorized", "--")):
            face = {} if score == "gl" else {"markerfacecolor": "white", "alpha": 0.75}
            points = [(p["n_train"], p[score]) for p in model["points"]]
            _line(ax, points, place, linestyle=dash, **style, **face)
        reference |= {p["n_train"]: p["gl"]["reference"] for p in model["points"] if p["gl"]}
    for i, values in enumerate(paper["gl"] if paper else ()):
        color = _color(i) if count == len(paper["models"]) else PALE
        ax.plot(paper["sizes"], values, color=color, **OVERLAY)
    known = {n: v for n, v in reference.items() if v is not None}
    if known:
        sizes = sorted(known)
        ax.plot(sizes, [known[n] for n in sizes], color=INK, linewidth=1, zorder=1)
        text = "GL of held-out images"
        _legend(ax, [Line2D([], [], color=INK, linewidth=1, label=text)])


def _closed(ax: Axes, found: Found) -> None:
    every, paper, count = [], found.get("paper"), len(found["models"])
    for place, (i, model) in zip(_places(count), enumerate(found["models"])):
        style = _style(i)
        for form, dash in CLOSED.items():
            points = [(p["n_train"], p[form]) for p in model["points"]]
            face = {} if form == "optimum" else {"markerfacecolor": "white", "alpha": 0.75}
            _line(ax, points, place, linestyle=dash, **style, **face)
            every += points
    for row in paper["theory"] if paper else ():
        color = _color(row["model"]) if count == len(paper["models"]) else PALE
        ax.plot(paper["sizes"], row["values"], color=color, **OVERLAY)
    _chance(ax, every)
    texts = {"optimum": "with the empirical optimum", "gaussian": "with the Gaussian"}
    _legend(ax, [Line2D([], [], color=INK, ls=CLOSED[f], label=t) for f, t in texts.items()])


def _disjoint(ax: Axes, found: Found) -> None:
    """Disjoint parts solid, two seeds dashed, the parts' Gaussian baseline grey."""
    labels = [m["capacity"] for m in found["models"]]
    lines = {
        "parts": ("-", "disjoint images"),
        "seeds": ("--", "same images, two seeds"),
        "gaussian": ("-.", "Gaussian of one part × network of the other"),
    }
    every, drawn = [], set()
    for capacity in dict.fromkeys(row["capacity"] for row in found["disjoint"]):
        rows = [row for row in found["disjoint"] if row["capacity"] == capacity]
        i = labels.index(capacity)
        for key, (dash, _) in lines.items():
            points = [(row["n_train"], row[key]) for row in rows]
            grey = {"color": DIM, "marker": "x"}
            style = _style(i)
            _line(ax, points, 0, linestyle=dash, **(grey if key == "gaussian" else style))
            every += points
            drawn |= {key for _, record in points if record}
    _chance(ax, every)
    styles = {
        key: {"color": DIM if key == "gaussian" else INK, "ls": lines[key][0]} for key in lines
    }
    _legend(ax, [Line2D([], [], label=lines[k][1], **styles[k]) for k in lines if k in drawn])


def _legend(ax: Axes, handles: Sequence[Any]) -> None:
    style = {"frameon": True, "framealpha": 0.8, "edgecolor": "w", "fontsize": 7.5}
    ax.legend(handles=list(handles), loc="best", **style)


def _caption(found: Found, inputs: ReportInputs, panels: Mapping[str, Any]) -> str:
    how = [sampling_words(inputs.scores)]
    if found["threshold"] is not None:
        above = format_share(found["threshold"])
        how.append(f"RP: cosine above {above} in {found['descriptor']}")
    parts = [
        "Networks of one family over their number of training images, from the same noises "
        f"({'; '.join(filter(None, how))}). Bars: 95 % intervals; dotted: chance, the highest of "
        "the lines at each N."
    ]
    for pair in found["pairs"]:
        if pair["valley"]:
            parts.append(_valley(pair))
    for model in found["models"]:
        if model["gl_crossing"]:
            where = crossing_words(model["gl_crossing"])
            parts.append(
                f"GL of {label(model['capacity'])} reaches half of what held-out images score at N "
                f"= {where}."
            )
    if any("disjoint" in title for title in panels):
        parts.append(
            "Disjoint: two networks of one capacity whose training sets share no image "
            "(arXiv 2310.02557), beside two seeds on the same images."
        )
    if found.get("paper"):
        parts.append(
            f"Pale: {found['paper']['source']}; other data, other networks"
            + (", which stand for those here in order of size." if _alike(found) else ".")
        )
    return " ".join(parts)


def _alike(found: Found) -> bool:
    return len(found["models"]) == len(found["paper"]["models"])


def _valley(pair: Found) -> str:
    v = pair["valley"]
    ratio = "" if v["ratio"] is None else f", {format_share(v['ratio'])} of it"
    return (
        f"RP {label(pair['a'])} × {label(pair['b'])} is lowest at N = "
        f"{format_count(v['n_train'])} ({format_share(v['rp']['value'])}), beside "
        f"{format_share(v['end_rp']['value'])} at the lower end{ratio}."
    )


def _states_plate(found: Found) -> Plate | None:
    """Stacked shares of the three states, a panel for each capacity."""
    rows = found["states"]
    capacities = list(dict.fromkeys(row["capacity"] for row in rows))[:MOST_PANELS]
    capacities = [c for c in capacities if sum(row["capacity"] == c for row in rows) > 1]
    if not capacities:
        return None
    fig = new_figure(min(WIDTH, max(5.0, 3.2 * len(capacities))), 3.1)
    fig.get_layout_engine().set(wspace=0.07)  # labels at the ends reach into the gap
    axes = fig.subplots(1, len(capacities), squeeze=False, sharey=True)[0]
    for ax, capacity in zip(axes, capacities):
        own = sorted((r for r in rows if r["capacity"] == capacity), key=lambda r: r["n_train"])
        sizes = [row["n_train"] for row in own]
        shares = [[row[state]["value"] for row in own] for state in STATES]
        ax.stackplot(sizes, shares, colors=list(STATES.values()), alpha=0.75, linewidth=0)
        reference = [(r["n_train"], r["reference"]) for r in own if r["reference"]]
        if reference:
            values = [r["memorized"] + r["spurious"] for _, r in reference]
            ax.plot([n for n, _ in reference], values, color=INK, linewidth=1.2, ls="--")
        style_axes(ax, grid=None)
        size_ticks(ax, sizes)
        ax.set_ylim(0, 1)
        ax.margins(x=0)
        ax.set_title(label(capacity), fontsize=9, color=INK)
        ax.set_xlabel("training images N", fontsize=8)
    axes[0].set_ylabel("share of samples", fontsize=8)
    handles = [Patch(color=color, alpha=0.75, label=state) for state, color in STATES.items()]
    text = "upper edge of spurious for held-out images"
    handles.append(Line2D([], [], color=INK, linewidth=1.2, ls="--", label=text))
    fig.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    most = max(rows, key=lambda row: row["spurious"]["value"])
    where = f"at N = {format_count(most['n_train'])}, {label(most['capacity'])}"
    share = most["spurious"]["value"]
    told = f"Spurious ones are most frequent {where}: {format_share(share)}. " if share else ""
    caption = (
        f"What {format_count(found['n'])} samples are near copies of: a training image "
        "(memorized), no training image but another sample (spurious, arXiv 2505.21777), neither "
        "(generalized). "
        "A copy is nearer than a third of the distance to the second nearest training image. "
        f"{told}Dashed: the same of held-out images in place of samples, which is there by chance."
    )
    alt = f"Stacked areas over training images for {listed([label(c) for c in capacities])}."
    title = "Memorized, spurious, generalized"
    return Plate("grid_states", title, caption, alt, fig)


def _losses_plate(found: Found) -> Plate | None:
    """The gap in PSNR over noise levels, coloured by N, and its mean over N."""
    rows = found["loss_gaps"]
    capacities = list(dict.fromkeys(row["capacity"] for row in rows))
    if not capacities:
        return None
    shown = capacities[: MOST_PANELS - 1]
    sizes = sorted({row["n_train"] for row in rows})
    fig = new_figure(min(WIDTH, 3.2 * (len(shown) + 1)), 3.1)
    fig.get_layout_engine().set(wspace=0.05)
    axes = fig.subplots(1, len(shown) + 1, squeeze=False)[0]
    limits = _limits([row["psnr_gap"] for row in rows if row["capacity"] in shown])
    for i, (ax, capacity) in enumerate(zip(axes[1:], shown)):
        for row in rows:
            if row["capacity"] == capacity:
                color = size_color(row["n_train"], sizes)
                ax.plot(row["sigma"], row["psnr_gap"], color=color, linewidth=1.4)
        log_ticks(ax, rows[0]["sigma"])
        style_axes(ax)
        ax.set_ylim(*limits)
        ax.tick_params(labelleft=not i)
        ax.set_title(label(capacity), fontsize=9, color=INK)
        ax.set_xlabel("noise level σ", fontsize=8)
    _mean_gaps(axes[0], rows, [m["capacity"] for m in found["models"]])
    rows_legend(fig, size_handles(sizes), MOST_COLUMNS)
    caption = (
        "How much better networks denoise training than held-out images when training ends "
        "(peak signal-to-noise ratio, as in arXiv 2310.02557): the mean over noise levels, and at "
        "each of them. The gap closes where networks have too many images to remember."
    )
    gaps = format_span([r["psnr_gap_mean"] for r in rows], fmt=lambda v: f"{v:.1f}")
    alt = f"Curves of the PSNR gap over training images and noise levels; the means are {gaps} dB."
    return Plate("grid_losses", "Training and held-out denoising loss", caption, alt, fig)


def _mean_gaps(ax: Axes, rows: Sequence[Found], capacities: Sequence[str]) -> None:
    """The mean gap over N, a line for each capacity."""
    for i, capacity in enumerate(capacities):
        own = sorted((r for r in rows if r["capacity"] == capacity), key=lambda r: r["n_train"])
        style = {**_style(i), "label": label(capacity)}
        if own:
            x, y = zip(*((r["n_train"], r["psnr_gap_mean"]) for r in own))
            ax.plot(x, y, ms=4, lw=1.4, **style)
    style_axes(ax)
    size_ticks(ax, [row["n_train"] for row in rows])
    ax.axhline(0, color=DIM, linewidth=0.8)
    ax.set_title("mean over σ", fontsize=9, color=INK)
    ax.set_xlabel("training images N", fontsize=8)
    ax.set_ylabel("PSNR gap, dB", fontsize=8)
    ax.legend(loc="best", fontsize=7.5, framealpha=0.8, edgecolor="w")


def _limits(curves: Sequence[Sequence[float]]) -> tuple[float, float]:
    low, high = min(map(min, curves)), max(map(max, curves))
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def size_color(n: int, sizes: Sequence[int]) -> Any:
    """The colour of a number of training images among all of them, dark for few."""
    place = sorted(sizes).index(n) / max(1, len(sizes) - 1)
    return colormaps[SIZE_COLORS](0.92 * place)


def size_handles(sizes: Sequence[int]) -> list[Line2D]:
    """Legend entries of `size_color`."""
    texts = [(n, f"N = {format_count(n)}") for n in sorted(sizes)]
    return [Line2D([], [], color=size_color(n, sizes), lw=2, label=text) for n, text in texts]


def log_ticks(ax: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis over some positive values, with plain numbers at powers of ten."""
    ax.set_xscale("log")
    low, high = np.log10(min(values)), np.log10(max(values))
    powers = [10.0**k for k in range(int(np.ceil(low - 1e-9)), int(np.floor(high + 1e-9)) + 1)]
    if len(powers) > 1:
        ax.set_xticks(powers, [f"{p:,g}" if p >= 1 else f"{p:g}"[1:] for p in powers])


def log_values(axis: Axis, subs: Sequence[float]) -> None:
    """Plain numbers on a logarithmic axis, at these multiples of powers of ten."""
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(lambda y, _: f"{y:,g}")
    axis.set_minor_locator(NullLocator())
