"""What scores.json says beyond one threshold: distances, RP curves, transport."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from reprojax.scoring.distances import (
    CURVE_TAUS,
    per_image_r2,
    pfd,
    pfd_chance,
    rp_curve,
    rp_curve_chance,
)
from reprojax.scoring.scoreboard import SampleSet, plain
from reprojax.scoring.stats import mean_interval
from reprojax.scoring.transport import transport


def distance_rows(samples: Sequence[SampleSet]) -> list[dict[str, Any]]:
    """PFD and mean per-image r² of each pair whose images share a shape.

    Args:
        samples: the models' samples, all of one n.

    Returns:
        Rows ``{"a", "b", "pfd", "pfd_ci95", "pfd_chance", "r2", "r2_ci95", "n"}``, in the order of
        the pairs of scores.json.
    """
    rows = []
    for a, b in combinations(samples, 2):
        if a.images is None or b.images is None or a.images.shape != b.images.shape:
            continue
        value, interval = pfd(a.images, b.images)
        r2, r2_interval = mean_interval(per_image_r2(a.images, b.images))
        row = {
            "a": a.name,
            "b": b.name,
            "pfd": value,
            "pfd_ci95": list(interval),
            "pfd_chance": pfd_chance(a.images, b.images),
            "r2": r2,
            "r2_ci95": list(r2_interval),
            "n": a.n,
        }
        rows.append(plain(row))
    return rows


def curve_rows(samples: Sequence[SampleSet]) -> dict[str, Any]:
    """RP over the threshold, with its chance, of each pair that was trained on the same images.

    Args:
        samples: the models' samples, all of one n.

    Returns:
        ``{"taus": [...], "rows": [{"a", "b", "rp": [...], "chance": [...]}]}``.
    """
    rows = []
    for a, b in combinations(samples, 2):
        if a.features is None or b.features is None or a.train != b.train:
            continue
        shares = rp_curve(a.features, b.features), rp_curve_chance(a.features, b.features)
        row = {"a": a.name, "b": b.name, "rp": shares[0].tolist(), "chance": shares[1].tolist()}
        rows.append(plain(row))
    return {"taus": list(CURVE_TAUS), "rows": rows}


def transport_rows(
    samples: Sequence[SampleSet], z: np.ndarray, check: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """How near each model's pairing of noises and images is to optimal transport.

    Args:
        samples: the models' samples; those of another shape than the noises are left out.
        z: float32 `[n, h, w, c]`, the noises of the first n rows of every set.
        check: called before each model.

    Returns:
        Rows ``{"name", "cost", "optimal", "random", "recovered", "matched", "n"}``.
    """
    rows = []
    for sample in samples:
        check()
        images = None if sample.images is None else sample.images[: len(z)]
        if images is not None and images.shape == z.shape:
            row = {"name": sample.name, **asdict(transport(z, images))}
            rows.append(plain(row))
    return rows
