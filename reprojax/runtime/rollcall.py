"""The roll call at the start of a job: which processes came, and what is wrong if not all did.

When a process does not register in time, JAX aborts the others from C++ and does not say who is
missing. So the processes first meet at another coordination service, also JAX's, which has the
coordinator's port for the seconds of the roll call. It is made for one task that may register
again, and all processes register as that task. Its key-value store then holds who came. The
service of the job takes over the port afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from jax._src import distributed
from jax._src.lib import _jax

from reprojax.errors import InputError, LostPeerError, one_line
from reprojax.runtime.watch import milliseconds

PATIENCE = 10.0  # seconds for the processes that came to read the result
CLOSED = 0.5  # seconds for which nothing answers at the port between the two services
_FOREVER = 10**6  # seconds; no heartbeat is watched during the roll call
_CAME, _READ, _RESULT = "reprojax/came", "reprojax/read", "reprojax/result"


def call_roll(host: str, port: int, number: int, count: int, timeout: float) -> None:
    """Waits until all processes of a job are there. Call it before JAX's own initialisation.

    Args:
        host: The host of process 0.
        port: The port at which JAX's coordination service will be.
        number: The number of this process, from 0.
        count: The number of processes of the job.
        timeout: How long process 0 waits for the others and they for process 0, in seconds.

    Raises:
        InputError: The port is in use on process 0's host, or this user may not use it.
        LostPeerError: A process did not come, or the processes disagree on who they are. All
            processes that came raise the same error.
    """
    service = _start_service(host, port) if number == 0 else None
    if service is None:
        _await_port(host, port, count, timeout)
    try:
        wrong = _meet(host, port, number, count, timeout)
    finally:
        if service is not None:
            service.shutdown()
    if wrong:
        raise LostPeerError(wrong)
    if service is not None:
        time.sleep(CLOSED)  # for the others to notice that this service is gone
    else:
        _await_silence(host, port)


def _meet(host: str, port: int, number: int, count: int, timeout: float) -> str:
    """Registers this process and returns what process 0 finds wrong with the job, or ""."""
    me = f"{number}/{uuid.uuid4().hex}"
    client = _connect(host, port, count, timeout)
    client.key_value_set(f"{_CAME}/{me}", str(count))
    if number == 0:
        wrong = _await_all(client, count, timeout)
        client.key_value_set(_RESULT, json.dumps(wrong), allow_overwrite=True)
        client.key_value_set(f"{_READ}/{me}", "")
        came = _read_all(client, _CAME)
        silent = _await_readers(client, len(came))
        # A service that closes aborts the client that registered last, unless that is this one.
        _connect(host, port, count, timeout)
        return wrong or silent
    try:
        wrong = json.loads(client.blocking_key_value_get(_RESULT, milliseconds(timeout + PATIENCE)))
        client.key_value_set(f"{_READ}/{me}", "")
    except RuntimeError as error:
        wrong = f"process 0 of {count} was lost in the roll call ({one_line(str(error))})"
    return wrong


def _await_all(client: Any, count: int, timeout: float) -> str:
    """Waits on process 0 for all others, and returns what is wrong with the job, or ""."""
    deadline = time.monotonic() + timeout
    while True:
        present = [(int(key.split("/")[-2]), int(of)) for key, of in _read_all(client, _CAME)]
        wrong = find_mistake(present, count)
        if wrong or len(present) == count:
            return wrong
        if time.monotonic() > deadline:
            return _name_missing([i for i, _ in present], count, timeout)
        time.sleep(0.05)


def find_mistake(present: Sequence[tuple[int, int]], count: int) -> str:
    """Returns what is wrong with the processes that came so far, or "".

    Args:
        present: The number of each process, and how many processes it believes the job to have.
        count: How many processes process 0 waits for.
    """
    for number, of in present:
        if of != count:
            return f"process 0 waits for {count} processes, process {number} for {of}"
    numbers = [number for number, _ in present]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    return f"two processes came as process {twice[0]} of {count}" if twice else ""


def _name_missing(numbers: Sequence[int], count: int, timeout: float) -> str:
    """Returns the sentence that names the processes that are not among ``numbers``."""
    missing = [str(i) for i in range(count) if i not in numbers]
    who = f"process {missing[0]}" if len(missing) == 1 else f"processes {', '.join(missing)}"
    return f"{who} of {count} did not come within {timeout:g} s"


def _await_readers(client: Any, count: int) -> str:
    """Waits until ``count`` processes have read the result; returns what is wrong, or ""."""
    deadline = time.monotonic() + PATIENCE
    while len(_read_all(client, _READ)) < count:
        if time.monotonic() > deadline:
            return "a process was lost in the roll call"
        time.sleep(0.02)
    return ""


def _read_all(client: Any, folder: str) -> list[tuple[str, str]]:
    """Returns the keys below ``folder`` with their values."""
    return client.key_value_dir_get(f"{folder}/")


def _start_service(host: str, port: int) -> Any:
    """Starts the service of the roll call on process 0.

    Raises:
        InputError: The port cannot be used.
    """
    # XLA does not survive a port that is in use.
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as XLA's own
        try:
            probe.bind(("", port))
        except OSError as error:
            requirement = f"must have a port that is free ({error.strerror})"
            raise InputError("--coordinator", f"{_bracketed(host)}:{port}", requirement) from error
    address = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", f"[::]:{port}")
    # A recoverable task may register again, from another process. XLA warns that this is new.
    with _without_stderr():
        return _jax.get_distributed_runtime_service(
            address, 1, heartbeat_timeout=_FOREVER, recoverable=True, **_certificates()
        )


def _connect(host: str, port: int, count: int, timeout: float) -> Any:
    """Returns a client of the roll call's service.

    Raises:
        LostPeerError: What answers at the port is not such a service.
    """
    client = _jax.get_distributed_runtime_client(
        f"{_bracketed(host)}:{port}",
        0,
        init_timeout=max(1, int(timeout)),
        heartbeat_timeout=_FOREVER,
        missed_heartbeat_callback=_ignore,  # without one, a failure ends the process
        shutdown_on_destruction=False,
        use_compression=True,
        **_certificates(),
    )
    try:
        client.connect()
    except RuntimeError as error:
        with _without_stderr():
            del client  # which complains that it never connected
        line = f"process 0 of {count} did not come within {timeout:g} s"
        cause = f"{host}:{port} is not JAX's coordination service"
        raise LostPeerError(f"{line} ({cause})") from error
    return client


def _ignore(status: Any) -> None:
    """Does nothing about an error of the service: the call that fails raises it too."""


def _certificates() -> dict[str, Any]:
    """Returns what JAX was configured with for mutual TLS, where this version has that."""
    read = getattr(distributed, "_get_mtls_kwargs", None)
    return read(None, None, None, None, None) if read else {}


def _await_port(host: str, port: int, count: int, timeout: float) -> None:
    """Waits until something answers at process 0's port.

    Raises:
        LostPeerError: Nothing did within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while (error := _knock(host, port)) is not None:
        if time.monotonic() > deadline:
            cause = f"nothing answers at {host}:{port}, {error.strerror or error}"
            line = f"process 0 of {count} did not come within {timeout:g} s ({cause})"
            raise LostPeerError(line) from error
        time.sleep(0.2)


def _await_silence(host: str, port: int) -> None:
    """Waits until the roll call's service is gone, so that JAX does not register there.

    The silence between the services may pass unnoticed on a busy machine. Then JAX's service is
    there by the end of the wait.
    """
    deadline = time.monotonic() + 3 * PATIENCE  # process 0 waits for one PATIENCE
    while _knock(host, port) is None and time.monotonic() < deadline:
        time.sleep(0.05)


def _knock(host: str, port: int) -> OSError | None:
    """Connects to a port and hangs up; returns the error, or None where something answered."""
    try:
        socket.create_connection((host, port), timeout=5.0).close()
    except OSError as error:
        return error
    return None


def _bracketed(host: str) -> str:
    """Returns the host as it stands in an address: an IPv6 number is in brackets."""
    return f"[{host}]" if ":" in host else host


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Discards what C++ writes to standard error; there is no other way to have one plain line."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
