"""The images of each training step, as a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from reprojax.errors import require_number
from reprojax.rng import host_permutation


@dataclass(frozen=True)
class BatchSchedule:
    """Batches cut from an endless sequence of epochs, each a permutation of the images.

    No state is carried from step to step, so a resumed run gets the batches of an unbroken one.
    A batch may extend over the end of an epoch, or over several epochs if ``batch_size`` exceeds
    ``n``.

    Attributes:
        n: The number of images.
        batch_size: The number of images per step.
        seed: The seed of the permutations.

    Raises:
        InputError: ``n`` or ``batch_size`` is less than 1.
    """

    n: int
    batch_size: int
    seed: int

    def __post_init__(self):
        require_number("data.n_train", self.n, at_least=1)
        require_number("training.batch_size", self.batch_size, at_least=1)

    def indices(self, step: int) -> np.ndarray:
        """Returns the positions in the training set of a step's batch, int64 `[batch_size]`.

        Args:
            step: The number of the step, from 0.
        """
        start, stop = step * self.batch_size, (step + 1) * self.batch_size
        epochs = range(start // self.n, (stop - 1) // self.n + 1)
        row = np.concatenate([self._epoch(epoch) for epoch in epochs])
        offset = start - epochs[0] * self.n
        return row[offset : offset + self.batch_size]

    @cached_property
    def _epoch(self) -> Callable[[int], np.ndarray]:
        """A function from the number of an epoch to its permutation."""

        # The last few are cached, because a batch may touch several epochs. Each schedule has a
        # cache of its own, so that of many schedules none evicts what another needs.
        @lru_cache(maxsize=4)
        def permutation(epoch: int) -> np.ndarray:
            return host_permutation(self.seed, "data/epoch", epoch, self.n)

        return permutation
