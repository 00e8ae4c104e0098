"""Reads the rows of a set that does not fit into memory, a block at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


class RowReader:
    """A stand-in for an array `[n, ...]` that reads its rows when they are sliced.

    Args:
        n: The number of rows.
        row_shape: The shape of a row.
        read: A function that returns the rows from ``start`` to ``stop`` as an array.
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
        """Returns a reader of the same rows that applies ``fn`` to each block."""
        return RowReader(len(self), row_shape, lambda start, stop: fn(self._read(start, stop)))


Rows = np.ndarray | RowReader


def flat(rows: Rows) -> Rows:
    """Returns the rows `[n, h, w, c]` as vectors `[n, h*w*c]`."""
    if isinstance(rows, RowReader):
        d = int(np.prod(rows.shape[1:]))
        return rows.map((d,), lambda block: block.reshape(len(block), -1))
    return rows.reshape(len(rows), -1)
