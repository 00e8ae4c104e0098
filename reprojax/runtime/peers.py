"""The processes of one job: a roll call that names who is missing, and a watch for who is lost.

All talk to process 0 over one TCP connection each, in JSON lines. JAX's own service ends a process
from C++, with a stack of lines, when another is lost; so it must not be the first to notice.
"""

from __future__ import annotations

import json
import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from reprojax.errors import EndedPeerError, InputError, LostPeerError, one_line

PULSE = 3.0  # seconds between signs of life
SILENCE = 40.0  # a process without one for so long is lost; a closed connection is known at once
GRACE = 10.0  # for a process to end by itself when another has: most errors are everybody's
_LONGEST = 1 << 20  # bytes of a line
OnEnd = Callable[[str, int], None]


@dataclass
class _Link:
    """A connection, and what has come over it without a line's end."""

    socket: socket.socket
    buffer: bytes = b""
    heard: float = field(default_factory=time.monotonic)
    open: bool = True
    lock: Any = field(default_factory=threading.Lock)

    def send(self, message: dict) -> None:
        """Sends a line; a broken connection is found by reading."""
        try:
            with self.lock:
                self.socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass

    def receive(self) -> list[dict]:
        """Whole lines that have come; raises ConnectionError at the end or on what is no line."""
        try:
            data = self.socket.recv(1 << 16)
        except OSError as error:
            raise ConnectionError(error.strerror) from error
        if not data or len(self.buffer) > _LONGEST:
            raise ConnectionError("its connection closed")
        self.heard = time.monotonic()
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError as error:
            raise ConnectionError("what it says is not JSON") from error
        if not all(isinstance(m, dict) for m in messages):
            raise ConnectionError("what it says is no message")
        return messages

    def close(self) -> None:
        self.open = False
        self.socket.close()


def listen(port: int, field: str = "--coordinator") -> socket.socket:
    """A listening socket on all addresses; port 0 takes a free one.

    Raises:
        InputError: the port is taken, or not allowed.
    """
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        allowed = f"a port that is free, as must be the one after it ({error.strerror})"
        raise InputError(field, port, allowed) from error


def call_roll(server: socket.socket, count: int, timeout: float) -> dict[int, _Link]:
    """Process 0's side: waits until each of the others has said its number.

    A connection that says nothing, or anything else, is nobody's.

    Args:
        server: from `listen`; closed at the end.
        count: of processes.
        timeout: seconds.

    Raises:
        LostPeerError: some did not come, or they disagree on who they are; all hear the same.
    """
    deadline, present = time.monotonic() + timeout, {}
    selector = selectors.DefaultSelector()
    selector.register(server, selectors.EVENT_READ)
    wrong = ""
    while len(present) < count - 1 and not wrong and time.monotonic() < deadline:
        for key, _ in selector.select(min(1.0, max(0.0, deadline - time.monotonic()))):
            if key.data is None:
                connection, _ = server.accept()
                selector.register(connection, selectors.EVENT_READ, _Link(connection))
            else:
                wrong = _answer(key.data, present, count, selector) or wrong
    server.close()
    selector.close()
    if not wrong and len(present) < count - 1:
        absent = [str(i) for i in range(1, count) if i not in present]
        who = f"process {absent[0]}" if len(absent) == 1 else f"processes {', '.join(absent)}"
        wrong = f"{who} of {count} did not come within {timeout:g} s"
    for link in present.values():
        link.send({"refused": wrong} if wrong else {"complete": True})
    if wrong:
        raise LostPeerError(wrong)
    return present


def _answer(link: _Link, present: dict[int, _Link], count: int, selector) -> str:
    """Reads what a caller says; notes who it is. Gives what is wrong with the whole job, or ""."""
    known = next((i for i, other in present.items() if other is link), None)
    try:
        messages = link.receive()
        number = messages[0]["process"] if messages and known is None else None
        of = messages[0]["of"] if messages and known is None else count
        if number is not None and not (isinstance(number, int) and 0 < number < max(of, count)):
            raise ConnectionError("no such process")
    except (ConnectionError, KeyError, TypeError):
        selector.unregister(link.socket)
        link.close()
        present.pop(known, None)
        return ""
    if number is None:
        return ""
    if of != count:
        link.send({"refused": f"process 0 waits for {count} processes, process {number} for {of}"})
        return f"process 0 waits for {count} processes, process {number} for {of}"
    if number in present:
        link.send({"refused": f"two processes came as process {number} of {count}"})
        return f"two processes came as process {number} of {count}"
    present[number] = link
    return ""


def answer_roll(
    hosts: Sequence[str], port: int, number: int, count: int, timeout: float
) -> dict[int, _Link]:
    """The other processes' side: says its number to process 0 and waits for all to be there.

    Args:
        hosts: names of process 0's host, of which one will do.
        port: where it listens.
        number: of this process.
        count: of processes.
        timeout: seconds.

    Raises:
        LostPeerError: process 0 is not there, or says that another is not.
    """
    deadline, link = time.monotonic() + timeout, None
    names = cycle(hosts)
    while link is None:
        try:
            link = _Link(socket.create_connection((next(names), port), timeout=5.0))
        except OSError as error:
            if time.monotonic() > deadline:
                where = f"nobody answers at {' or '.join(hosts)}:{port}, {error.strerror or error}"
                line = f"process 0 of {count} did not come within {timeout:g} s ({where})"
                raise LostPeerError(line) from error
            time.sleep(0.2)
    link.send({"process": number, "of": count})
    link.socket.settimeout(max(0.0, deadline - time.monotonic()) + GRACE)
    messages: list[dict] = []
    while not messages:
        try:
            messages = link.receive()
        except ConnectionError as error:
            line = f"process 0 of {count} was lost in the roll call ({one_line(str(error))})"
            raise LostPeerError(line) from error
    if "refused" in messages[0]:
        raise LostPeerError(str(messages[0]["refused"]))
    link.socket.settimeout(None)
    return {0: link}


class Peers:
    """The other processes: small values exchanged with them, and a thread that watches them.

    Args:
        number: of this process.
        count: of processes.
        links: from `call_roll` or `answer_roll`.
        on_end: called in the thread with (line, exit code) when this process must end because
            another did.
    """

    def __init__(self, number: int, count: int, links: dict[int, _Link], on_end: OnEnd):
        self.number, self.count = number, count
        self._links, self._on_end = links, on_end
        self._values: dict[int, queue.Queue] = {i: queue.Queue() for i in links}
        self._ending: tuple[float, str, int] | None = None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._thread.start()

    def agree(self, value: Any, timeout: float | None = None) -> Any:
        """Process 0's JSON value, on every process; process 0 does not wait for the others.

        Raises:
            TimeoutError: process 0 said nothing for ``timeout`` seconds.
            EndedPeerError: it ended, or says that another did.
        """
        if self.number:
            return self._take_value(0, timeout)
        for link in self._links.values():
            link.send({"value": value})
        return value

    def gather(
        self,
        value: Any,
        timeout: float | None = None,
        wanted: Callable[[Any], bool] = lambda value: True,
    ) -> list[Any] | None:
        """Every process's JSON value in order on process 0, which waits for them; None elsewhere.

        Calls must come in the same order everywhere. What is not ``wanted`` is let go, and the next
        is waited for. Raises as `agree` does.
        """
        if self.number:
            self._links[0].send({"value": value})
            return None
        values = [value]
        for i in sorted(self._links):
            while not wanted(theirs := self._take_value(i, timeout)):
                pass
            values.append(theirs)
        return values

    def _take_value(self, i: int, timeout: float | None) -> Any:
        try:
            value = self._values[i].get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"process {i} of {self.count} says nothing") from None
        if isinstance(value, EndedPeerError):
            self._values[i].put(value)  # there is nothing else to come
            raise value
        return value

    def leave(self, line: str = "", code: int = 0) -> None:
        """Says that this process ends, and how; from then on it watches no one."""
        self._left.set()
        self._say({"bye": line, "code": code})

    def _say(self, message: dict, but: int = -1) -> None:
        for i, link in self._links.items():
            if i != but and link.open:
                link.send(message)

    def _watch(self) -> None:
        selector, pulse = selectors.DefaultSelector(), 0.0
        for i, link in self._links.items():
            link.heard = time.monotonic()
            selector.register(link.socket, selectors.EVENT_READ, i)
        while not self._left.is_set():
            ready = [key.data for key, _ in selector.select(0.5)]
            now = time.monotonic()
            if now - pulse > PULSE:
                self._say({"pulse": 1})
                pulse = now
            for i in ready:
                try:
                    for message in self._links[i].receive():
                        self._take(i, message)
                except ConnectionError as error:
                    selector.unregister(self._links[i].socket)
                    self._lost(i, one_line(str(error)))
            for i, link in self._links.items():
                if link.open and i not in ready and now - link.heard > SILENCE:
                    self._lost(i, f"no sign of it for {SILENCE:g} s")
            if self._ending and now > self._ending[0] and not self._left.is_set():
                self._on_end(*self._ending[1:])

    def _take(self, i: int, message: dict) -> None:
        if "value" in message:
            self._values[i].put(message["value"])
        elif "ended" in message:  # process 0 passes on what became of another
            self._end(message["ended"], message["code"], message["grace"])
        elif "bye" in message:
            self._links[i].open = False
            if message["code"]:
                line = f"process {i} of {self.count} ended: {message['bye']}"
                self._end(line, message["code"], GRACE, but=i)

    def _lost(self, i: int, why: str) -> None:
        if self._links[i].open:
            self._links[i].open = False
            line = f"process {i} of {self.count} was lost ({why}); the same command resumes"
            self._end(line, LostPeerError.exit_code, 0.0, but=i)

    def _end(self, line: str, code: int, grace: float, but: int = -1) -> None:
        if self._ending is None:
            self._ending = (time.monotonic() + grace, line, code)
            for values in self._values.values():  # whoever waits need not wait for the grace to end
                values.put(EndedPeerError(line, code))
            if self.number == 0:
                self._say({"ended": line, "code": code, "grace": grace}, but=but)


class Relay:
    """A local port that leads to another host's, and stays open when that one closes.

    JAX's client aborts the process the moment its connection to process 0 closes. Through a relay
    it only falls silent, and the watch says in one line what happened.

    Args:
        host: of the other end.
        port: of the other end.
        timeout: seconds for it to be there.
    """

    def __init__(self, host: str, port: int, timeout: float):
        self._there, self._timeout = (host, port), timeout
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def _accept(self) -> None:
        while True:
            here, _ = self._server.accept()
            threading.Thread(target=self._join, args=(here,), name="relay", daemon=True).start()

    def _join(self, here: socket.socket) -> None:
        deadline, there = time.monotonic() + self._timeout, None
        while there is None:
            try:
                there = socket.create_connection(self._there)
            except OSError:
                if time.monotonic() > deadline:
                    here.close()
                    return
                time.sleep(0.1)
        for end in (here, there):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        arguments = (there, here)
        threading.Thread(target=_pump, args=arguments, name="relay", daemon=True).start()
        _pump(here, there)
        there.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Copies until one end closes; does not close the other."""
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
    except OSError:
        pass
