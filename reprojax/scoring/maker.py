"""The one maker of scores: from sets of samples to the rows of ``scores.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from reprojax.scoring import models as one
from reprojax.scoring import pairs as two
from reprojax.scoring.calibration import Thresholds
from reprojax.scoring.chance import chance_within, shared_groups
from reprojax.scoring.distances import (
    CURVE_TAUS,
    per_image_r2,
    pfd,
    pfd_chance,
    rp_curve,
    rp_curve_chance,
)
from reprojax.scoring.frechet import Projection, frechet, frechet_distance
from reprojax.scoring.scores import (
    CellRow,
    CurveRow,
    Curves,
    DistanceRow,
    ModelRow,
    PairRow,
    Scores,
    TransportRow,
    rounded,
)
from reprojax.scoring.sets import RealSet, SampleSet, require_comparable
from reprojax.scoring.stats import mean_interval, wilson
from reprojax.scoring.threads import mapped
from reprojax.scoring.transport import transport

Progress = Callable[[int, int], None]
Couple = tuple[SampleSet, SampleSet]


def make_scores(
    samples: Sequence[SampleSet],
    cells: Mapping[str, CellRow],
    train_sets: Mapping[str, RealSet],
    heldout: RealSet | None,
    descriptor: str,
    thresholds: Thresholds,
    *,
    noises: np.ndarray | None = None,
    header: Mapping[str, Any] | None = None,
    progress: Progress = lambda done, total: None,
) -> Scores:
    """Scores every pair of models, and every model that has a training set.

    RP, GL, the Fréchet distance and the RP curve need features; the MAE score, the memorized share,
    PFD and r² need images of equal shape. What cannot be had is left out.

    Args:
        samples: The samples of the models, all of one n.
        cells: What each model is, by name.
        train_sets: The training sets by key.
        heldout: Real images outside every training set, or None.
        descriptor: The name of what made the features.
        thresholds: The thresholds of RP and GL, rounded to six decimals as they are recorded.
        noises: float32 `[m, h, w, c]`, the first noises, which transport is measured with; None to
            leave it out.
        header: Further fields of `Scores`: study, noise, data, sampling and the like.
        progress: Called after each comparison with (number done, number in all).

    Returns:
        The scores, with rows in the order of ``samples``.

    Raises:
        InputError: Two sets share a name or differ in n, or a set has fewer than 2 samples.
    """
    require_comparable(samples)
    couples = list(combinations(samples, 2))
    judged = [s for s in samples if s.train is not None and s.train in train_sets]
    shaped = [couple for couple in couples if _share_shape(*couple)]
    same_images = [(a, b) for a, b in couples if _have_features(a, b) and a.train == b.train]
    placed = [s for s in samples if noises is not None and _fits(s, noises)]
    total = sum(map(len, (couples, judged, shaped, same_images, placed)))
    run = _Comparisons(total, progress)
    pair_rows = run.all(partial(_pair_rows, descriptor, thresholds), couples)
    judges = _judges(judged, train_sets, heldout, descriptor, thresholds)
    model_rows = run.all(lambda sample: list(judges[sample.train].rows(sample)), judged)
    return Scores(
        cells=dict(cells),
        pairs=tuple(row for rows in pair_rows for row in rows),
        models=tuple(row for rows in model_rows for row in rows),
        calibration=thresholds.calibration,
        distances=tuple(run.all(_distance_row, shaped)),
        rp_curves=Curves(CURVE_TAUS, tuple(run.all(_curve_row, same_images))),
        transport=tuple(run.all(partial(_transport_row, noises), placed)),
        **(header or {}),
    )


def score_pairs(
    samples: Sequence[SampleSet],
    descriptor: str,
    thresholds: Thresholds,
    progress: Progress = lambda done, total: None,
) -> tuple[PairRow, ...]:
    """Scores every pair of models; see `make_scores`."""
    require_comparable(samples)
    couples = list(combinations(samples, 2))
    run = _Comparisons(len(couples), progress)
    rows = run.all(partial(_pair_rows, descriptor, thresholds), couples)
    return tuple(row for pair in rows for row in pair)


class _Comparisons:
    """Runs functions over items in threads and counts what is done."""

    def __init__(self, total: int, progress: Progress):
        self._total, self._progress, self._done = total, progress, 0

    def all(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Returns the results in the order of the items."""
        results = []
        with mapped(function, items) as values:
            for result in values:
                results.append(result)
                self._done += 1
                self._progress(self._done, self._total)
        return results


def _have_features(a: SampleSet, b: SampleSet) -> bool:
    return a.features is not None and b.features is not None


def _share_shape(a: SampleSet, b: SampleSet) -> bool:
    return a.images is not None and b.images is not None and a.images.shape == b.images.shape


def _fits(sample: SampleSet, noises: np.ndarray) -> bool:
    return sample.images is not None and sample.images[: len(noises)].shape == noises.shape


def _pair_rows(descriptor: str, thresholds: Thresholds, couple: Couple) -> list[PairRow]:
    a, b = couple
    n, groups = a.n, shared_groups(a.groups, b.groups)
    condition = None if groups is None else "same"
    rows = []
    if _have_features(a, b):
        tau = rounded(thresholds.rp)
        value = two.rp(a.features, b.features, tau)
        chance = chance_within(partial(two.rp_chance, tau=tau), a.features, b.features, groups)
        score = (descriptor, thresholds.rp_point, tau, "rp")
        rows.append((score, value, chance))
    if _share_shape(a, b):
        value, score = two.mae_score(a.images, b.images), ("pixels", "given", two.MAE_THRESHOLD)
        chance = chance_within(two.mae_chance, a.images, b.images, groups, two.mae_pairs)
        rows.append(((*score, "mae"), value, chance))
    return [
        PairRow(
            a.name,
            b.name,
            *score,
            rounded(value),
            _rounded_pair(wilson(round(value * n), n)),
            rounded(chance),
            n,
            condition,
        )
        for score, value, chance in rows
    ]


def _rounded_pair(interval: tuple[float, float]) -> tuple[float, float]:
    return rounded(interval[0]), rounded(interval[1])


@dataclass(frozen=True, eq=False)
class _FrechetFrame:
    """The coordinates of all Fréchet distances of a study, and the held-out images in them."""

    projection: Projection
    heldout: np.ndarray

    @classmethod
    def fit(
        cls, train_sets: Mapping[str, RealSet], heldout: RealSet | None
    ) -> _FrechetFrame | None:
        """One projection, of the largest training set: distances in others do not compare."""
        train = max(train_sets.values(), key=lambda train: train.n)  # the first of equals
        if heldout is None or heldout.features is None or train.features is None or heldout.n < 2:
            return None
        projection = Projection.fit(train.features)
        return cls(projection, projection(heldout.features))


class _Judge:
    """One training set with what held-out images score against it, computed once.

    The Fréchet reference is that of the first n training images, n the number of samples (of all
    where there are fewer): the distance of a finite set has a bias that falls with its size, so
    only sets of one size compare.
    """

    def __init__(
        self,
        train: RealSet,
        heldout: RealSet | None,
        frame: _FrechetFrame | None,
        descriptor: str,
        thresholds: Thresholds,
        n: int,
    ):
        self._train, self._frame, self._descriptor = train, frame, descriptor
        self._tau, self._point = rounded(thresholds.gl), thresholds.gl_point
        self._by_features = train.features is not None
        self._by_images = train.images is not None and train.n >= 2
        real = heldout if heldout is not None and heldout.n else RealSet(None, None, 0)
        self._references: dict[str, float | None] = dict.fromkeys(("gl", "memorized", "frechet"))
        if self._by_features and real.features is not None:
            self._references["gl"] = one.gl(real.features, train.features, self._tau)
        if self._shares_shape(real.images):
            self._references["memorized"] = one.memorized(real.images, train.images)
        if frame and self._by_features and train.n >= 2:
            first = frame.projection(train.features[:n])
            self._references["frechet"] = frechet_distance(first, frame.heldout)

    def rows(self, sample: SampleSet) -> Iterator[ModelRow]:
        """Yields the rows of one model."""
        n, images, features = sample.n, sample.images, sample.features
        if self._by_features and features is not None:
            value = one.gl(features, self._train.features, self._tau)
            score = ("gl", self._descriptor, self._point, self._tau)
            yield self._row(sample, score, value, wilson(round(value * n), n))
        if self._shares_shape(images):
            value = one.memorized(images, self._train.images)
            score = ("memorized", "pixels", "given", rounded(one.MEMORIZED_RATIO))
            yield self._row(sample, score, value, wilson(round(value * n), n))
        if self._frame and features is not None and n >= 3:  # a jackknife of covariances needs 3
            value, interval = frechet(self._frame.projection(features), self._frame.heldout)
            yield self._row(sample, ("frechet", self._descriptor, None, None), value, interval)

    def _shares_shape(self, images: np.ndarray | None) -> bool:
        shape = self._train.images.shape[1:] if self._by_images else None
        return images is not None and images.shape[1:] == shape

    def _row(
        self,
        sample: SampleSet,
        score: tuple[str, str, str | None, float | None],
        value: float,
        interval: tuple[float, float],
    ) -> ModelRow:
        reference = self._references[score[0]]
        return ModelRow(
            sample.name,
            *score,
            value=rounded(value),
            ci95=_rounded_pair(interval),
            reference=None if reference is None else rounded(reference),
            n=sample.n,
            n_train=self._train.n,
        )


def _judges(
    judged: Sequence[SampleSet],
    train_sets: Mapping[str, RealSet],
    heldout: RealSet | None,
    descriptor: str,
    thresholds: Thresholds,
) -> dict[str, _Judge]:
    """Makes a judge for each training set that a set of samples belongs to."""
    keys = list(dict.fromkeys(sample.train for sample in judged))
    if not keys:
        return {}
    frame, n = _FrechetFrame.fit(train_sets, heldout), judged[0].n

    def make(key: str) -> _Judge:
        return _Judge(train_sets[key], heldout, frame, descriptor, thresholds, n)

    with mapped(make, keys) as judges:
        return dict(zip(keys, judges, strict=True))


def _distance_row(couple: Couple) -> DistanceRow:
    a, b = couple
    value, interval = pfd(a.images, b.images)
    r2, r2_interval = mean_interval(per_image_r2(a.images, b.images))

    def mean_square(x: np.ndarray, y: np.ndarray) -> float:
        return pfd_chance(x, y) ** 2

    groups = shared_groups(a.groups, b.groups)
    if groups is None:
        chance = pfd_chance(a.images, b.images)
    else:
        chance = np.sqrt(chance_within(mean_square, a.images, b.images, groups))
    return DistanceRow(
        a.name,
        b.name,
        rounded(value),
        _rounded_pair(interval),
        rounded(chance),
        rounded(r2),
        _rounded_pair(r2_interval),
        a.n,
    )


def _curve_row(couple: Couple) -> CurveRow:
    a, b = couple
    groups = shared_groups(a.groups, b.groups)
    shares = rp_curve(a.features, b.features)
    chance = chance_within(rp_curve_chance, a.features, b.features, groups)
    return CurveRow(a.name, b.name, tuple(map(rounded, shares)), tuple(map(rounded, chance)))


def _transport_row(noises: np.ndarray, sample: SampleSet) -> TransportRow:
    values = asdict(transport(noises, sample.images[: len(noises)]))
    return TransportRow(
        sample.name, **{k: v if isinstance(v, int) else rounded(v) for k, v in values.items()}
    )
