"""Sets of images that are scored: samples of a model, and real images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reprojax.errors import InputError
from reprojax.scoring.rows import Rows


@dataclass(frozen=True, eq=False)
class SampleSet:
    """The samples of one model, row i from noise i.

    Attributes:
        name: The name of the model.
        images: uint8 `[n, h, w, c]`, or None.
        features: float32 `[n, d]`, rows of length 1, or None.
        train: The key of the model's training set, or None where there is none.
        groups: int `[n]`, equal where two noises have the same condition; None for a model that
            takes no condition.
    """

    name: str
    images: np.ndarray | None = None
    features: np.ndarray | None = None
    train: str | None = None
    groups: np.ndarray | None = None

    @property
    def n(self) -> int:
        """The number of samples."""
        return len(self.features if self.features is not None else self.images)


@dataclass(frozen=True, eq=False)
class RealSet:
    """Real images: a training set, or the held-out images.

    Attributes:
        images: uint8 `[n, h, w, c]`, or None. An array, or a RowReader where there are many.
        features: float32 `[n, d]`, rows of length 1, or None; likewise.
        n: The number of images.
    """

    images: Rows | None
    features: Rows | None
    n: int


def require_comparable(samples: list[SampleSet] | tuple[SampleSet, ...]) -> None:
    """Raises InputError unless all sets have names of their own and the same number of samples."""
    names = [sample.name for sample in samples]
    for sample in samples:
        field = f"samples {sample.name}"
        if names.count(sample.name) > 1:
            raise InputError("samples", sample.name, "must have a name that no other set has")
        if sample.n != samples[0].n:
            requirement = (
                f"has {sample.n} samples; must have {samples[0].n}, as {samples[0].name} has: "
                "row i comes from noise i"
            )
            raise InputError(field, None, requirement)
        if sample.n < 2:
            raise InputError(field, None, f"has {sample.n} samples; must have at least 2")
