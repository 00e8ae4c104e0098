"""Stopping in good order: SIGINT and SIGTERM ask, the loop ends after the step under way."""

from __future__ import annotations

import signal
import threading

from reprojax.errors import InterruptedRunError


class StopRequest:
    """While entered, notes SIGINT and SIGTERM in place of dying; a second one dies at once."""

    def __init__(self):
        self.requested = False
        self._previous: dict[int, object] = {}

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

    def check(self, where: str) -> None:
        """Raises InterruptedRunError if a stop was asked for."""
        if self.requested:
            raise InterruptedRunError(f"interrupted {where}; the same command resumes")
