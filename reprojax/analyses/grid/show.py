"""Shows a grid of capacity and number of training images, beside the paper's curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reprojax.analyses.grid.tables import grid_tables
from reprojax.drawing import draw, formats
from reprojax.drawing import size_series as series
from reprojax.report.inputs import ReportInputs
from reprojax.report.tables import Table
from reprojax.report.words import chance_words, crossing_words, listed, sampling_words

LEADS = True
STATES = {"memorized": draw.BLUE, "spurious": draw.ORANGE, "generalized": draw.GREEN}
PAPER = {"linewidth": 3.5, "alpha": 0.22, "zorder": 1, "solid_capstyle": "round"}
HOLLOW = {"linestyle": "--", "markerfacecolor": "white", "alpha": 0.75}
GREY = {"linestyle": "-.", "color": draw.DIM, "marker": "x"}
MOST_PANELS = 4  # capacities side by side, the smallest first
MOST_COLUMNS = 8  # of a legend of sizes

Analysis = Mapping[str, Any]


def figures(inputs: ReportInputs) -> list[draw.Plate]:
    """Draws scores over N, states of samples, and the gap of losses."""
    analysis = inputs.analyses.get("grid") or {}
    if not analysis.get("models"):
        return []
    plates = [_scores_plate(analysis, inputs), _states_plate(analysis), _losses_plate(analysis)]
    return [plate for plate in plates if plate]


def tables(inputs: ReportInputs) -> list[Table]:
    """Makes tables of the valleys, of where memorizing ends, and of disjoint images."""
    return grid_tables(inputs.analyses["grid"])


# --- scores over N ---------------------------------------------------------------------------


def _scores_plate(analysis: Analysis, inputs: ReportInputs) -> draw.Plate:
    models, own = analysis["models"], analysis["sizes"]
    panels = {
        "RP between capacities": _between(analysis),
        "GL (memorized: dashed)": _new(analysis),
        "RP with closed forms": _closed(analysis),
        "RP on disjoint images": _disjoint(analysis),
    }
    panels = {title: panel for title, panel in panels.items() if panel.lines}
    fig = series.lettered_figure(panels, 3.5, 2 if len(panels) > 1 else 1)
    styles = zip(models, series.styles(len(models)))
    handles = [series.Line((), style).entry(model["capacity"]) for model, style in styles]
    handles.append(series.chance_entry())
    if analysis["paper"]:
        handles.append(draw.entry("the paper's (CIFAR-10)", linewidth=3.5, alpha=0.22))
    draw.top_legend(fig, handles, 6, handlelength=2.6)
    values = [p["rp"]["value"] for pair in analysis["pairs"] for p in pair["points"]]
    span = f"; RP between them {formats.span(values)}" if values else ""
    alt = (
        f"Curves over {formats.count(own[0])} to {formats.count(own[-1])} training images for "
        f"{listed([draw.label(model['capacity']) for model in models])}{span}."
    )
    caption = _caption(analysis, inputs)
    return draw.Plate("grid", "Capacity and dataset size", caption, alt, fig)


def _alike(analysis: Analysis) -> bool:
    """Returns whether the paper's models stand for those here, in order of size."""
    paper = analysis["paper"]
    return bool(paper) and len(analysis["models"]) == len(paper["models"])


def _beside_paper(
    analysis: Analysis,
    lines: Sequence[series.Line],
    curves: Iterable[tuple[Sequence[float], series.Style | None]],
    entries: Sequence[Line2D],
    behind: Sequence[tuple[Mapping, Mapping]] = (),
) -> series.Panel:
    """Makes a panel with curves of the paper, in the colour of what they stand for."""
    paper, sizes = analysis["paper"], list(analysis["sizes"])
    behind = list(behind)
    if paper:
        sizes += paper["sizes"]
        for values, style in curves:
            color = style.color if style and _alike(analysis) else draw.PALE
            behind.append((dict(zip(paper["sizes"], values)), {"color": color, **PAPER}))
    return series.Panel(sizes, lines, behind, entries)


def _between(analysis: Analysis) -> series.Panel:
    capacities = [model["capacity"] for model in analysis["models"]]
    lines, of_pair = {}, {}
    # a pair has no colour of a capacity, of which there mostly are three
    for pair, style in zip(analysis["pairs"], series.styles(len(analysis["pairs"]), first=3)):
        points = series.json_points((p["n_train"], p["rp"]) for p in pair["points"])
        lines[f"{pair['a']} × {pair['b']}"] = series.Line(points, style)
        of_pair[capacities.index(pair["a"]), capacities.index(pair["b"])] = style
    rows = (analysis["paper"] or {}).get("rp", ())
    curves = ((row["values"], of_pair.get((row["a"], row["b"]))) for row in rows)
    entries = [line.entry(text) for text, line in lines.items()]
    return _beside_paper(analysis, list(lines.values()), curves, entries)


def _model_lines(analysis: Analysis, looks: Mapping[str, Mapping]) -> list[series.Line]:
    """Returns a line for each capacity and key of its points, as ``looks`` has them."""
    models = analysis["models"]
    lines = [
        series.Line(
            series.json_points((p["n_train"], p[key]) for p in model["points"]), style, look
        )
        for model, style in zip(models, series.styles(len(models)))
        for key, look in looks.items()
    ]
    return [line for line in lines if line.points]


def _new(analysis: Analysis) -> series.Panel:
    lines = _model_lines(analysis, {"gl": {"linestyle": "-"}, "memorized": HOLLOW})
    points = [point for model in analysis["models"] for point in model["points"] if point["gl"]]
    reference = {point["n_train"]: point["gl"]["reference"] for point in points}
    look = {"color": draw.INK, "linewidth": 1}
    there = any(value is not None for value in reference.values())
    entries = [draw.entry("GL of held-out images", **look)] if there else []
    rows = (analysis["paper"] or {}).get("gl", ())
    curves = zip(rows, series.styles(len(rows)))
    return _beside_paper(analysis, lines, curves, entries, [(reference, look)])


def _closed(analysis: Analysis) -> series.Panel:
    lines = _model_lines(analysis, {"optimum": {"linestyle": "-"}, "gaussian": HOLLOW})
    paper = analysis["paper"] or {"models": (), "theory": ()}
    styles = series.styles(len(paper["models"]))
    curves = ((row["values"], styles[row["model"]]) for row in paper["theory"])
    texts = {"-": "with the empirical optimum", "--": "with the Gaussian"}
    entries = [draw.entry(text, linestyle=dash) for dash, text in texts.items()]
    return _beside_paper(analysis, lines, curves, entries)


def _disjoint(analysis: Analysis) -> series.Panel:
    """Makes a panel: disjoint parts solid, two seeds dashed, the Gaussian of the parts grey."""
    texts = {
        "parts": ("disjoint images", {"linestyle": "-"}),
        "seeds": ("same images, two seeds", {"linestyle": "--"}),
        "gaussian": ("Gaussian of one part × network of the other", GREY),
    }
    models, lines, entries = analysis["models"], [], {}
    for model, style in zip(models, series.styles(len(models))):
        rows = [row for row in analysis["disjoint"] if row["capacity"] == model["capacity"]]
        for key, (text, look) in texts.items():
            points = series.json_points((row["n_train"], row[key]) for row in rows)
            if points:
                lines.append(series.Line(points, replace(style, place=0), look))
                entries[key] = draw.entry(text, **{**look, "marker": ""})
    return series.Panel(
        analysis["sizes"], lines, entries=[entries[k] for k in texts if k in entries]
    )


def _caption(analysis: Analysis, inputs: ReportInputs) -> str:
    how = [sampling_words(inputs.scores)]
    if analysis["threshold"] is not None:
        above = formats.share(analysis["threshold"])
        how.append(f"RP: cosine above {above} in {analysis['descriptor']}")
    parts = [
        "Networks of one family over their number of training images, from the same noises "
        f"({'; '.join(filter(None, how))}). Bars: 95 % intervals; dotted: chance, the same between "
        f"{chance_words(inputs.scores)}, the highest of the lines at each N."
    ]
    parts += [_valley_words(pair) for pair in analysis["pairs"] if pair["valley"]]
    parts += [
        f"GL of {draw.label(model['capacity'])} reaches half of what held-out images score at N = "
        f"{crossing_words(model['gl_crossing'])}."
        for model in analysis["models"]
        if model["gl_crossing"]
    ]
    if analysis["disjoint"]:
        parts.append(
            "Disjoint: two networks of one capacity whose training sets share no image "
            "(arXiv 2310.02557), beside two seeds on the same images."
        )
    if analysis["paper"]:
        alike = ", which stand for those here in order of size" if _alike(analysis) else ""
        source = analysis["paper"]["source"]
        parts.append(f"Pale: {source}; other data, other networks{alike}.")
    return " ".join(parts)


def _valley_words(pair: Analysis) -> str:
    valley = pair["valley"]
    ratio = "" if valley["ratio"] is None else f", {formats.share(valley['ratio'])} of it"
    return (
        f"RP {draw.label(pair['a'])} × {draw.label(pair['b'])} is lowest at N = "
        f"{formats.count(valley['n_train'])} ({formats.share(valley['rp']['value'])}), beside "
        f"{formats.share(valley['end_rp']['value'])} at the lower end{ratio}."
    )


# --- states and losses -----------------------------------------------------------------------


def _by_capacity(rows: Sequence[Analysis]) -> dict[str, list[Analysis]]:
    """Returns the rows of each capacity, ascending in N."""
    groups: dict[str, list[Analysis]] = {}
    for row in sorted(rows, key=lambda row: row["n_train"]):
        groups.setdefault(row["capacity"], []).append(row)
    order = dict.fromkeys(row["capacity"] for row in rows)
    return {capacity: groups[capacity] for capacity in order}


def _states_plate(analysis: Analysis) -> draw.Plate | None:
    """Draws stacked shares of the three states, a panel for each capacity."""
    rows = analysis["states"]
    groups = list(_by_capacity(rows).items())[:MOST_PANELS]
    groups = [(capacity, own) for capacity, own in groups if len(own) > 1]
    if not groups:
        return None
    fig, axes = series.panel_row(len(groups), sharey=True)
    for i, (ax, (capacity, own)) in enumerate(zip(axes, groups)):
        sizes = [row["n_train"] for row in own]
        shares = [[row[state]["value"] for row in own] for state in STATES]
        ax.stackplot(sizes, shares, colors=list(STATES.values()), alpha=0.75, linewidth=0)
        reference = [(row["n_train"], row["reference"]) for row in own if row["reference"]]
        values = {n: shares["memorized"] + shares["spurious"] for n, shares in reference}
        series.draw_values(ax, values, color=draw.INK, linewidth=1.2, linestyle="--")
        series.style_axes(
            ax, sizes, draw.label(capacity), grid=None, y="" if i else "share of samples"
        )
        ax.set_ylim(0, 1)
        ax.margins(x=0)
    handles = [Patch(color=color, alpha=0.75, label=state) for state, color in STATES.items()]
    text = "memorized or spurious among held-out images"
    draw.top_legend(fig, [*handles, draw.entry(text, linewidth=1.2, linestyle="--")], 4)
    most = max(rows, key=lambda row: row["spurious"]["value"])
    caption = (
        f"What {formats.count(analysis['n'])} samples are near copies of: a training image "
        "(memorized), no training image but another sample (spurious, arXiv 2505.21777), neither "
        "(generalized). "
        "A copy is nearer than a third of the distance to the second nearest training image. "
    )
    if share := most["spurious"]["value"]:
        caption += (
            f"Spurious ones are most frequent at N = {formats.count(most['n_train'])}, "
            f"{draw.label(most['capacity'])}: {formats.share(share)}. "
        )
    caption += (
        "Dashed: the share of held-out images that are memorized or spurious by these rules, "
        "which is there by chance."
    )
    alt = f"Stacked areas over training images for {listed([draw.label(c) for c, _ in groups])}."
    return draw.Plate("grid_states", "Memorized, spurious, generalized", caption, alt, fig)


def _losses_plate(analysis: Analysis) -> draw.Plate | None:
    """Draws the gap in PSNR over noise levels, coloured by N, and its mean over N."""
    rows = analysis["loss_gaps"]
    if not rows:
        return None
    groups = list(_by_capacity(rows).items())[: MOST_PANELS - 1]
    sizes = {row["n_train"] for row in rows}
    fig, axes = series.panel_row(len(groups) + 1)
    curves = [row["psnr_gap"] for _, own in groups for row in own]
    low, high = min(map(min, curves)), max(map(max, curves))
    room = 0.05 * (high - low) or 1.0
    for i, (ax, (capacity, own)) in enumerate(zip(axes[1:], groups)):
        for row in own:
            color = series.color(row["n_train"], sizes)
            ax.plot(row["sigma"], row["psnr_gap"], color=color, linewidth=1.4)
        draw.log_ticks(ax, rows[0]["sigma"])
        draw.style_axes(ax, title=draw.label(capacity), x="noise level σ")
        ax.set_ylim(low - room, high + room)
        ax.tick_params(labelleft=not i)
    _draw_mean_gaps(axes[0], analysis)
    draw.top_legend(fig, series.color_entries(sizes), MOST_COLUMNS)
    caption = (
        "How much better networks denoise training than held-out images when training ends "
        "(peak signal-to-noise ratio, as in arXiv 2310.02557): the mean over noise levels, and at "
        "each of them. The gap closes where networks have too many images to remember."
    )
    gaps = formats.span([r["psnr_gap_mean"] for r in rows], fmt=lambda v: f"{v:.1f}")
    alt = f"Curves of the PSNR gap over training images and noise levels; the means are {gaps} dB."
    return draw.Plate("grid_losses", "Training and held-out denoising loss", caption, alt, fig)


def _draw_mean_gaps(ax: Axes, analysis: Analysis) -> None:
    """Draws the mean gap over N, a line for each capacity."""
    rows, models = _by_capacity(analysis["loss_gaps"]), analysis["models"]
    lines = {
        model["capacity"]: series.Line(
            [series.Point(row["n_train"], row["psnr_gap_mean"]) for row in rows[model["capacity"]]],
            replace(style, place=0),
        )
        for model, style in zip(models, series.styles(len(models)))
        if model["capacity"] in rows
    }
    for line in lines.values():
        line.draw(ax)
    sizes = [row["n_train"] for row in analysis["loss_gaps"]]
    series.style_axes(ax, sizes, "mean over σ", y="PSNR gap, dB")
    ax.axhline(0, color=draw.DIM, linewidth=0.8)
    draw.panel_legend(ax, [line.entry(capacity) for capacity, line in lines.items()])
