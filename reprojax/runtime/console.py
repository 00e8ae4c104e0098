"""Progress for a person: a bar with ETA in a terminal, plain lines of what was done elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

FIRST_LINE_SECONDS = 60.0


class _LogLines:
    """What a log file gets in place of a bar: a line now and then, rarer as time goes on."""

    def __init__(self, say: Callable[[str], None], title: str, unit: str):
        self._say, self._title, self._unit = say, title, unit
        self._start, self._pause, self._first = time.perf_counter(), FIRST_LINE_SECONDS, None

    def __call__(self, done: int, total: int) -> None:
        spent = time.perf_counter() - self._start
        if self._first is None:  # a resumed task does not begin at 0
            self._first = (done, spent)
        if spent < self._pause or done >= total or done <= self._first[0]:
            return
        self._pause = 2 * spent
        left = (total - done) * (spent - self._first[1]) / (done - self._first[0])
        self._say(f"{self._title}: {done} of {total} {self._unit}, about {left:,.0f} s left")


class Reporter:
    """Writes lines and progress bars to a console.

    Args:
        console: standard output by default.
        quiet: write nothing, as on all processes of a job but one.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False):
        self.console = console or Console(highlight=False, quiet=quiet)

    def say(self, line: str) -> None:
        """Prints a line, above a bar where there is one."""
        self.console.print(line, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def task(self, title: str, total: int, unit: str) -> Iterator[Callable[[int, int], None]]:
        """Shows a task's progress; when it ends well, says how long it took.

        Args:
            title: "train unet8".
            total: units in all.
            unit: what is counted.

        Yields:
            A function (done, total) to call as units are done.
        """
        start = time.perf_counter()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(compact=True),
        )
        silent = not self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=silent) as bar:
            task = bar.add_task(title, total=total)
            lines = _LogLines(self.say, title, unit)

            def advance(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)
                if silent:
                    lines(done, total)

            yield advance
        self.say(f"{title}: {total} {unit} in {time.perf_counter() - start:.1f} s")


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"
