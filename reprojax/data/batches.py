"""Which images a training step sees, as a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from reprojax.errors import InputError
from reprojax.rng import host_permutation


@dataclass(frozen=True)
class BatchSchedule:
    """Batches cut from an endless row of epochs, each a permutation of its own.

    Nothing is carried from step to step, so a resumed run sees what an unbroken one sees. Batches
    run across the ends of epochs (and over several where ``batch_size`` exceeds ``n``).

    Attributes:
        n: number of images.
        batch_size: images per step.
        seed: of the permutations.

    Raises:
        InputError: ``n`` or ``batch_size`` is less than 1.
    """

    n: int
    batch_size: int
    seed: int

    def __post_init__(self):
        if self.n < 1:
            raise InputError("data.n_train", self.n, "at least 1")
        if self.batch_size < 1:
            raise InputError("training.batch_size", self.batch_size, "at least 1")

    def indices(self, step: int) -> np.ndarray:
        """Positions in the training set of the batch of ``step`` (from 0), int64 `[batch_size]`."""
        start, stop = step * self.batch_size, (step + 1) * self.batch_size
        epochs = range(start // self.n, (stop - 1) // self.n + 1)
        row = np.concatenate([self._epoch(epoch) for epoch in epochs])
        offset = start - epochs[0] * self.n
        return row[offset : offset + self.batch_size]

    @cached_property
    def _epoch(self) -> Callable[[int], np.ndarray]:
        """The permutation of an epoch; the last few are kept, as a batch touches two or more."""
        # Kept per schedule: many may run side by side, and none pushes out what another needs.
        return lru_cache(maxsize=4)(lambda e: host_permutation(self.seed, "data/epoch", e, self.n))
