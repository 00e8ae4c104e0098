"""Progress: a bar for a terminal, a few lines for a log."""

import io

from rich.console import Console

from reprojax.runtime import console
from reprojax.runtime.console import Reporter


def run(terminal, monkeypatch, steps=50):
    clock = iter(range(0, 10_000, 10))  # ten seconds pass between two looks
    monkeypatch.setattr(console.time, "perf_counter", lambda: next(clock))
    text = io.StringIO()
    reporter = Reporter(Console(file=text, force_terminal=terminal, width=100))
    with reporter.task("train x", steps, "steps") as advance:
        for i in range(steps):
            advance(i + 1, steps)
    return text.getvalue()


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(monkeypatch):
    lines = run(False, monkeypatch).splitlines()
    assert lines[-1].startswith("train x: 50 steps in")
    assert 1 <= len(lines) - 1 <= 5
    assert "of 50 steps, about" in lines[0] and lines[0].endswith("s left")


def test_a_terminal_gets_a_bar(monkeypatch):
    text = run(True, monkeypatch)
    assert "\x1b[" in text and "s left" not in text
