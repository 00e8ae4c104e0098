"""A grid of capacity and number of training images: its valleys and its transitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from reprojax.scoring.crossing import crossing
from reprojax.scoring.layout import Layout
from reprojax.scoring.scores import ModelRow, PairRow, Scores
from reprojax.scoring.stats import share_ratio

HALF = 0.5  # GL counts as risen at this share of what held-out images score
PAIR_KEYS = ("value", "ci95", "chance", "n")
MODEL_KEYS = ("value", "ci95", "reference", "threshold", "n")

Record = Mapping[str, Any]


class Flags(NamedTuple):
    """Which samples of a network count, on the same noises for all networks.

    Attributes:
        new: Whether each sample counts for GL, bool `[n]`.
        copied: Whether each sample is memorized, bool `[n]`; None with fewer than 2 training
            images.
    """

    new: np.ndarray
    copied: np.ndarray | None


def grid_of_scores(
    scores: Scores, layout: Layout, flags: Mapping[str, Flags], memorized_share: float
) -> dict[str, Any]:
    """Returns what follows from scores.json and from which samples count; see ``analyses.grid``."""
    capacities = range(len(layout.capacities))
    pairs = (_pair(layout, scores, a, b) for a, b in combinations(capacities, 2))
    return {
        "descriptor": scores.descriptor,
        "threshold": scores.threshold("rp"),
        "memorized_share": memorized_share,
        "subset": layout.subset,
        "seeds": list(layout.seeds),
        "capacities": list(layout.capacities),
        "sizes": list(layout.sizes),
        "pairs": [pair for pair in pairs if pair],
        "models": [_model(layout, scores, flags, c, memorized_share) for c in capacities],
    }


def record(
    row: PairRow | ModelRow | None, keys: Sequence[str] = PAIR_KEYS
) -> dict[str, Any] | None:
    """Returns some fields of a row as a dict, None for no row."""
    return row and {key: getattr(row, key) for key in keys}


def _pair(layout: Layout, scores: Scores, a: int, b: int) -> dict[str, Any] | None:
    """Returns two capacities over the sizes that both have, None if there are none."""
    points = []
    for n in layout.sizes:
        names = layout.network(a, n), layout.network(b, n)
        rp, mae = (record(scores.pair(*names, score), PAIR_KEYS) for score in ("rp", "mae"))
        if rp:
            points.append({"n_train": n, "a": names[0], "b": names[1], "rp": rp, "mae": mae})
    if not points:
        return None
    return {"a": layout.label(a), "b": layout.label(b), "points": points, "valley": valley(points)}


def valley(points: list[Record]) -> dict[str, Any] | None:
    """Returns how far RP falls between its two ends, or None with fewer than 3 points.

    Args:
        points: Points with ``n_train``, ascending, and ``rp``.

    Returns:
        ``n_train`` and ``rp`` of the lowest point between the ends, ``end_n_train`` and ``end_rp``
        of the lower end, their ``ratio`` with ``ratio_ci95``, and ``disjoint``: whether the
        lowest point's interval lies below the end's. The intervals do not take into account that
        the lowest of several points is a little low by chance.
    """
    if len(points) < 3:
        return None
    lowest = min(points[1:-1], key=lambda p: p["rp"]["value"])
    end = min((points[0], points[-1]), key=lambda p: p["rp"]["value"])
    low, high = lowest["rp"], end["rp"]
    ratio, interval = share_ratio(*count(low), *count(high))
    return {
        "n_train": lowest["n_train"],
        "rp": low,
        "end_n_train": end["n_train"],
        "end_rp": high,
        "ratio": ratio,
        "ratio_ci95": interval and list(interval),
        "disjoint": low["ci95"][1] < high["ci95"][0],
    }


def count(share: Record) -> tuple[int, int]:
    """Returns the successes of a share and the number of trials."""
    return round(share["value"] * share["n"]), share["n"]


def _model(
    layout: Layout, scores: Scores, flags: Mapping[str, Flags], c: int, memorized_share: float
) -> dict[str, Any]:
    """Returns one capacity over the sizes, with its two transitions."""
    points = []
    for n in layout.sizes:
        name = layout.network(c, n)
        if not name:
            continue
        point: dict[str, Any] = {"n_train": n, "name": name}
        for score in ("gl", "memorized", "frechet"):
            point[score] = record(scores.model(name, score), MODEL_KEYS)
        for form in ("optimum", "gaussian"):
            other = layout.closed.get((form, n, layout.subset))
            point[form] = record(scores.pair(name, other), PAIR_KEYS) if other else None
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
