"""All pairs of a group of models: their scores, and the mean and the lowest of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import fmean
from types import MappingProxyType
from typing import Any

import numpy as np

from reprojax.scoring.calibration import Thresholds
from reprojax.scoring.maker import score_pairs
from reprojax.scoring.ruler import Ruler
from reprojax.scoring.sets import SampleSet

CHANCES = {"rp": "chance", "mae": "mae_chance"}  # the key of each score's chance in a row

Row = Mapping[str, Any]


def summarise(
    rows: Sequence[Row], names: Collection[str], seeds: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the mean and the lowest score within a group of models, beside two seeds of one.

    Args:
        rows: Rows of pairs with ``a``, ``b``, ``rp`` and ``mae``, and their chances if any.
        names: The models of the group. A pair counts if both of its models are among them.
        seeds: The two seeds of one model, which need not be in the group, or ().

    Returns:
        ``num_pairs``, and for "rp" and "mae" each ``mean``, ``min``, ``min_pair``, ``chance`` (the
        highest), ``ceiling`` (the score of the two seeds) and ``of_ceiling`` (the mean divided by
        it). Values that cannot be computed are None.
    """
    group = [row for row in rows if row["a"] in names and row["b"] in names]
    same_model = [row for row in rows if {row["a"], row["b"]} == set(seeds)]
    summary: dict[str, Any] = {"num_pairs": len(group)}
    for score, chance in CHANCES.items():
        lowest = min(group, key=lambda row: row[score], default=None)
        mean = fmean(row[score] for row in group) if group else None
        ceiling = same_model[0][score] if same_model else None
        summary[score] = {
            "mean": mean,
            "min": lowest and lowest[score],
            "min_pair": lowest and [lowest["a"], lowest["b"]],
            "chance": max((row[chance] for row in group if chance in row), default=None),
            "ceiling": ceiling,
            "of_ceiling": mean / ceiling if group and ceiling else None,
        }
    return summary


def pair_rows(
    ruler: Ruler,
    images: Mapping[str, np.ndarray],
    step: Callable[[], None],
    groups: Mapping[str, np.ndarray | None] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Returns RP and MAE score of all pairs, as ``scores.json`` has them for the same images.

    Args:
        ruler: The study's descriptor and threshold.
        images: The samples by cell name, uint8 `[n, h, w, c]`, row i from noise i.
        step: A function that is called after each pair.
        groups: The groups of noises with the same condition, by cell name; None for a cell that is
            not conditional.

    Returns:
        Rows ``{"a", "b", "rp", "ci95", "chance", "mae", "mae_ci95", "mae_chance"}``.
    """
    samples = [
        SampleSet(name, x, ruler.descriptor(x), groups=groups.get(name))
        for name, x in images.items()
    ]
    thresholds = Thresholds(ruler.tau, ruler.tau)
    scores = score_pairs(samples, ruler.descriptor.name, thresholds, lambda done, total: step())
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for score in scores:
        row = rows.setdefault((score.a, score.b), {"a": score.a, "b": score.b})
        prefix = "mae_" if score.score == "mae" else ""
        row[score.score] = score.value
        row |= {f"{prefix}ci95": list(score.ci95), f"{prefix}chance": score.chance}
    return list(rows.values())
