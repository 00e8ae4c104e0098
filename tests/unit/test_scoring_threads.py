"""Comparisons in threads: in order, and none begins after an error."""

import threading
import time

import pytest

from reprojax.scoring import threads
from reprojax.scoring.threads import mapped


def test_results_come_in_the_order_of_the_items(monkeypatch):
    monkeypatch.setattr(threads, "_cores", lambda: 4)
    beside = threading.Barrier(4, timeout=30)  # breaks unless four run at once

    def slow_first(i):
        beside.wait()
        time.sleep(0.05 * (3 - i % 4))
        return i * i

    with mapped(slow_first, range(8)) as results:
        assert list(results) == [i * i for i in range(8)]


@pytest.mark.parametrize("where", ["function", "caller"])
def test_after_an_error_nothing_begins(monkeypatch, where):
    monkeypatch.setattr(threads, "_cores", lambda: 2)
    started = []

    def function(i):
        started.append(i)
        time.sleep(0.02)
        if where == "function" and i == 1:
            raise ValueError("item 1")
        return i

    with pytest.raises(ValueError, match="item 1"), mapped(function, range(100)) as results:
        for i in results:
            if i == 1:
                raise ValueError("item 1")
    assert len(started) < 20
