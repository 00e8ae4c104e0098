"""Progress for a person: a bar with ETA in a terminal, plain lines of what was done elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Reporter:
    """Writes lines and progress bars to a console.

    Args:
        console: standard output by default.
    """

    def __init__(self, console: Console | None = None):
        self.console = console or Console(highlight=False)

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
            yield lambda done, total: bar.update(task, completed=done, total=total)
        self.say(f"{title}: {total} {unit} in {time.perf_counter() - start:.1f} s")
