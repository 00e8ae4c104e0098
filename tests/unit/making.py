"""Scores for the tests of what reads them: of small random images, by the maker of all scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from reprojax.scoring.calibration import Thresholds
from reprojax.scoring.descriptors import PixelDescriptor
from reprojax.scoring.maker import make_scores
from reprojax.scoring.scores import CellRow, DistanceRow, ModelRow, PairRow, Scores
from reprojax.scoring.sets import RealSet, SampleSet

SHAPE = (4, 4, 1)
NUM_REAL = 24  # images of every training set and of the held-out set
NOISE = {"fingerprint": "c0ffee0123456789", "n": 512}

Changes = Callable[[Any], Mapping[str, Any] | None]


def network(family: str = "unet", width: int = 32, **facts: Any) -> CellRow:
    facts = {"n_train": 1000, "subset": "all", "kernel": "vp", **facts}
    facts = {"solver": "heun", "nfe": 35, "preconditioning": "edm", "objective": "edm", **facts}
    return CellRow("0" * 12, "network", family, width, **facts)


def closed_form(family: str = "gaussian", n_train: int = 1000, subset: str = "all") -> CellRow:
    shared = {"solver": "heun", "nfe": 35}
    return CellRow("0" * 12, "closed_form", family, n_train=n_train, subset=subset, **shared)


def external(n_train: int = 0) -> CellRow:
    return CellRow("0" * 12, "external", "external", n_train=n_train)


def made_scores(cells: Mapping[str, CellRow], **options: Any) -> Scores:
    """Scores random samples of each cell against random training images of its subset.

    Args:
        cells: What each model is.
        **options: ``thresholds``, ``descriptor``, ``noises`` and ``groups`` as the maker takes
            them; ``noises=False`` leaves transport out.
    """
    options = {"thresholds": Thresholds(0.83, 0.91), "descriptor": "pixels", **options}
    key = repr((cells, options))
    if key not in _MADE:
        _MADE[key] = _make(cells, **options) if cells else Scores({}, noise=NOISE)
    return _MADE[key]


_MADE: dict[str, Scores] = {}


def _make(
    cells: Mapping[str, CellRow],
    thresholds: Thresholds,
    descriptor: str,
    noises: bool = True,
    groups: np.ndarray | None = None,
    n: int = 6,
) -> Scores:
    rng = np.random.default_rng(0)

    def images(count: int) -> np.ndarray:
        return rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8)

    describe = PixelDescriptor.fit([images(NUM_REAL)])

    def real() -> RealSet:
        x = images(NUM_REAL)
        return RealSet(x, describe(x), len(x))

    keys = {name: f"{c.subset}-{c.n_train}" if c.n_train else None for name, c in cells.items()}
    trains = {key: real() for key in dict.fromkeys(keys.values()) if key}
    samples = []
    for name, key in keys.items():
        x = images(n)
        samples.append(SampleSet(name, x, describe(x), key, groups))
    scores = make_scores(
        samples,
        cells,
        trains,
        real(),
        descriptor,
        thresholds,
        noises=rng.standard_normal((n, *SHAPE)).astype(np.float32) if noises else None,
        header={"noise": NOISE},
    )
    return revalued(scores, model=lambda row: {"n_train": cells[row.name].n_train})


def revalued(
    scores: Scores,
    *,
    pair: Callable[[PairRow], Mapping[str, Any] | None] = lambda row: {},
    model: Callable[[ModelRow], Mapping[str, Any] | None] = lambda row: {},
    distance: Callable[[DistanceRow], Mapping[str, Any] | None] = lambda row: {},
) -> Scores:
    """Replaces fields of rows by what the functions return; rows with None are left out."""

    def changed(rows: tuple, changes: Changes) -> tuple:
        return tuple(replace(r, **c) for r in rows if (c := changes(r)) is not None)

    return replace(
        scores,
        pairs=changed(scores.pairs, pair),
        models=changed(scores.models, model),
        distances=changed(scores.distances, distance),
    )


def interval(value: float, half: float = 0.03) -> tuple[float, float]:
    return max(0.0, value - half), min(1.0, value + half)
