"""Dropping compiled programs before a process has more memory mappings than the kernel allows."""

from __future__ import annotations

from pathlib import Path

import jax

MAPPINGS = Path("/proc/self/maps")  # one line per mapping
LIMIT = Path("/proc/sys/vm/max_map_count")
FULL = 0.5  # of the limit; the rest is room for the programs that are compiled next


def mappings() -> tuple[int, int] | None:
    """Returns the number of memory mappings of this process and the kernel's limit on it.

    Returns None on a system without these files.
    """
    try:
        with MAPPINGS.open("rb") as lines:
            return sum(1 for _ in lines), int(LIMIT.read_text())
    except (OSError, ValueError):
        return None


def make_room() -> bool:
    """Drops all compiled programs if the process has reached half of the limit on mappings.

    XLA:CPU maps three pieces of memory for each kernel of a program, some thousands for a network
    with its sampler, and JAX keeps programs for good. At the limit (`vm.max_map_count`, 65,530 by
    default) the process dies of a segmentation fault inside XLA. Call this between models. Below
    half of the limit it does nothing, so nothing is compiled twice.

    Returns:
        Whether the programs were dropped. A program that is needed again is compiled again, or
        read from JAX's compilation cache on disk if that is set.
    """
    counts = mappings()
    if counts is None or counts[0] < FULL * counts[1]:
        return False
    jax.clear_caches()
    return True
