"""The roll call and the watch over processes, here threads of one."""

import socket
import threading
import time

import pytest

from reprojax.errors import EndedPeerError, InputError, LostClaimError, LostPeerError
from reprojax.runtime import job, peers
from reprojax.runtime.peers import Peers, answer_roll, call_roll, listen


def in_thread(work):
    """Starts ``work``; gives a function that waits for its result or what it raised."""
    found = []

    def run():
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def wait(seconds=60):
        thread.join(seconds)
        assert found, "it hangs"
        return found[0]

    return wait


def roll(count, numbers, timeout, says=None):
    """A roll call of ``count`` processes to which only ``numbers`` come; what each end found."""
    server = listen(0)
    port = server.getsockname()[1]
    strangers = [socket.create_connection(("localhost", port)) for _ in says or ()]
    for stranger, line in zip(strangers, says or ()):
        stranger.sendall(line)
    ends = [in_thread(lambda: call_roll(server, count, timeout))]
    ends += [
        in_thread(lambda n=n: answer_roll(["localhost"], port, n, count, timeout)) for n in numbers
    ]
    found = [end() for end in ends]
    for stranger in strangers:
        stranger.close()
    return found


STRANGERS = [
    b"",
    b"GET / HTTP/1.1\r\n\r\n",
    b'{"process": "2", "of": 4}\n',
    b'{"process": 9, "of": 4}\n',
    b"[2, 4]\n",
    b'{"process": 2, "of"',
]


def test_a_missing_process_is_named_to_all():
    """What else knocks says nothing, or anything, and is nobody."""
    found = roll(4, [1, 3], 3.0, STRANGERS)
    assert all(isinstance(error, LostPeerError) for error in found)
    assert {str(error) for error in found} == {"process 2 of 4 did not come within 3 s"}
    (alone,) = roll(4, [], 0.5)
    assert str(alone) == "processes 1, 2, 3 of 4 did not come within 0.5 s"


def test_process_0_is_named_too():
    server = listen(0)
    port = server.getsockname()[1]
    server.close()
    with pytest.raises(LostPeerError, match=r"process 0 of 2 did not come within 0.5 s \(nobody"):
        answer_roll(["localhost"], port, 1, 2, 0.5)


def test_processes_that_disagree_are_told():
    server = listen(0)
    port = server.getsockname()[1]
    first = in_thread(lambda: call_roll(server, 3, 30))
    other = in_thread(lambda: answer_roll(["no.such.host.invalid", "localhost"], port, 1, 2, 30))
    for end in (first, other):
        assert str(end()) == "process 0 waits for 3 processes, process 1 for 2"
    errors = {str(error) for error in roll(3, [1, 1], 30)}
    assert "two processes came as process 1 of 3" in errors


def test_a_port_in_use_is_a_mistake():
    with listen(0) as server, pytest.raises(InputError, match="a port that is free"):
        listen(server.getsockname()[1])


@pytest.fixture
def three():
    """Three processes after their roll call, and what their watches ended them with."""
    first, *links = roll(3, [1, 2], 30)
    ended = {i: [] for i in range(3)}
    job = [
        Peers(i, 3, link, lambda line, code, i=i: ended[i].append((line, code)))
        for i, link in enumerate([first, *links])
    ]
    yield job, ended
    for each in job:
        each.leave()


def silence(process):
    """Stops its watch, as it is stopped where a process is killed."""
    process._left.set()
    process._thread.join()


def test_values_go_from_one_to_all_and_back(three):
    job, ended = three
    waiting = [in_thread(lambda p=p: p.agree(None)) for p in job[1:]]
    assert job[0].agree({"cell": "a"}) == {"cell": "a"}
    assert [end() for end in waiting] == [{"cell": "a"}] * 2
    assert [p.gather(p.number) for p in job[1:]] == [None, None]
    assert job[0].gather(0) == [0, 1, 2]
    with pytest.raises(TimeoutError, match="process 1 of 3 says nothing"):
        job[0].gather(0, timeout=0.1)
    assert not any(ended.values())


@pytest.mark.parametrize("lost", [0, 2])
def test_a_lost_process_ends_the_others_with_its_name(three, lost):
    job, ended = three
    waiting = in_thread(lambda: job[1].agree(None))
    silence(job[lost])
    for link in job[lost]._links.values():
        link.socket.shutdown(socket.SHUT_RDWR)
    error = waiting()
    assert isinstance(error, EndedPeerError) and error.exit_code == 1
    assert f"process {lost} of 3 was lost (its connection closed)" in str(error)
    deadline = time.monotonic() + 60
    others = [i for i in range(3) if i != lost]
    while not all(ended[i] for i in others):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert {ended[i][0] for i in others} == {(str(error), 1)}


class Abandoned(Exception):
    """In place of the end of the process."""


@pytest.fixture
def first(three, monkeypatch):
    """Process 0 of three, whose end is an exception with what it says."""

    def abandon(code, line):
        raise Abandoned(line)

    monkeypatch.setattr(job, "_peers", three[0][0])
    monkeypatch.setattr(job, "abandon", abandon)
    monkeypatch.setattr(job, "SETTLE_SECONDS", 0.5)
    return three[0]


def test_who_fails_alone_does_not_take_what_others_say_at_work_for_their_end(first):
    def fails():
        raise LostClaimError("the claim on x was lost")

    first[1].gather(False)
    first[2].gather({"settled": ""})
    with pytest.raises(Abandoned, match="the claim on x"):
        job.together(["train", "x"], fails)


def test_that_another_failed_alone_is_no_answer_to_a_question(first):
    first[1].gather(True)
    first[2].gather({"settled": "OSError: disk full"})
    with pytest.raises(Abandoned, match="process 2 of 3: OSError: disk full"):
        job.any_of(False)


def test_joint_work_that_failed_elsewhere_failed(first):
    first[1].gather({"settled": ""})
    first[2].gather({"settled": "OSError: disk full"})
    with pytest.raises(RuntimeError, match="process 2 of 3: OSError: disk full"):
        job.together(["train", "x"], lambda: 1)
    for process in first[1:]:
        process.gather({"settled": ""})
    assert job.together(["train", "x"], lambda: 1) == 1


def test_silence_counts_as_loss(three, monkeypatch):
    job, ended = three
    monkeypatch.setattr(peers, "PULSE", 0.1)
    monkeypatch.setattr(peers, "SILENCE", 5.0)
    silence(job[2])  # connected, but says nothing: a machine without power, or a stopped process
    deadline = time.monotonic() + 60
    while not ended[0]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "process 2 of 3 was lost (no sign of it for 5 s)" in ended[0][0][0]


def test_a_process_that_ends_by_itself_gives_its_code_and_words(three):
    job, ended = three
    waiting = in_thread(lambda: job[1].agree(None))
    job[2].leave("interrupted; the same command resumes", 130)
    error = waiting()
    assert error.exit_code == 130
    assert str(error) == "process 2 of 3 ended: interrupted; the same command resumes"
    assert not ended[1]  # it may end by itself: the watch waits a while before it does
