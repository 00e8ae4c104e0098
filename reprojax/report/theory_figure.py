"""The figure of networks against closed forms of their own training images, over their number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product

from matplotlib.figure import Figure

from reprojax.drawing import draw, formats
from reprojax.drawing import size_series as series
from reprojax.report.inputs import ReportInputs
from reprojax.report.words import chance_words, listed, sampling_words
from reprojax.scoring.scores import CellRow, DistanceRow, PairRow, Scores

FEWEST_SIZES = 3
LEGEND_COLUMNS = 4
REFERENCES = {  # closed form: its dash and its name
    "optimum": ("-", "optimum of the same images"),
    "gaussian": ("--", "Gaussian of the same images"),
    "population": ("-.", "true distribution"),
}


def theory_plate(inputs: ReportInputs) -> draw.Plate | None:
    """Draws RP and PFD with the closed forms, GL, and RP between networks, over ``n_train``.

    None with fewer than three training set sizes, or without an empirical optimum.
    """
    scores = inputs.scores
    groups = series.network_groups(scores.cells)
    sizes = sorted({n for group in groups for n in group.names})
    families = {cell.family for cell in scores.cells.values()}
    families = [family for family in REFERENCES if family in families]
    if len(sizes) < FEWEST_SIZES or "optimum" not in families:
        return None
    pfd = {frozenset((row.a, row.b)): row for row in scores.distances}
    rp_lines = _closed_lines(scores, groups, families, scores.pair)
    pfd_lines = _closed_lines(scores, groups, families, lambda a, b: pfd.get(frozenset((a, b))))
    error = _solver_error(inputs)
    panels = {
        "RP with closed forms": series.Panel(sizes, rp_lines, [(error, series.REFERENCE)]),
        "PFD to closed forms (grey levels of 255)": series.Panel(sizes, pfd_lines, share=False),
        "GL and memorized share": _models(scores, groups, sizes),
        "RP between networks of equal N": _between(scores, groups, sizes),
    }
    panels = {title: panel for title, panel in panels.items() if panel.lines}
    if not panels:
        return None
    fig = series.lettered_figure(panels, 3.1, len(panels) if len(panels) != 4 else 2)
    _top_legend(fig, groups, families, bool(error))
    caption = _caption(scores, panels, families)
    if error:
        caption += (
            " Pale: RP of the optimum with itself between few and many steps of the solver, whose "
            "own error is what it lacks to 1."
        )
    optimum = [line for line in rp_lines if line.look == {"linestyle": "-"}]
    alt = (
        f"Curves over {formats.count(sizes[0])} to {formats.count(sizes[-1])} training images for "
        f"{listed([group.label for group in groups])}; RP with the optimum "
        f"{formats.span(point.value for line in optimum for point in line.points)}."
    )
    return draw.Plate("theory", "Networks against theory", caption, alt, fig)


def _solver_error(inputs: ReportInputs) -> dict[int, float]:
    """Returns by ``n_train`` the RP of the optimum in few steps with itself in many."""
    rows = inputs.analyses.get("ceiling", {}).get("rows", ())
    return {r["n_train"]: r["rp"] for r in rows if "steps" in r["change"] and r["other_ci95"]}


def _closed_form(cells: Mapping[str, CellRow], family: str, name: str) -> str:
    """Returns the closed form to compare a network with: of its own images, or of all; or ""."""
    own, forms = cells[name], [n for n, cell in cells.items() if cell.family == family]
    same = [n for n in forms if cells[n].n_train == own.n_train]
    if family == "population":
        return next(iter(same or forms), "")
    return next((n for n in same if cells[n].subset == own.subset), "")


def _closed_lines(
    scores: Scores,
    groups: Sequence[series.Group],
    families: Sequence[str],
    row_of: Callable[[str, str], PairRow | DistanceRow | None],
) -> list[series.Line]:
    """Returns a line for each group of networks and family of closed forms that has points."""
    lines = []
    for group, family in product(groups, families):
        names = group.names.items()
        rows = [(n, row_of(name, _closed_form(scores.cells, family, name))) for n, name in names]
        look = {"linestyle": REFERENCES[family][0]}
        lines.append(series.Line(series.row_points(rows), group.style, look))
    return [line for line in lines if line.points]


def _models(scores: Scores, groups: Sequence[series.Group], sizes: Sequence[int]) -> series.Panel:
    lines, reference, entries = [], {}, {}
    texts = {"gl": "GL", "memorized": "memorized"}
    looks = {"gl": {"linestyle": "-"}, "memorized": {"linestyle": "--", "markerfacecolor": "w"}}
    for group, (score, look) in product(groups, looks.items()):
        rows = [(n, scores.model(name, score)) for n, name in group.names.items()]
        if points := series.row_points(rows):
            lines.append(series.Line(points, group.style, look))
            entries[score] = draw.entry(texts[score], marker="o", **look)
        if score == "gl":
            reference |= {n: row.reference for n, row in rows if row and row.reference is not None}
    handles = list(entries.values())
    if reference:
        handles.insert(1, draw.entry("GL, held-out images", **series.REFERENCE))
    return series.Panel(sizes, lines, [(reference, series.REFERENCE)], handles)


def _between(scores: Scores, groups: Sequence[series.Group], sizes: Sequence[int]) -> series.Panel:
    points_of = {}
    for a, b in combinations(groups, 2):
        names = [(n, a.names[n], b.names[n]) for n in a.names if n in b.names]
        points = series.row_points((n, scores.pair(*pair)) for n, *pair in names)
        if points:
            points_of[f"{a.label} × {b.label}"] = points
    look = {"color": draw.INK} if len(points_of) == 1 else {}
    styles = series.styles(len(points_of), first=3)
    lines = [series.Line(p, style, look) for p, style in zip(points_of.values(), styles)]
    return series.Panel(sizes, lines, entries=[line.entry(t) for t, line in zip(points_of, lines)])


def _top_legend(
    fig: Figure, groups: Sequence[series.Group], families: Sequence[str], with_error: bool
) -> None:
    """Puts rows of networks above the figure, and a row of what they are compared with."""
    handles = [series.Line((), group.style).entry(group.label) for group in groups]
    handles += [draw.entry(" ", linestyle="")] * (-len(handles) % LEGEND_COLUMNS)
    dashes = [REFERENCES[family] for family in families]
    handles += [draw.entry(f"with the {text}", linestyle=dash) for dash, text in dashes]
    handles.append(series.chance_entry())
    if with_error:
        text = "optimum with itself: the solver's own error"
        handles.append(draw.entry(text, **series.REFERENCE))
    draw.top_legend(fig, handles, LEGEND_COLUMNS, handlelength=2.6)


def _caption(scores: Scores, panels: Mapping[str, series.Panel], families: Sequence[str]) -> str:
    how = [sampling_words(scores)]
    tau = scores.threshold("rp")
    if tau is not None:
        how.append(f"RP: cosine above {formats.share(tau)} in {scores.descriptor}")
    texts = [REFERENCES[family][1] for family in families]
    parts = [
        f"Over the number of training images, networks against the {listed(texts)}, all from the "
        f"same noises through the same solver ({'; '.join(filter(None, how))}). "
        "Thin bars: 95 % intervals; models at one N stand a little apart."
    ]
    if any("PFD" in title for title in panels):
        parts.append("PFD is the root-mean-square gap between two maps from noise to image.")
    parts.append(
        f"Dotted: chance, the same between {chance_words(scores)} (the value hardest to tell from "
        "agreement at each N)."
    )
    return " ".join(parts)
