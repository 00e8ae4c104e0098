"""A watch over the processes of a job, and small values that they exchange.

Both go through the key-value store of JAX's coordination service, which process 0 hosts; nothing
here opens a port. JAX has heartbeats of its own, but it ends a process from C++, with a stack of
lines, when another is lost. So the watch must notice first, and ends the process with one line.

Each process writes its status under a key of its own every few seconds. Process 0 reads all of
them, and the others read that of process 0, which passes on what became of the rest.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from reprojax.errors import EndedPeerError, LostPeerError, one_line

BEAT = 2.0  # seconds between two heartbeats of a process
SILENCE = 30.0  # a process without a heartbeat for so many seconds is lost
GRACE = 10.0  # seconds for a process to end by itself when another has: most errors are everybody's
SLICE = 2.0  # seconds of a call that waits for a value; nothing can interrupt it
POLL = 0.5  # seconds between two looks for a value that takes longer
# Folders of keys, each with "/<number of a process>", "/<number of a value>" or both below it.
_STATUS = "reprojax/status"
_FIRST, _READERS = "reprojax/first", "reprojax/readers"  # values of process 0, and who read them
_OTHERS = "reprojax/others"  # values of the other processes
OnEnd = Callable[[str, int], None]


class Watch:
    """Watches the other processes of a job in threads, and exchanges small values with them.

    Args:
        client: A client of JAX's coordination service, already connected.
        number: The number of this process, from 0.
        count: The number of processes of the job.
        on_end: The function that ends this process when another was lost or has ended. A thread
            calls it with a line for the user and an exit code.
    """

    def __init__(self, client: Any, number: int, count: int, on_end: OnEnd):
        self.number, self.count = number, count
        self._client, self._on_end = client, on_end
        self._others = range(1, count) if number == 0 else range(1)
        self._sent, self._received = 0, dict.fromkeys(self._others, 0)
        self._writing = threading.Lock()  # an older status must not replace a newer one
        self._lock = threading.Lock()  # for what follows
        self._status: dict[str, Any] = {"beat": 0}
        self._beats = dict.fromkeys(self._others, -1)
        self._heard = dict.fromkeys(self._others, time.monotonic())
        self._first_silence = 0.0  # how long process 0 has not heard of some other, in seconds
        self._gone: set[int] = set()  # ended by themselves
        self._lost: set[int] = set()
        self._ending: tuple[float, str, int] | None = None
        self._left = threading.Event()
        self._threads = [
            threading.Thread(target=work, name="watch", daemon=True)
            for work in (self._exchange, self._judge)
        ]
        for thread in self._threads:
            thread.start()

    def agree(self, value: Any, timeout: float | None = None) -> Any:
        """Returns process 0's JSON value on every process; process 0 does not wait for the others.

        Args:
            value: The value. It counts on process 0 only.
            timeout: How long to wait for process 0, in seconds, or None to wait for ever.

        Raises:
            TimeoutError: Process 0 did not answer in time.
            EndedPeerError: A process was lost or has ended.
        """
        if self.number:
            turn = self._received[0]
            key, readers = f"{_FIRST}/{turn}", f"{_READERS}/{turn}"
            value = self._receive(0, key, timeout)
            # The last reader deletes the value, so that the store does not grow.
            if self._client.key_value_increment(readers, 1) == self.count - 1:
                self._client.key_value_delete(key)
                self._client.key_value_delete(readers)
            return value
        self._client.key_value_set(f"{_FIRST}/{self._sent}", json.dumps(value))
        self._sent += 1
        return value

    def gather(
        self,
        value: Any,
        timeout: float | None = None,
        accept: Callable[[Any], bool] = lambda value: True,
    ) -> list[Any] | None:
        """Returns the JSON values of all processes in order on process 0, and None elsewhere.

        Process 0 waits for the others; they do not wait. All must call it in the same order.

        Args:
            value: The value of this process.
            timeout: How long to wait for each process, in seconds, or None to wait for ever.
            accept: Says whether a value is an answer. Process 0 drops one that is not, and waits
                for the next.

        Raises:
            TimeoutError: A process did not answer in time.
            EndedPeerError: A process was lost or has ended.
        """
        if self.number:
            key = f"{_OTHERS}/{self.number}/{self._sent}"
            self._client.key_value_set(key, json.dumps(value))
            self._sent += 1
            return None
        values = [value]
        for i in self._others:
            while True:
                key = f"{_OTHERS}/{i}/{self._received[i]}"
                answer = self._receive(i, key, timeout)
                self._client.key_value_delete(key)
                if accept(answer):
                    break
            values.append(answer)
        return values

    def _receive(self, i: int, key: str, timeout: float | None) -> Any:
        """Waits for the next value of process ``i``; the watch can interrupt it."""
        deadline = None if timeout is None else time.monotonic() + timeout
        text = self._get(key, SLICE if timeout is None else min(SLICE, timeout))
        while text is None:
            if self._ending is not None:
                raise EndedPeerError(*self._ending[1:])
            if i in self._gone:
                text = self._get(key)  # it wrote its last value before it left
                if text is None:
                    line = f"process {i} of {self.count} ended while another awaited its answer"
                    raise EndedPeerError(line, LostPeerError.exit_code)
                break
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"process {i} of {self.count} does not answer")
            # The store keeps some 36 KiB for each blocking call that timed out, until the key is
            # there. Others may wait for hours.
            time.sleep(POLL)
            text = self._get(key)
        self._received[i] += 1
        return json.loads(text)

    def _get(self, key: str, seconds: float = 0.0) -> str | None:
        """Returns the value of a key, or None where there is none within so many seconds."""
        try:
            if seconds:
                return self._client.blocking_key_value_get(key, milliseconds(seconds))
            return self._client.key_value_try_get(key)
        except RuntimeError as error:
            if not any(code in str(error) for code in ("DEADLINE_EXCEEDED", "NOT_FOUND")):
                self._lose(0, one_line(str(error)))  # process 0 hosts the store
            return None

    def await_heartbeats(self) -> None:
        """Waits until all other processes have shown that they were alive after this call.

        If one does not, the watch ends this process meanwhile.
        """
        enough = time.monotonic() + 2 * BEAT  # what is heard earlier may be older than the call
        while self._all_heard_at() < enough and not self._left.wait(BEAT / 20):
            pass

    def _all_heard_at(self) -> float:
        """Returns the latest time at which all others were known to be alive."""
        with self._lock:
            alive = [heard for i, heard in self._heard.items() if i not in self._gone]
            return min(alive, default=time.monotonic()) - self._first_silence

    def leave(self, line: str = "", code: int = 0) -> None:
        """Says that this process ends, and how; from then on it watches no other.

        Process 0 hosts the store, so it waits until the others have ended too, if it ends with an
        error. It waits for a limited time, since they may be anywhere.

        Args:
            line: The reason, for the others to print.
            code: The exit code of this process. If it is not 0, the others end with it too.
        """
        with self._lock:
            self._status["bye"] = [line, code]
        self._left.set()
        end = time.monotonic() + (GRACE + 3 * BEAT if code and self.number == 0 else 2 * BEAT)
        thread = threading.Thread(target=self._say_bye, args=(bool(code), end), daemon=True)
        thread.start()
        thread.join(end - time.monotonic())  # a call to a store that is gone may not return

    def _say_bye(self, wait: bool, end: float) -> None:
        """Writes the last status; process 0 then waits for the others to end, if ``wait``."""
        try:
            self._write()
            while wait and self.number == 0 and time.monotonic() < end:
                self._read()
                if (self._gone | self._lost).issuperset(self._others):
                    return
                time.sleep(0.1)
        except RuntimeError:
            pass

    def _exchange(self) -> None:
        """Writes the status of this process and reads that of the others, until it leaves."""
        while not self._left.is_set():
            try:
                self._write()
                self._read()
            except RuntimeError as error:
                self._lose(0, one_line(str(error)))
                return
            self._left.wait(BEAT)

    def _judge(self) -> None:
        """Notices what has not been heard of, also while a call of `_exchange` does not return."""
        while not self._left.wait(min(0.2, BEAT / 5)):
            now = time.monotonic()
            for i in self._others:
                if i not in self._gone | self._lost and now - self._heard[i] > SILENCE:
                    self._lose(i, f"no sign of it for {SILENCE:g} s")
            if self._ending is not None and now > self._ending[0]:
                self._on_end(*self._ending[1:])

    def _write(self) -> None:
        """Writes the status of this process."""
        with self._writing:
            silence = time.monotonic() - self._all_heard_at()
            with self._lock:
                self._status["beat"] += 1
                self._status["silence"] = silence
                text = json.dumps(self._status)
            self._client.key_value_set(f"{_STATUS}/{self.number}", text, allow_overwrite=True)

    def _read(self) -> None:
        """Reads the status of the others."""
        if self.number == 0:
            entries = self._client.key_value_dir_get(f"{_STATUS}/")
        else:
            timeout = milliseconds(SILENCE)
            entries = [("0", self._client.blocking_key_value_get(f"{_STATUS}/0", timeout))]
        for key, text in entries:
            i = int(key.rpartition("/")[2])
            if i in self._beats:
                self._take(i, json.loads(text))

    def _take(self, i: int, status: dict[str, Any]) -> None:
        """Takes note of the status of process ``i``."""
        with self._lock:
            if status["beat"] != self._beats[i]:
                self._beats[i], self._heard[i] = status["beat"], time.monotonic()
                self._first_silence = status["silence"] if i == 0 else 0.0
        if "ended" in status:  # process 0 passes on what became of another
            self._end(*status["ended"])
        if "bye" in status and i not in self._gone:
            self._gone.add(i)
            line, code = status["bye"]
            if code:
                self._end(f"process {i} of {self.count} ended: {line}", code, GRACE)

    def _lose(self, i: int, why: str) -> None:
        if i not in self._gone | self._lost:
            self._lost.add(i)
            line = f"process {i} of {self.count} was lost ({why}); the same command resumes"
            self._end(line, LostPeerError.exit_code, 0.0)

    def _end(self, line: str, code: int, grace: float) -> None:
        """Has this process end in ``grace`` seconds; on process 0, also tells the others."""
        with self._lock:
            if self._ending is None:
                self._ending = (time.monotonic() + grace, line, code)
                if self.number == 0:
                    self._status["ended"] = [line, code, grace]


def milliseconds(seconds: float) -> int:
    """Returns seconds as the whole milliseconds that JAX's client takes."""
    return int(seconds * 1000)
