"""The watch over processes, here threads of one with a key-value store in memory."""

import threading
import time

import pytest

from reprojax.errors import EndedPeerError, LostClaimError
from reprojax.runtime import job, watch
from reprojax.runtime.watch import Watch


class Store:
    """Stands in for the client of JAX's coordination service: same methods, same errors."""

    def __init__(self):
        self.values, self._changed, self.gone = {}, threading.Condition(), ""

    def _check(self):
        if self.gone:
            raise RuntimeError(self.gone)

    def key_value_set(self, key, value, allow_overwrite=False):
        with self._changed:
            self._check()
            if key in self.values and not allow_overwrite:
                raise RuntimeError(f"ALREADY_EXISTS: {key}")
            self.values[key] = value
            self._changed.notify_all()

    def blocking_key_value_get(self, key, timeout_in_ms):
        with self._changed:
            self._check()
            if not self._changed.wait_for(lambda: key in self.values, timeout_in_ms / 1000):
                raise RuntimeError(f"DEADLINE_EXCEEDED: {key}")
            return self.values[key]

    def key_value_try_get(self, key):
        with self._changed:
            self._check()
            if key not in self.values:
                raise RuntimeError(f"NOT_FOUND: {key}")
            return self.values[key]

    def key_value_dir_get(self, folder):
        with self._changed:
            self._check()
            return [(key, text) for key, text in self.values.items() if key.startswith(folder)]

    def key_value_increment(self, key, increment):
        with self._changed:
            self._check()
            self.values[key] = str(int(self.values.get(key, "0")) + increment)
            return int(self.values[key])

    def key_value_delete(self, key):
        with self._changed:
            self._check()
            del self.values[key]


def in_thread(work):
    """Starts ``work``; returns a function that waits for its result or what it raised."""
    results = []

    def run():
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def wait(seconds=60):
        thread.join(seconds)
        assert results, "it hangs"
        return results[0]

    return wait


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def store(monkeypatch):
    """A store, and a watch whose seconds are shorter."""
    monkeypatch.setattr(watch, "BEAT", 0.1)
    monkeypatch.setattr(watch, "SILENCE", 3.0)
    monkeypatch.setattr(watch, "GRACE", 2.0)
    monkeypatch.setattr(watch, "SLICE", 0.2)
    monkeypatch.setattr(watch, "POLL", 0.05)
    return Store()


@pytest.fixture
def three(store):
    """Three processes of a job, and what their watches ended them with."""
    ends = {i: [] for i in range(3)}

    def on_end(i):
        return lambda line, code: ends[i].append((line, code))

    processes = [Watch(store, i, 3, on_end(i)) for i in range(3)]
    yield processes, ends
    for process in processes:
        process._left.set()


def silence(process):
    """Stops its watch, as it stops where a process is killed."""
    process._left.set()
    for thread in process._threads:
        thread.join()


def messages(store):
    return [key for key in store.values if "/status/" not in key]


def test_values_go_from_one_to_all_and_back(three, store):
    processes, ends = three
    answers = [in_thread(lambda p=p: p.agree(None)) for p in processes[1:]]
    assert processes[0].agree({"cell": "a"}) == {"cell": "a"}
    assert [answer() for answer in answers] == [{"cell": "a"}] * 2
    assert [p.gather(p.number) for p in processes[1:]] == [None, None]
    assert processes[0].gather(0) == [0, 1, 2]
    with pytest.raises(TimeoutError, match="process 1 of 3 does not answer"):
        processes[0].gather(0, timeout=0.1)
    with pytest.raises(TimeoutError, match="process 0 of 3 does not answer"):
        processes[2].agree(None, timeout=0.1)
    assert not any(ends.values())


def test_the_store_does_not_grow(three, store):
    processes, _ = three
    for turn in range(20):
        processes[0].agree(turn)
        for process in processes[1:]:
            assert process.agree(None) == turn
            process.gather(turn)
        assert processes[0].gather(turn) == [turn] * 3
        assert messages(store) == []


def test_healthy_processes_are_left_alone(three):
    """For longer than the silence after which one would be lost."""
    processes, ends = three
    time.sleep(watch.SILENCE + 1.0)
    assert not any(ends.values())
    began = time.monotonic()
    for process in processes:
        process.await_heartbeats()
    assert time.monotonic() - began < watch.SILENCE


@pytest.mark.parametrize("lost", [0, 2])
def test_a_lost_process_ends_the_others_with_its_name(three, lost):
    processes, ends = three
    answer = in_thread(lambda: processes[1].agree(None))
    silence(processes[lost])
    error = answer()
    assert isinstance(error, EndedPeerError) and error.exit_code == 1
    assert f"process {lost} of 3 was lost (no sign of it for 3 s)" in str(error)
    assert "the same command resumes" in str(error)
    others = [i for i in range(3) if i != lost]
    wait_for(lambda: all(ends[i] for i in others))
    assert {ends[i][0] for i in others} == {(str(error), 1)}


def test_a_failed_collective_waits_until_the_loss_is_certain(three):
    """Also on process 1, which sees process 0 only, and that is alive."""
    processes, ends = three
    silence(processes[2])
    time.sleep(1.0)  # for its last status to be read
    clear = [in_thread(p.await_heartbeats) for p in processes[:2]]
    wait_for(lambda: ends[0] and ends[1])
    for i, wait in enumerate(clear):
        with pytest.raises(AssertionError, match="hangs"):
            wait(0.5)
        assert "process 2 of 3 was lost" in ends[i][0][0]


def test_a_store_that_is_gone_is_the_loss_of_process_0(three, store):
    processes, ends = three
    store.gone = "UNAVAILABLE: connection\nrefused"
    wait_for(lambda: ends[1] and ends[2])
    assert "process 0 of 3 was lost (UNAVAILABLE: connection refused)" in ends[2][0][0]
    with pytest.raises(EndedPeerError, match="process 0 of 3"):
        processes[1].agree(None)


def test_a_process_that_ends_by_itself_gives_its_code_and_words(three):
    processes, ends = three
    answer = in_thread(lambda: processes[1].agree(None))
    processes[2].leave("interrupted; the same command resumes", 130)
    error = answer()
    assert error.exit_code == 130
    assert str(error) == "process 2 of 3 ended: interrupted; the same command resumes"
    assert not ends[1]  # it may end by itself: the watch waits a while before it does
    wait_for(lambda: ends[1] and ends[0])
    assert ends[0][0] == ends[1][0] == (str(error), 130)


def test_process_0_leaves_last(three):
    """It hosts the store in which the others read how it ended."""
    processes, _ = three
    leaving = in_thread(lambda: processes[0].leave("models.a: no such network", 2))
    answer = in_thread(lambda: processes[1].agree(None))
    assert str(answer()) == "process 0 of 3 ended: models.a: no such network"
    with pytest.raises(AssertionError, match="hangs"):
        leaving(0.3)
    for process in processes[1:]:
        process.leave("models.a: no such network", 2)
    began = time.monotonic()
    assert leaving() is None and time.monotonic() - began < watch.GRACE


def test_who_has_left_in_good_order_is_not_lost(three):
    processes, ends = three
    processes[2].leave()
    silence(processes[2])
    time.sleep(watch.SILENCE + 1.0)
    assert not any(ends.values())


def test_who_left_in_good_order_is_not_waited_for(three):
    processes, _ = three
    processes[1].gather("here")
    processes[2].leave()
    error = in_thread(lambda: processes[0].gather("here"))()
    assert str(error) == "process 2 of 3 ended while another awaited its answer"


class Abandoned(Exception):
    """In place of the end of the process."""


@pytest.fixture
def first(three, monkeypatch):
    """Process 0 of three, whose end is an exception with what it prints."""

    def abandon(code, line):
        raise Abandoned(line)

    monkeypatch.setattr(job, "_watch", three[0][0])
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


def test_who_fails_alone_ends_while_process_0_is_still_at_work(first, monkeypatch):
    first[0].agree(["train", "x"])
    assert first[1].agree(None) == ["train", "x"]
    first[0].agree(5)  # part of the work, and no answer to the failure
    monkeypatch.setattr(job, "_watch", first[1])

    def fails():
        raise OSError("disk full")

    with pytest.raises(Abandoned, match="ended here before it did on process 0; disk full"):
        job._settle(fails)


def test_joint_work_that_failed_elsewhere_failed(first):
    first[1].gather({"settled": ""})
    first[2].gather({"settled": "OSError: disk full"})
    with pytest.raises(RuntimeError, match="process 2 of 3: OSError: disk full"):
        job.together(["train", "x"], lambda: 1)
    for process in first[1:]:
        process.gather({"settled": ""})
    assert job.together(["train", "x"], lambda: 1) == 1
