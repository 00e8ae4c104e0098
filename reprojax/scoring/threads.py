"""Many comparisons at a time: what they do on the host is numpy's, which threads can share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

MOST = 16  # threads: each holds the blocks of one comparison

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def mapped(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Iterator[Result]]:
    """Applies a function in as many threads as this process has cores.

    Args:
        function: of one item; safe beside itself.
        items: all are taken at once.

    Yields:
        The results in the order of the items, each as soon as it and those before it are there. On
        leaving, what has not begun never begins.
    """
    pool = ThreadPoolExecutor(min(MOST, _cores()))
    try:
        yield pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """Of this process, which may be kept to some of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
