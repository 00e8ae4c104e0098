"""All scores of a set of models: the ``pairs`` and ``models`` of scores.json."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np

from reprojax.errors import InputError
from reprojax.scoring import models as one
from reprojax.scoring import pairs as two
from reprojax.scoring.frechet import Projection, frechet, frechet_distance
from reprojax.scoring.rows import Rows
from reprojax.scoring.similarity import max_cosine
from reprojax.scoring.stats import wilson
from reprojax.scoring.threads import mapped

DECIMALS = 6  # of every number in scores.json: the same file from the same samples


@dataclass(frozen=True)
class PairScore:
    """One row of ``pairs`` in scores.json."""

    a: str
    b: str
    descriptor: str
    threshold: float
    score: str  # "rp" or "mae"
    value: float
    ci95: tuple[float, float]
    chance: float
    n: int

    def as_dict(self) -> dict:
        """The row as plain JSON values."""
        return asdict(self) | {"ci95": list(self.ci95)}


@dataclass(frozen=True)
class ModelScore:
    """One row of ``models`` in scores.json."""

    name: str
    score: str  # "gl", "memorized" or "frechet"
    descriptor: str
    threshold: float | None
    value: float
    ci95: tuple[float, float]
    reference: float | None
    n: int
    n_train: int

    def as_dict(self) -> dict:
        """The row as plain JSON values."""
        return asdict(self) | {"ci95": list(self.ci95)}


Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class SampleSet:
    """One model's samples, row i from noise i; a closed form's are one too.

    Attributes:
        name: the cell's name.
        images: uint8 `[n, h, w, c]`, or None.
        features: float32 `[n, d]` unit rows, or None.
        train: key of the training set that the model belongs to, or None.
    """

    name: str
    images: np.ndarray | None = None
    features: np.ndarray | None = None
    train: str | None = None

    @property
    def n(self) -> int:
        """How many samples there are."""
        return len(self.features if self.features is not None else self.images)


@dataclass(frozen=True, eq=False)
class TrainSet:
    """Real images: a training set, or the held-out ones.

    Attributes:
        images: uint8 `[n, h, w, c]`, or None; an array, or a RowReader where they are many.
        features: float32 `[n, d]` unit rows, or None; likewise.
        n: how many there are.
    """

    images: Rows | None
    features: Rows | None
    n: int


def score_all(
    samples: Sequence[SampleSet],
    train_sets: Mapping[str, TrainSet],
    heldout: TrainSet | None,
    descriptor: str,
    tau_rp: float,
    tau_gl: float,
    progress: Progress | None = None,
) -> tuple[list[dict], list[dict]]:
    """Scores every pair of models, and every model that has a training set.

    RP, GL and the Fréchet distance need features; the MAE score and ``memorized`` need images (of
    equal shape). What cannot be had is left out.

    Args:
        samples: the models' samples, all of one n.
        train_sets: the training sets by key.
        heldout: real images outside every training set, or None.
        descriptor: name of what made the features.
        tau_rp: cosine threshold of RP; rounded to six decimals, as it is recorded.
        tau_gl: cosine threshold of GL, likewise; one for all training sets.
        progress: called after each step with (what was done, how many are done, of how many).

    Returns:
        the rows ``pairs`` and ``models`` of scores.json, numbers rounded to six decimals, in the
        order of ``samples``.

    Raises:
        InputError: two sets share a name or differ in n, or a set has fewer than 2 samples.
    """
    _require_comparable(samples)
    tau_rp, tau_gl = rounded(tau_rp), rounded(tau_gl)
    couples = list(combinations(samples, 2))
    judged = [s for s in samples if s.train is not None and s.train in train_sets]
    total, done = len(couples) + len(judged), 0
    pairs, models = [], []
    with mapped(lambda couple: list(_pair_scores(*couple, descriptor, tau_rp)), couples) as scored:
        for (a, b), rows in zip(couples, scored, strict=True):
            pairs += [plain(row.as_dict()) for row in rows]
            done += 1
            if progress:
                progress(f"{a.name} | {b.name}", done, total)
    judges = _judges(judged, train_sets, heldout, descriptor, tau_gl)
    with mapped(lambda sample: list(judges[sample.train].scores(sample)), judged) as scored:
        for sample, rows in zip(judged, scored, strict=True):
            models += [plain(row.as_dict()) for row in rows]
            done += 1
            if progress:
                progress(sample.name, done, total)
    return pairs, models


def nearest(features: np.ndarray, train: TrainSet) -> tuple[np.ndarray, np.ndarray]:
    """The training image nearest to each sample by cosine: (index int64 `[n]`, float64 `[n]`)."""
    cosine, index = max_cosine(features, train.features)
    return index, cosine


def largest(train_sets: Mapping[str, TrainSet]) -> TrainSet:
    """The largest training set, the first of equals: what thresholds are calibrated on."""
    return max(train_sets.values(), key=lambda train: train.n)


def _pair_scores(a: SampleSet, b: SampleSet, descriptor: str, tau: float) -> Iterator:
    n = a.n
    if a.features is not None and b.features is not None:
        value = two.rp(a.features, b.features, tau)
        chance = two.rp_chance(a.features, b.features, tau)
        interval = wilson(round(value * n), n)
        yield PairScore(a.name, b.name, descriptor, tau, "rp", value, interval, chance, n)
    if a.images is not None and b.images is not None and a.images.shape == b.images.shape:
        value, limit = two.mae_score(a.images, b.images), two.MAE_THRESHOLD
        chance = two.mae_chance(a.images, b.images)
        interval = wilson(round(value * n), n)
        yield PairScore(a.name, b.name, "pixels", limit, "mae", value, interval, chance, n)


@dataclass(frozen=True, eq=False)
class _Ruler:
    """The coordinates of all Fréchet distances of a study, and the held-out images in them."""

    projection: Projection
    heldout: np.ndarray

    @classmethod
    def fit(cls, train_sets: Mapping[str, TrainSet], heldout: TrainSet | None) -> _Ruler | None:
        """One projection, of the largest training set: distances in others do not compare."""
        train = largest(train_sets)
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

    def __init__(self, train: TrainSet, heldout: TrainSet | None, ruler, descriptor, tau, n: int):
        self.train, self.ruler, self.descriptor, self.tau = train, ruler, descriptor, tau
        self.by_features = train.features is not None
        self.by_images = train.images is not None and train.n >= 2
        real = heldout if heldout is not None and heldout.n else TrainSet(None, None, 0)
        self.gl = self.memorized = self.frechet = None
        if self.by_features and real.features is not None:
            self.gl = one.gl(real.features, train.features, tau)
        if self._shares_shape(real.images):
            self.memorized = one.memorized(real.images, train.images)
        if ruler and self.by_features and train.n >= 2:
            first = ruler.projection(train.features[:n])
            self.frechet = frechet_distance(first, ruler.heldout)

    def scores(self, sample: SampleSet) -> Iterator[ModelScore]:
        """The rows of one model."""
        n, images, features = sample.n, sample.images, sample.features
        if self.by_features and features is not None:
            value = one.gl(features, self.train.features, self.tau)
            interval = wilson(round(value * n), n)
            yield self._row(sample, "gl", self.descriptor, self.tau, value, interval, self.gl)
        if self._shares_shape(images):
            value, limit = one.memorized(images, self.train.images), one.MEMORIZED_RATIO
            interval = wilson(round(value * n), n)
            yield self._row(sample, "memorized", "pixels", limit, value, interval, self.memorized)
        if self.ruler and features is not None and n >= 3:  # a jackknife of covariances needs 3
            value, interval = frechet(self.ruler.projection(features), self.ruler.heldout)
            yield self._row(sample, "frechet", self.descriptor, None, value, interval, self.frechet)

    def _shares_shape(self, images: np.ndarray | None) -> bool:
        shape = self.train.images.shape[1:] if self.by_images else None
        return images is not None and images.shape[1:] == shape

    def _row(self, sample: SampleSet, score, descriptor, threshold, value, interval, reference):
        return ModelScore(
            name=sample.name,
            score=score,
            descriptor=descriptor,
            threshold=threshold,
            value=value,
            ci95=interval,
            reference=reference,
            n=sample.n,
            n_train=self.train.n,
        )


def _judges(
    judged: Sequence[SampleSet],
    train_sets: Mapping[str, TrainSet],
    heldout: TrainSet | None,
    descriptor: str,
    tau: float,
) -> dict[str, _Judge]:
    """A judge for each training set that a set of samples belongs to."""
    keys = list(dict.fromkeys(sample.train for sample in judged))
    if not keys:
        return {}
    ruler, n = _Ruler.fit(train_sets, heldout), judged[0].n
    judge = lambda key: _Judge(train_sets[key], heldout, ruler, descriptor, tau, n)  # noqa: E731
    with mapped(judge, keys) as made:
        return dict(zip(keys, made, strict=True))


def _require_comparable(samples: Sequence[SampleSet]) -> None:
    names = [sample.name for sample in samples]
    for sample in samples:
        if names.count(sample.name) > 1:
            raise InputError("samples", sample.name, "a name that no other set has")
        if sample.n != samples[0].n:
            allowed = f"{samples[0].n} samples, as {samples[0].name} has: row i from noise i"
            raise InputError(f"samples {sample.name}", f"{sample.n} samples", allowed)
        if sample.n < 2:
            raise InputError(f"samples {sample.name}", f"{sample.n} samples", "at least 2")


def rounded(x: float) -> float:
    """A number as scores.json has it, to six decimals."""
    return round(float(x), DECIMALS) + 0.0  # + 0.0 turns -0.0 into 0.0


def plain(value: object) -> object:
    """The same JSON value with every float rounded."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return rounded(value) if isinstance(value, float) else value
