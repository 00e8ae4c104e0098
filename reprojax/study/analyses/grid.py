"""A grid of capacity and number of training images: where memorizing ends and agreement begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from reprojax.errors import InputError
from reprojax.scoring.crossing import crossing
from reprojax.scoring.models import is_new
from reprojax.scoring.published import PAPER_GRID
from reprojax.scoring.scoreboard import plain
from reprojax.scoring.similarity import paired_cosines
from reprojax.scoring.spurious import STATES, sample_states, state_shares
from reprojax.scoring.stats import mean_interval, share_ratio
from reprojax.scoring.threads import mapped
from reprojax.study.analyses.grid_layout import DISJOINT, Layout, cell_rows, lay_out
from reprojax.study.analyses.specs import Grid
from reprojax.study.cells import Cell, Study
from reprojax.study.images import StudyImages, image_rows
from reprojax.study.scores import read_scores, real_set, study_descriptor
from reprojax.study.stages import Context, read_features, read_samples
from reprojax.training.metrics import read_metrics

HALF = 0.5  # of what held-out images score, where GL counts as having risen
MEMORIZED = STATES.index("memorized")
PEAK = 4.0  # square of the range [-1, 1], of the peak signal-to-noise ratio

Record = Mapping[str, Any]


class Flags(NamedTuple):
    """Which samples of a network count, on the same noises for all networks.

    Args:
        new: bool `[n]`, for GL.
        copied: bool `[n]`, memorized; None with fewer than 2 training images.
    """

    new: np.ndarray
    copied: np.ndarray | None


class Scores:
    """Look-up in the content of scores.json, in the study's one descriptor."""

    def __init__(self, scores: Record):
        self.pairs = {(frozenset((r["a"], r["b"])), r["score"]): r for r in scores["pairs"]}
        self.models = {(r["name"], r["score"]): r for r in scores["models"]}

    def pair(self, a: str | None, b: str | None, score: str = "rp") -> Record | None:
        """``{"value", "ci95", "chance", "n"}`` of two cells, None where either is not there."""
        return _of(self.pairs.get((frozenset((a, b)), score)), "value", "ci95", "chance", "n")

    def model(self, name: str, score: str) -> Record | None:
        """``{"value", "ci95", "reference", "threshold", "n"}`` of a cell, None without."""
        keys = ("value", "ci95", "reference", "threshold", "n")
        return _of(self.models.get((name, score)), *keys)


def _of(record: Record | None, *keys: str) -> dict[str, Any] | None:
    return record and {key: record[key] for key in keys}


def check_grid(study: Study, images: StudyImages, spec: Grid) -> None:
    """Raises InputError where the cells are no grid."""
    field = "analyses.grid.cells"
    layout = lay_out(cell_rows(study, images, spec.cells), field)
    if len(layout.capacities) < 2:
        raise InputError(field, spec.cells, "networks of at least two capacities")
    if len(layout.sizes) < 2:
        raise InputError(field, spec.cells, "networks of at least two numbers of training images")


def analyse_grid(context: Context, spec: Grid, identity: str) -> dict[str, Any]:
    """Sets the scores of a study in a grid; see `Grid`.

    Scores are those of scores.json. What is measured here: which samples count, for the crossings
    and the states, cosines between models of disjoint images, and from the metrics of training the
    gap between its losses.

    Returns:
        ``capacities``, ``sizes``, and lists of plain rows: ``pairs`` (two capacities, a point per
        size, the valley), ``models`` (a capacity, a point per size, where GL and memorization
        cross), ``disjoint``, ``states``, ``loss_gaps``; ``paper`` beside them.
    """
    scores = read_scores(context.workdir.path, identity)
    layout = lay_out({name: scores["cells"][name] for name in spec.cells})
    own = [
        (c, n, name)
        for c in range(len(layout.capacities))
        for n in layout.sizes
        if (name := layout.network(c, n))
    ]
    known, descriptor = Scores(scores), study_descriptor(context)
    states, flags, total = [], {}, len(own) + 1
    with context.reporter.task("analyse grid", total, "sets of samples") as advance:
        halves = list(_disjoint(context, layout, known))
        advance(1, total)
        one_of = {n: context.study.cell(name) for _, n, name in own}
        references: dict[int, Record | None] = {}
        with mapped(lambda n: _heldout_states(context, one_of[n], spec.n), one_of) as found:
            for n, reference in zip(one_of, found, strict=True):
                context.stop.check("in analysing a grid")
                references[n] = reference

        def measure(place: tuple[int, int, str]) -> tuple[np.ndarray, np.ndarray | None]:
            cell = context.study.cell(place[2])
            train = real_set(context.images.train(cell), descriptor)
            features = read_features(context, cell, descriptor)[: spec.n]
            new = is_new(features, train.features, known.model(cell.name, "gl")["threshold"])
            return new, _states(context, cell, read_samples(context, cell)[0][: spec.n])

        with mapped(measure, own) as found:
            for i, ((c, n, name), (new, state)) in enumerate(zip(own, found, strict=True)):
                context.stop.check("in analysing a grid")
                flags[name] = Flags(new, None if state is None else state == MEMORIZED)
                if state is not None:
                    row = {"capacity": layout.label(c), "n_train": n, "name": name}
                    states.append({**row, **state_shares(state), "reference": references[n]})
                advance(i + 2, total)
    found = grid_of_scores(scores, layout, flags, spec.memorized_share)
    gaps = [_loss_gap(context, context.study.cell(name)) for _, _, name in own]
    found["loss_gaps"] = [
        {"capacity": layout.label(c), "n_train": n, "name": name, **gap}
        for (c, n, name), gap in zip(own, gaps)
        if gap
    ]
    measured = {"n": min(spec.n, context.bank.n), "disjoint": halves, "states": states}
    return plain({**measured, **found, "paper": _paper()})


def grid_of_scores(
    scores: Record, layout: Layout, flags: Mapping[str, Flags], memorized_share: float
) -> dict[str, Any]:
    """All that follows from scores.json, and from which samples count; see `analyse_grid`."""
    known = Scores(scores)
    row = next((r for r in scores["pairs"] if r["score"] == "rp"), {})
    return {
        "descriptor": row.get("descriptor"),
        "threshold": row.get("threshold"),
        "memorized_share": memorized_share,
        "subset": layout.subset,
        "seeds": list(layout.seeds),
        "capacities": list(layout.capacities),
        "sizes": list(layout.sizes),
        "pairs": [
            pair
            for a, b in combinations(range(len(layout.capacities)), 2)
            if (pair := _pair(layout, known, a, b))
        ],
        "models": [
            _model(layout, known, flags, c, memorized_share) for c in range(len(layout.capacities))
        ],
    }


def _pair(layout: Layout, known: Scores, a: int, b: int) -> dict[str, Any] | None:
    """Two capacities over the sizes that both have."""
    points = []
    for n in layout.sizes:
        names = layout.network(a, n), layout.network(b, n)
        rp, mae = (known.pair(*names, score) for score in ("rp", "mae"))
        if rp:
            points.append({"n_train": n, "a": names[0], "b": names[1], "rp": rp, "mae": mae})
    if not points:
        return None
    return {"a": layout.label(a), "b": layout.label(b), "points": points, "valley": valley(points)}


def valley(points: list[Record]) -> dict[str, Any] | None:
    """How far RP falls between its two ends.

    Args:
        points: with ``n_train`` ascending and ``rp``.

    Returns:
        ``n_train`` and ``rp`` of the lowest point between the ends, ``end_n_train`` and ``end_rp``
        of the lower end, their ``ratio`` with ``ratio_ci95``, and whether their intervals are
        ``disjoint`` (the valley's beneath); None with fewer than 3 points. The lowest of several
        points is a little low by chance, which the intervals do not know.
    """
    if len(points) < 3:
        return None
    lowest = min(points[1:-1], key=lambda p: p["rp"]["value"])
    end = min((points[0], points[-1]), key=lambda p: p["rp"]["value"])
    low, high = lowest["rp"], end["rp"]
    ratio, interval = share_ratio(*_count(low), *_count(high))
    return {
        "n_train": lowest["n_train"],
        "rp": low,
        "end_n_train": end["n_train"],
        "end_rp": high,
        "ratio": ratio,
        "ratio_ci95": interval and list(interval),
        "disjoint": low["ci95"][1] < high["ci95"][0],
    }


def _count(record: Record) -> tuple[int, int]:
    return round(record["value"] * record["n"]), record["n"]


def _model(
    layout: Layout, known: Scores, flags: Mapping[str, Flags], c: int, memorized_share: float
) -> dict[str, Any]:
    """One capacity over the sizes, with its two transitions."""
    points = []
    for n in layout.sizes:
        name = layout.network(c, n)
        if not name:
            continue
        point: dict[str, Any] = {"n_train": n, "name": name}
        for score in ("gl", "memorized", "frechet"):
            point[score] = known.model(name, score)
        for form in ("optimum", "gaussian"):
            other = layout.closed.get((form, n, layout.subset))
            point[form] = known.pair(name, other) if other else None
        points.append(point)
    gl = [p for p in points if p["gl"]["reference"] != 0]
    references = [p["gl"]["reference"] for p in gl]
    levels = [HALF * (1.0 if r is None else r) for r in references]
    new = [(p["n_train"], flags[p["name"]].new) for p in gl]
    own = [(p["n_train"], flags[p["name"]].copied) for p in points]
    copied = [(n, flag) for n, flag in own if flag is not None]
    return {
        "capacity": layout.label(c),
        "params": layout.capacities[c]["params"],
        "points": points,
        "gl_crossing": _crossing(new, levels, False, 2 * c),
        "memorization": _crossing(copied, memorized_share, True, 2 * c + 1),
    }


def _crossing(flags: list[tuple[int, np.ndarray]], level, falling: bool, index: int) -> dict | None:
    if len(flags) < 2:
        return None
    sizes, hits = zip(*flags)
    return crossing(sizes, np.stack(hits), level, falling=falling, index=index).as_dict()


def _disjoint(context: Context, layout: Layout, known: Scores) -> Iterator[dict[str, Any]]:
    """Models of images that share none, beside two seeds on the same images (arXiv 2310.02557).

    Those of disjoint images differ in their seeds too, where there are such: with one seed they
    share the order and the noises of training.
    """
    other_part, descriptor = DISJOINT.get(layout.subset), study_descriptor(context)

    def measured(a: str | None, b: str | None) -> dict[str, Any] | None:
        rp = known.pair(a, b) if a and b else None
        if rp is None:
            return None
        features = [read_features(context, context.study.cell(x), descriptor) for x in (a, b)]
        mean, interval = mean_interval(paired_cosines(*features))
        return {"a": a, "b": b, **rp, "cosine": mean, "cosine_ci95": list(interval)}

    for c in range(len(layout.capacities)):
        others = sorted({k[3] for k in layout.networks if k[0] == c} - {layout.seeds[c]})
        seeds = (*others, layout.seeds[c])
        for n in layout.sizes:
            own = layout.network(c, n)
            across = (layout.network(c, n, other_part or "-", s) for s in seeds)
            across = next(filter(None, across), None)
            twins = next(filter(None, (layout.network(c, n, seed=s) for s in others)), None)
            parts, same = measured(own, across), measured(own, twins)
            if not parts and not same:
                continue
            ratio = share_ratio(*_count(parts), *_count(same)) if parts and same else (None, None)
            gaussian = layout.closed.get(("gaussian", n, layout.subset))
            yield {
                "capacity": layout.label(c),
                "n_train": n,
                "parts": parts,
                "seeds": same,
                # what the two parts share as Gaussians, arXiv 2410.24060 and 2602.02908
                "gaussian": measured(gaussian, across),
                "ratio": ratio[0],
                "ratio_ci95": ratio[1] and list(ratio[1]),
            }


def _states(context: Context, cell: Cell, images: np.ndarray) -> np.ndarray | None:
    """The state of each image; None where there are too few to compare with."""
    train = context.images.train(cell)
    if len(train) < 2 or len(images) < 2:
        return None
    return sample_states(images, image_rows(train))


def _heldout_states(context: Context, cell: Cell, n: int) -> dict[str, float] | None:
    """What as many held-out images score in place of samples, or None without so many."""
    heldout, count = context.images.heldout, min(n, context.bank.n)
    if heldout is None or len(heldout) < count:
        return None
    state = _states(context, cell, heldout.images(0, count))
    if state is None:
        return None
    return {name: share["value"] for name, share in state_shares(state).items()}


def _loss_gap(context: Context, cell: Cell) -> dict[str, Any] | None:
    """Denoising loss on held-out less that on training images, when training ended.

    The gap in decibels is that of the peak signal-to-noise ratios, 10 log10(4 / mse) on [-1, 1]
    (arXiv 2310.02557): how much better training images are denoised.
    """
    rows = read_metrics(context.workdir.path / context.folder(cell) / "metrics.jsonl")
    rows = [row for row in rows if row.get("loss_train") and row.get("loss_heldout")]
    if not rows:
        return None
    last = max(rows, key=lambda row: row["step"])
    train, heldout = (np.asarray(last[k], float) for k in ("loss_train", "loss_heldout"))
    psnr = {key: 10 * np.log10(PEAK / v) for key, v in (("train", train), ("heldout", heldout))}
    decibels = psnr["train"] - psnr["heldout"]
    most = int(np.argmax(decibels))
    return {
        "step": last["step"],
        "sigma": last["sigma"],
        "gap": (heldout - train).tolist(),
        "psnr_train": psnr["train"].tolist(),
        "psnr_heldout": psnr["heldout"].tolist(),
        "psnr_gap": decibels.tolist(),
        "psnr_gap_mean": float(decibels.mean()),
        "psnr_gap_max": float(decibels[most]),
        "psnr_gap_sigma": last["sigma"][most],
    }


def _paper() -> dict[str, Any]:
    """The paper's curves as JSON: keys of pairs become lists."""
    grid = asdict(PAPER_GRID)
    return {
        **grid,
        "sizes": list(grid["sizes"]),
        "models": list(grid["models"]),
        "params": list(grid["params"]),
        "rp": [{"a": a, "b": b, "values": list(v)} for (a, b), v in grid["rp"].items()],
        "gl": [list(grid["gl"][i]) for i in sorted(grid["gl"])],
        "theory": [{"model": i, "values": list(v)} for i, v in grid["theory"].items()],
    }
