"""Stopping in good order: when SIGINT or SIGTERM asks for it, or when a claim was lost."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from reprojax.errors import InterruptedRunError
from reprojax.runtime import job

AGREE_STEPS = 8  # each costs a message to process 0 and back
LOOK_SECONDS = 1.0  # between two looks at the claims; each is a file read


class Held(Protocol):
    """What a worker holds and may lose."""

    def require(self) -> None:
        """Raises LostClaimError if it is another's now."""


class StopRequest:
    """While entered, notes SIGINT and SIGTERM in place of dying; a second one dies at once."""

    def __init__(self):
        self.requested = False
        self._previous: dict[int, object] = {}
        self._held: list[Held] = []
        self._looked = 0.0

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _note(self, number, frame) -> None:
        self.requested = True
        for each, handler in self._previous.items():
            signal.signal(each, handler)

    @contextlib.contextmanager
    def holding(self, held: Held) -> Iterator[None]:
        """While entered, what asks to stop finds out too when ``held`` is lost."""
        self._held.append(held)
        try:
            yield
        finally:
            self._held.remove(held)

    def require_claim(self) -> None:
        """Raises LostClaimError if a claim was lost; to be called before each write."""
        for held in self._held:
            held.require()
        self._looked = time.time()

    def look(self) -> None:
        """`require_claim`, but at most once a second: cheap enough for every step.

        The wall clock is asked, since it goes on while a machine sleeps.
        """
        if abs(time.time() - self._looked) >= LOOK_SECONDS:
            self.require_claim()

    def at_step(self, step: int) -> bool:
        """Whether a stop was asked for, on any process of the job.

        Args:
            step: number of a step that all processes take; they ask each other at every eighth.
        """
        if job.is_alone():
            return self.requested
        if step % AGREE_STEPS == 0:
            self.requested = job.any_of(self.requested)
            return self.requested
        return False

    def check(self, where: str) -> None:
        """Raises InterruptedRunError if a stop was asked for; looks at the claims too."""
        if self.requested:
            raise InterruptedRunError(f"interrupted {where}; the same command resumes")
        self.look()
