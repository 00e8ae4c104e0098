"""Stopping in good order after SIGINT or SIGTERM, or when a claim is lost."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from reprojax.errors import InterruptedRunError
from reprojax.runtime import job

AGREE_STEPS = 8  # steps between two agreements; each costs a message to process 0 and back
LOOK_SECONDS = 1.0  # between two checks of the claims; each reads a file


class Held(Protocol):
    """A claim that a worker holds and may lose."""

    def require(self) -> None:
        """Raises LostClaimError if another worker holds the claim now."""


class StopRequest:
    """A context manager that records SIGINT and SIGTERM so that work can stop in good order.

    The first signal sets ``requested``. A second one ends the process at once.
    """

    def __init__(self):
        self.requested = False
        self._previous: dict[int, object] = {}
        self._held: list[Held] = []
        self._last_check = 0.0

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exc) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _on_signal(self, number, frame) -> None:
        self.requested = True
        for each, handler in self._previous.items():
            signal.signal(each, handler)

    @contextlib.contextmanager
    def holding(self, held: Held) -> Iterator[None]:
        """Makes the checks of this object check ``held`` too, as long as the block runs."""
        self._held.append(held)
        try:
            yield
        finally:
            self._held.remove(held)

    def require_claim(self) -> None:
        """Raises LostClaimError if a claim is lost. Call it before each write."""
        for held in self._held:
            held.require()
        self._last_check = time.time()

    def look(self) -> None:
        """Calls `require_claim` at most once a second, which is cheap enough for every step.

        The time is the wall clock's, because it goes on while a machine sleeps.
        """
        if abs(time.time() - self._last_check) >= LOOK_SECONDS:
            self.require_claim()

    def at_step(self, step: int) -> bool:
        """Returns True if a signal asked any process of the job to stop.

        Args:
            step: The number of a step that all processes take. In a job of several processes they
                agree at every eighth step, and the result is False in between.
        """
        if job.is_alone():
            return self.requested
        if step % AGREE_STEPS == 0:
            self.requested = job.any_of(self.requested)
            return self.requested
        return False

    def check(self, where: str) -> None:
        """Raises InterruptedRunError if a stop is requested, and checks the claims as `look` does.

        Args:
            where: The point of interruption for the message, e.g. "at step 12 of unet8".
        """
        if self.requested:
            raise InterruptedRunError(f"interrupted {where}; the same command resumes")
        self.look()
