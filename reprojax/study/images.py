"""The images of a study: the source opened once, each cell's subset, the held-out part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from reprojax.data.source import ImageSource, open_source
from reprojax.data.subset import Split, Subset, split
from reprojax.errors import InputError
from reprojax.scoring.rows import RowReader
from reprojax.study.cells import Cell, DataSpec, Study

_BLOCK = 4096


class StudyImages:
    """Opens the source of a study and hands out its subsets.

    Args:
        study: its cells may differ from it in ``n_train`` and ``part`` only.

    Raises:
        InputError: a missing or broken set, or a subset larger than it.
    """

    def __init__(self, study: Study):
        self.study = study
        self.source: ImageSource = open_source(study.data.source)
        self._splits: dict[DataSpec, Split] = {}
        for cell in study.cells:
            same = replace(cell.data, n_train=study.data.n_train, part=study.data.part)
            if same != study.data:
                raise InputError(f"models.{cell.name}.data", cell.data, "the study's data")
            try:
                self.split(cell.data)
            except InputError as error:
                field = error.field.removeprefix("data.")
                if getattr(cell.data, field, None) == getattr(study.data, field, None):
                    raise
                raise InputError(
                    f"models.{cell.name}.{field}", error.value, error.requirement
                ) from (error)
        if len(self.split(self.largest).train) < 2:
            raise InputError("data.n_train", 1, "at least 2 in the largest set, to calibrate on")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        return self.source.shape

    def split(self, spec: DataSpec) -> Split:
        """The training subset and held-out part of a data description, made once."""
        if spec not in self._splits:
            self._splits[spec] = split(
                self.source,
                n_train=spec.n_train,
                n_heldout=spec.n_heldout,
                seed=spec.seed,
                part=spec.part,
                dedup=spec.dedup,
            )
        return self._splits[spec]

    def train(self, cell: Cell) -> Subset:
        """The training images of a cell."""
        return self.split(cell.data).train

    @cached_property
    def heldout(self) -> Subset | None:
        """The held-out images: the same for all cells."""
        return self.split(self.study.cells[0].data).heldout

    @cached_property
    def largest(self) -> DataSpec:
        """Of the study's training sets the largest (the first of equals)."""
        return max((c.data for c in self.study.cells), key=lambda d: len(self.split(d).train))


def image_rows(subset: Subset) -> RowReader:
    """The images of a subset, uint8 `[n, h, w, c]`, read when they are sliced."""
    return RowReader(len(subset), subset.shape, subset.images)


def image_blocks(subset: Subset, size: int = _BLOCK) -> Iterator[np.ndarray]:
    """The images of a subset in order, uint8 `[<= size, h, w, c]` at a time."""
    for start in range(0, len(subset), size):
        yield subset.images(start, min(start + size, len(subset)))
