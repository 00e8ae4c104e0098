"""Rows of a set too large to hold: read a block at a time, addressed like an array."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


class RowReader:
    """An array `[n, ...]` whose rows are read when they are sliced.

    Args:
        n: number of rows.
        row_shape: shape of one.
        read: rows from ``start`` to ``stop``, as an array.
    """

    def __init__(self, n: int, row_shape: tuple[int, ...], read: Callable[[int, int], np.ndarray]):
        self.shape = (n, *row_shape)
        self._read = read

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        return self._read(start, stop)

    def map(self, row_shape: tuple[int, ...], fn: Callable[[np.ndarray], np.ndarray]) -> RowReader:
        """The same rows through ``fn``, block by block."""
        return RowReader(len(self), row_shape, lambda start, stop: fn(self._read(start, stop)))


Rows = np.ndarray | RowReader


def flat(rows: Rows) -> Rows:
    """Each row as a vector: `[n, h, w, c]` to `[n, h*w*c]`."""
    if isinstance(rows, RowReader):
        d = int(np.prod(rows.shape[1:]))
        return rows.map((d,), lambda block: block.reshape(len(block), -1))
    return rows.reshape(len(rows), -1)
