"""The compiled programs that a process keeps, and letting go of them before they are too many."""

from __future__ import annotations

from pathlib import Path

import jax

MAPPINGS = Path("/proc/self/maps")  # a line each
LIMIT = Path("/proc/sys/vm/max_map_count")
FULL = 0.5  # the part of the limit that is not passed: what is compiled next needs room too


def mappings() -> tuple[int, int] | None:
    """(memory mappings of this process, how many the kernel allows); None where it does not say."""
    try:
        with MAPPINGS.open("rb") as lines:
            return sum(1 for _ in lines), int(LIMIT.read_text())
    except (OSError, ValueError):
        return None


def make_room() -> bool:
    """Lets go of all compiled programs where the kernel's limit on mappings is half reached.

    XLA:CPU maps three pieces of memory for each kernel of a program, some thousands for a network
    with its sampler, and JAX keeps programs for good; at the limit (`vm.max_map_count`, 65,530
    unless set) the process dies of a segmentation fault inside XLA. To be called between models:
    below half of the limit nothing is compiled twice.

    Returns:
        Whether it let go. What is needed again is compiled again, or read from JAX's own cache on
        disk where one is set.
    """
    found = mappings()
    if found is None or found[0] < FULL * found[1]:
        return False
    jax.clear_caches()
    return True
