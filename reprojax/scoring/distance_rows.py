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
from reprojax.scoring.threads import mapped
from reprojax.scoring.transport import transport


def distance_rows(samples: Sequence[SampleSet]) -> list[dict[str, Any]]:
    """PFD and mean per-image r² of each pair whose images share a shape.

    Args:
        samples: the models' samples, all of one n.

    Returns:
        Rows ``{"a", "b", "pfd", "pfd_ci95", "pfd_chance", "r2", "r2_ci95", "n"}``, in the order of
        the pairs of scores.json.
    """
    couples = [
        (a, b)
        for a, b in combinations(samples, 2)
        if a.images is not None and b.images is not None and a.images.shape == b.images.shape
    ]
    with mapped(_distance_row, couples) as rows:
        return list(rows)


def _distance_row(couple: tuple[SampleSet, SampleSet]) -> dict[str, Any]:
    a, b = couple
    value, interval = pfd(a.images, b.images)
    r2, r2_interval = mean_interval(per_image_r2(a.images, b.images))
    return plain(
        {
            "a": a.name,
            "b": b.name,
            "pfd": value,
            "pfd_ci95": list(interval),
            "pfd_chance": pfd_chance(a.images, b.images),
            "r2": r2,
            "r2_ci95": list(r2_interval),
            "n": a.n,
        }
    )


def curve_rows(samples: Sequence[SampleSet]) -> dict[str, Any]:
    """RP over the threshold, with its chance, of each pair that was trained on the same images.

    Args:
        samples: the models' samples, all of one n.

    Returns:
        ``{"taus": [...], "rows": [{"a", "b", "rp": [...], "chance": [...]}]}``.
    """
    couples = [
        (a, b)
        for a, b in combinations(samples, 2)
        if a.features is not None and b.features is not None and a.train == b.train
    ]
    with mapped(_curve_row, couples) as rows:
        return {"taus": list(CURVE_TAUS), "rows": list(rows)}


def _curve_row(couple: tuple[SampleSet, SampleSet]) -> dict[str, Any]:
    a, b = couple
    shares = rp_curve(a.features, b.features), rp_curve_chance(a.features, b.features)
    return plain({"a": a.name, "b": b.name, "rp": shares[0].tolist(), "chance": shares[1].tolist()})


def transport_rows(
    samples: Sequence[SampleSet], z: np.ndarray, check: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """How near each model's pairing of noises and images is to optimal transport.

    Args:
        samples: the models' samples; those of another shape than the noises are left out.
        z: float32 `[n, h, w, c]`, the noises of the first n rows of every set.
        check: called after each model.

    Returns:
        Rows ``{"name", "cost", "optimal", "random", "recovered", "matched", "n"}``.
    """
    fitting = [s for s in samples if s.images is not None and s.images[: len(z)].shape == z.shape]
    rows = []
    with mapped(lambda sample: transport(z, sample.images[: len(z)]), fitting) as found:
        for sample, result in zip(fitting, found, strict=True):
            check()
            rows.append(plain({"name": sample.name, **asdict(result)}))
    return rows
