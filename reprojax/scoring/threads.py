"""Runs many comparisons at a time in threads; their host part is numpy, which releases the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

MAX_THREADS = 16  # each thread holds the blocks of one comparison in memory

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def mapped(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Iterator[Result]]:
    """Applies a function to items in as many threads as this process has cores.

    When the context ends, items that no thread has started are dropped.

    Args:
        function: A thread-safe function of one item.
        items: The items, which are read at once.

    Yields:
        An iterator of the results, in the order of the items and as soon as they are ready.
    """
    pool = ThreadPoolExecutor(min(MAX_THREADS, _cores()))
    try:
        yield pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """Returns the number of cores that this process may use, which can be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
