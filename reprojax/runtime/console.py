"""Progress reports: a bar with the remaining time in a terminal, plain lines in a log file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

FIRST_LINE_SECONDS = 60.0  # of a task, before its first line in a log


class _LogLines:
    """The progress of a task in a log file: one line after a minute, then ever fewer."""

    def __init__(self, say: Callable[[str], None], title: str, unit: str):
        self._say, self._title, self._unit = say, title, unit
        self._start, self._next_line = time.perf_counter(), FIRST_LINE_SECONDS
        self._first: tuple[int, float] | None = None

    def __call__(self, done: int, total: int) -> None:
        spent = time.perf_counter() - self._start
        if self._first is None:  # a resumed task does not begin at 0
            self._first = (done, spent)
        if spent < self._next_line or done >= total or done <= self._first[0]:
            return
        self._next_line = 2 * spent
        left = (total - done) * (spent - self._first[1]) / (done - self._first[0])
        self._say(f"{self._title}: {done} of {total} {self._unit}, about {left:,.0f} s left")


class Reporter:
    """Writes lines and progress bars to a console.

    Args:
        console: The console to write to; standard output by default.
        quiet: Whether to write nothing. All processes of a job but one are quiet.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False):
        self.console = console or Console(highlight=False, quiet=quiet)

    def say(self, line: str) -> None:
        """Prints a line, above the progress bar if one is shown."""
        self.console.print(line, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def task(self, title: str, total: int, unit: str) -> Iterator[Callable[[int, int], None]]:
        """Shows the progress of a task and, if it ends without an error, prints how long it took.

        Args:
            title: The title of the task, e.g. "train unet8".
            total: The number of units of the task.
            unit: The name of the units, e.g. "steps".

        Yields:
            A function (done, total) to call with the number of units done so far.
        """
        start, last = time.perf_counter(), total
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(compact=True),
        )
        in_log = not self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=in_log) as bar:
            task = bar.add_task(title, total=total)
            lines = _LogLines(self.say, title, unit)

            def advance(done: int, total: int) -> None:
                nonlocal last
                last = total
                bar.update(task, completed=done, total=total)
                if in_log:
                    lines(done, total)

            yield advance
        self.say(f"{title}: {last} {unit} in {time.perf_counter() - start:.1f} s")


def duration(seconds: float) -> str:
    """Returns a time as text for people, in the largest unit of which it holds at least two."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"
