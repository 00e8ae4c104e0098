"""The images of a study: training sets of its cells, and the held-out images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cached_property

import numpy as np

from reprojax.data.source import ArraySource, ImageSource, open_source
from reprojax.data.subset import DataSpec, Split, Subset, split
from reprojax.errors import InputError
from reprojax.interop.samples import ImageSet
from reprojax.scoring.descriptors import Descriptor
from reprojax.scoring.rows import RowReader
from reprojax.scoring.scores import GIVEN_FEATURES
from reprojax.scoring.sets import RealSet
from reprojax.study.cells import Cell
from reprojax.study.study import Study


class Images(ABC):
    """The images of a study: training sets of its cells, and the held-out images.

    Attributes:
        shape: (h, w, c).
        source: Their name in ``scores.json``.
        heldout: The held-out images, the same for all cells, or None.
        largest: The largest training set, the first of equals, or None.
    """

    shape: tuple[int, int, int]
    source: str
    heldout: Subset | None
    largest: Subset | None

    @abstractmethod
    def train(self, cell: Cell) -> Subset | None:
        """Returns the training images of a cell, or None."""

    @abstractmethod
    def key(self, cell: Cell) -> str | None:
        """Returns the key of a cell's training set, or None where there is none."""

    def n_train(self, cell: Cell) -> int:
        """Returns the number of training images of a cell, 0 where there are none."""
        return len(self.train(cell) or ())

    def fingerprint(self, cell: Cell) -> str:
        """Returns the fingerprint of a cell's training images, "" where there are none."""
        train = self.train(cell)
        return train.fingerprint if train else ""

    def heldout_fingerprint(self) -> str:
        """Returns the fingerprint of the held-out images, "" where there are none."""
        return self.heldout.fingerprint if self.heldout else ""

    def real_set(self, cell: Cell, descriptor: Descriptor) -> RealSet | None:
        """Returns a cell's training images with their features, read when compared, or None."""
        return _read_late(self.train(cell), descriptor)

    def largest_set(self, descriptor: Descriptor) -> RealSet | None:
        """Returns the largest training set with its features, or None."""
        return _read_late(self.largest, descriptor)

    def heldout_set(self, descriptor: Descriptor) -> RealSet | None:
        """Returns the held-out images, held in memory as samples are, or None."""
        if self.heldout is None:
            return None
        pixels = self.heldout.images()
        return RealSet(pixels, descriptor(pixels), len(pixels))


class StudyImages(Images):
    """Opens the data source of a study and hands out its subsets; see `Images`.

    Args:
        study: Its cells may differ from its data in ``n_train`` and ``part`` alone.

    Raises:
        InputError: A set is missing or broken, or a subset is larger than it.
    """

    def __init__(self, study: Study):
        self.study, self.source = study, study.data.source.name
        self._source: ImageSource = open_source(study.data.source)
        self._splits: dict[DataSpec, Split] = {}
        for cell in study.cells:
            if cell.data is None:
                continue
            same = replace(cell.data, n_train=study.data.n_train, part=study.data.part)
            if same != study.data:
                raise InputError(f"models.{cell.name}.data", None, "must be the study's data")
            try:
                self._split(cell.data)
            except InputError as error:
                field = error.field.removeprefix("data.")
                if getattr(cell.data, field, None) == getattr(study.data, field, None):
                    raise
                named = InputError(field, error.value, error.requirement)
                raise named.under(f"models.{cell.name}.") from error
        if len(self.largest) < 2:
            requirement = "must be at least 2 in the largest set, to calibrate on"
            raise InputError("data.n_train", len(self.largest), requirement)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        return self._source.shape

    def _split(self, spec: DataSpec) -> Split:
        if spec not in self._splits:
            self._splits[spec] = split(
                self._source,
                n_train=spec.n_train,
                n_heldout=spec.n_heldout,
                seed=spec.seed,
                part=spec.part,
                dedup=spec.dedup,
            )
        return self._splits[spec]

    @cached_property
    def _specs(self) -> list[DataSpec]:
        specs = [cell.data for cell in self.study.cells if cell.data is not None]
        return specs or [self.study.data]

    @cached_property
    def heldout(self) -> Subset | None:
        """See `Images`."""
        return self._split(self._specs[0]).heldout

    @cached_property
    def largest(self) -> Subset:
        """See `Images`."""
        return max((self._split(spec).train for spec in self._specs), key=len)

    def train(self, cell: Cell) -> Subset | None:
        """See `Images`."""
        return None if cell.data is None else self._split(cell.data).train

    def key(self, cell: Cell) -> str | None:
        """See `Images`."""
        return None if cell.data is None else f"{cell.data.part}-{cell.data.n_train}"


class GivenImages(Images):
    """Real images, or features of theirs, that are given beside given samples.

    Args:
        samples: The samples of one model, for the shape.
        train: The training images of all models, or None.
        heldout: Real images outside of them, or None.
    """

    source = "given"

    def __init__(self, samples: ImageSet, train: ImageSet | None, heldout: ImageSet | None):
        self.shape = (0, 0, 0) if samples.images is None else samples.images.shape[1:]
        self._train, self._heldout = train, heldout
        self._sets: dict[tuple[int, str, str], RealSet] = {}
        self.largest, self.heldout = _given_subset(train), _given_subset(heldout)

    def train(self, cell: Cell) -> Subset | None:
        """See `Images`."""
        return self.largest

    def key(self, cell: Cell) -> str | None:
        """See `Images`."""
        return "train" if self._train else None

    def n_train(self, cell: Cell) -> int:
        """See `Images`."""
        return len(self._train or ())

    def fingerprint(self, cell: Cell) -> str:
        """See `Images`."""
        return self._train.hash if self._train else ""

    def heldout_fingerprint(self) -> str:
        """See `Images`."""
        return self._heldout.hash if self._heldout else ""

    def real_set(self, cell: Cell, descriptor: Descriptor) -> RealSet | None:
        """See `Images`."""
        return self._set(self._train, descriptor)

    def largest_set(self, descriptor: Descriptor) -> RealSet | None:
        """See `Images`."""
        return self._set(self._train, descriptor)

    def heldout_set(self, descriptor: Descriptor) -> RealSet | None:
        """See `Images`."""
        return self._set(self._heldout, descriptor)

    def _set(self, images: ImageSet | None, descriptor: Descriptor) -> RealSet | None:
        """Returns one of the two sets with its features, which are computed once."""
        if images is None:
            return None
        key = (id(images), descriptor.name, descriptor.identity())
        if key not in self._sets:
            own = descriptor.name == GIVEN_FEATURES
            features = images.features if own else descriptor(images.images)
            self._sets[key] = RealSet(images.images, features, len(images))
        return self._sets[key]


def _given_subset(images: ImageSet | None) -> Subset | None:
    """Returns given images as a subset; None where there are none, or only their features."""
    if images is None or images.images is None:
        return None
    return Subset(ArraySource(images.images), np.arange(len(images)))


def _read_late(subset: Subset | None, descriptor: Descriptor) -> RealSet | None:
    """Returns images with their features, read block by block when they are compared."""
    if subset is None:
        return None
    images = image_rows(subset)
    width = descriptor(subset.images(0, 1)).shape[1:]
    return RealSet(images, images.map(width, descriptor), len(subset))


def image_rows(subset: Subset) -> RowReader:
    """Returns the images of a subset, uint8 `[n, h, w, c]`, read when they are sliced."""
    return RowReader(len(subset), subset.shape, subset.images)
