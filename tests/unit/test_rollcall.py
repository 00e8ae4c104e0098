"""The roll call at a real coordination service; the processes are threads of this one."""

import socket
import threading
import time

import pytest

from reprojax.errors import InputError, LostPeerError
from reprojax.runtime.rollcall import call_roll, find_mistake


def free_port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def call(port, number, count, timeout):
    """Returns the error of one process as a text, or "" where it has none."""
    try:
        call_roll("localhost", port, number, count, timeout)
    except LostPeerError as error:
        return str(error)
    return ""


def roll(timeout, *processes):
    """Returns the errors of processes that come as (number, count)."""
    port = free_port()
    errors = [None] * len(processes)

    def run(i, number, count):
        errors[i] = call(port, number, count, timeout)

    threads = [
        threading.Thread(target=run, args=(i, *process), daemon=True)
        for i, process in enumerate(processes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert None not in errors, "it hangs"
    return errors


def test_all_go_on_when_all_came_and_the_port_is_free_again():
    port = free_port()
    assert call(port, 0, 1, 30) == ""
    with socket.create_server(("", port)):
        pass
    assert roll(30, (0, 3), (1, 3), (2, 3)) == [""] * 3


def test_a_missing_process_is_named_to_all_that_came():
    assert set(roll(3.0, (0, 4), (1, 4), (3, 4))) == {"process 2 of 4 did not come within 3 s"}
    assert roll(0.5, (0, 4)) == ["processes 1, 2, 3 of 4 did not come within 0.5 s"]


def test_process_0_is_named_too():
    error = call(free_port(), 1, 2, 0.5)
    assert error.startswith("process 0 of 2 did not come within 0.5 s (nothing answers at")


def test_something_else_at_the_port_is_not_process_0():
    with socket.create_server(("", 0)) as server:
        error = call(server.getsockname()[1], 1, 2, 0.5)
    assert "is not JAX's coordination service" in error


def test_processes_that_disagree_all_learn_it_at_once():
    began = time.monotonic()
    errors = set(roll(100, (0, 3), (1, 2)))
    assert errors == {"process 0 waits for 3 processes, process 1 for 2"}
    assert set(roll(100, (0, 3), (1, 3), (1, 3))) == {"two processes came as process 1 of 3"}
    assert time.monotonic() - began < 60


def test_a_mistake_is_found_among_those_that_came():
    assert find_mistake([(0, 3), (2, 3)], 3) == ""
    assert find_mistake([(0, 3), (0, 3)], 3) == "two processes came as process 0 of 3"
    assert find_mistake([(0, 3), (4, 5)], 3) == "process 0 waits for 3 processes, process 4 for 5"


def test_a_port_in_use_is_a_mistake():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(InputError, match="must have a port that is free"):
            call_roll("localhost", port, 0, 2, 5)
