"""One job over many devices and processes: starting, agreeing, placing and fetching arrays, ending.

Every process runs the same program. Process 0 decides and writes; the others follow it through
`follow`. With one process all of this is free.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from reprojax.errors import EndedPeerError, InputError, ReprojaxError, one_line
from reprojax.runtime import files
from reprojax.runtime.peers import Peers, Relay, answer_roll, call_roll, listen

ROLL_CALL_SECONDS = 120.0
# JAX's own ways of noticing a lost process abort this one: the watch in `peers` comes well before.
HEARTBEAT_SECONDS = 600
NOTICE_SECONDS = 5.0  # for the watch to say that a failed collective is a lost process
SETTLE_SECONDS = 60.0  # for the others to fail too where one process failed in joint work
_NAME_BYTES = 512
_SETTLED = "settled"

# As jax's own, the state of the job is that of the process: there can be but one.
_peers: Peers | None = None
_met: set[Mesh] = set()
_last_words = threading.Lock()


def start(
    coordinator: str = "",
    num_processes: int = 0,
    process_id: int = -1,
    *,
    timeout: float = ROLL_CALL_SECONDS,
) -> None:
    """Joins the processes of a job; call it before anything touches a device.

    Args:
        coordinator: "host:port" of process 0, which also needs the port after it; "" where JAX
            finds the job by itself (SLURM, Open MPI, TPU pods, Kubernetes).
        num_processes: of the job, with ``coordinator``.
        process_id: of this one, from 0, with ``coordinator``.
        timeout: seconds to wait for the others.

    Raises:
        InputError: the coordinator is no "host:port", or its port cannot be used.
        LostPeerError: processes did not come, named.
    """
    global _peers
    if not coordinator:
        _initialize()
        if jax.process_count() == 1:
            return
        number, count, links = _roll_call_within(timeout)
    else:
        number, count = process_id, num_processes
        host, port = parse_address(coordinator)
        if number == 0:
            links = call_roll(listen(port + 1), count, timeout)
        else:
            links = answer_roll([host], port + 1, number, count, timeout)
    _peers = Peers(number, count, links, _end_with_another)
    files.mute(number != 0)
    if coordinator:
        if number:
            coordinator = f"127.0.0.1:{Relay(host, port, timeout).port}"
        _initialize(coordinator, count, number)


def pretend_devices(count: int) -> None:
    """Has this process see ``count`` CPU devices; before anything touches a device.

    Raises:
        InputError: ``count`` is less than 1.
        RuntimeError: a device was touched before.
    """
    if count < 1:
        raise InputError("--plan_devices", count, "at least 1")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", count)


def parse_address(coordinator: str) -> tuple[str, int]:
    """Host and port of "host:port".

    Raises:
        InputError: it is something else.
    """
    host, _, port = coordinator.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or not 0 < int(port) < 65_535:
        allowed = "host:port of process 0, a port below 65535, e.g. node1:1234"
        raise InputError("--coordinator", coordinator, allowed)
    return host, int(port)


def _initialize(*explicit: Any) -> None:
    # Its handler would take SIGTERM from ours, which saves and ends in good order.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(*explicit, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except ValueError as error:
        if explicit:
            raise
        allowed = "in a job that JAX knows (SLURM, Open MPI, a TPU pod), or with --coordinator"
        raise InputError("--distributed", "True", allowed) from error


def _roll_call_within(timeout: float) -> tuple[int, int, dict]:
    """The roll call of a job that JAX has found: process 0 tells the others where it listens."""
    number, count = jax.process_index(), jax.process_count()
    server, where = None, np.zeros(_NAME_BYTES, np.uint8)
    if number == 0:
        server = listen(0)
        # In Kubernetes other pods know this one by its full name alone, elsewhere perhaps not.
        names = dict.fromkeys((socket.gethostname(), socket.getfqdn()))
        name = f"{' '.join(names)}:{server.getsockname()[1]}".encode()
        where[: len(name)] = np.frombuffer(name, np.uint8)
    where = np.asarray(multihost_utils.broadcast_one_to_all(where), np.uint8)
    hosts, _, port = bytes(where).rstrip(b"\0").decode().rpartition(":")
    if server is not None:
        return number, count, call_roll(server, count, timeout)
    return number, count, answer_roll(hosts.split(), int(port), number, count, timeout)


def is_first() -> bool:
    """Whether this process decides and writes."""
    return _peers is None or _peers.number == 0


def is_alone() -> bool:
    """Whether the job has no other process."""
    return _peers is None


def meet(mesh: Mesh) -> None:
    """Connects the devices of a mesh along each of its axes, once all processes are here.

    Gloo gives the members of a group 30 s to come when the group is first used. A train step is
    compiled before that, which one process may find in its cache and another not; so every group
    that a step can use is made before.
    """
    if _peers is None or mesh in _met:
        return
    _met.add(mesh)
    names = tuple(mesh.axis_names)
    some = np.zeros(mesh.devices.shape, np.float32)
    programs = []
    for axes in dict.fromkeys([(name,) for name in names] + [names]):
        total = partial(jax.lax.psum, axis_name=axes)
        spec = PartitionSpec(*names)
        left = PartitionSpec(*(None if name in axes else name for name in names))
        program = jax.jit(jax.shard_map(total, mesh=mesh, in_specs=spec, out_specs=left))
        placed = place(some, NamedSharding(mesh, spec))
        programs.append((program.lower(placed).compile(), placed))
    any_of(False)
    for program, placed in programs:
        jax.block_until_ready(program(placed))


def agree(value: Any) -> Any:
    """Process 0's JSON value, on every process; the others wait for it."""
    return value if _peers is None else _peers.agree(value)


def any_of(flag: bool) -> bool:
    """Whether the flag is true on any process; all wait for each other."""
    if _peers is None:
        return flag
    flags = _peers.gather(bool(flag))
    for i, value in enumerate(flags or ()):
        if _is_settled(value):  # it failed alone; here the work goes on, and would wait for it
            abandon(1, f"process {i} of {_peers.count}: {value[_SETTLED]}")
    return _peers.agree(flags is not None and any(flags))


def together(order: list[Any], work: Callable[[], Any]) -> Any:
    """On process 0: has every process do a piece of work, of which collectives are a part.

    Args:
        order: JSON values, which `follow` hands to the other processes.
        work: what it means on this one.

    Raises:
        Exception: what the work raised here, or that it failed elsewhere. The job goes on either
            way if all processes have left the work; otherwise all end.
    """
    if _peers is None:
        return work()
    _peers.agree(order)
    return _settle(work)


def follow(do: Callable[..., Any]) -> None:
    """On the other processes: does what process 0 orders, until `release`.

    Args:
        do: takes the values of an order.

    Raises:
        EndedPeerError: process 0 ended in another way.
    """
    while (order := agree(None)) is not None:
        _settle(lambda order=order: do(*order))


def release() -> None:
    """On process 0: no more orders will come."""
    if is_first():
        agree(None)


def _settle(work: Callable[[], Any]) -> Any:
    """Does joint work, and finds out whether it ended well on every process."""
    error = value = None
    try:
        value = work()
    except EndedPeerError:
        raise
    except Exception as raised:
        note_failure(raised)
        error = raised
    # Others may wait in a collective for a process that failed alone: then there is no going on.
    timeout = None if error is None else SETTLE_SECONDS
    said = "" if error is None else one_line(f"{type(error).__name__}: {error}")
    try:
        # Who is at work yet says other things meanwhile, and waits for an answer to them.
        settled = _peers.gather({_SETTLED: said}, timeout, _is_settled)
        _peers.agree(None, timeout)
    except TimeoutError:
        abandon(getattr(error, "exit_code", 1), one_line(str(error), 2000))
    if not is_first():
        return value
    if error is not None:
        raise error
    for i, theirs in enumerate(settled):
        if theirs[_SETTLED]:
            raise RuntimeError(f"process {i} of {_peers.count}: {theirs[_SETTLED]}")
    return value


def _is_settled(value: Any) -> bool:
    """Whether a process says how joint work ended for it."""
    return isinstance(value, dict) and _SETTLED in value


def place(tree: Any, shardings: Any) -> Any:
    """Puts a tree on the devices of a mesh that may span processes.

    Args:
        tree: numpy or process-local arrays, the same on every process; arrays that span processes
            stay as they are.
        shardings: one for all leaves, or a tree of them.
    """
    if _peers is None:
        return jax.device_put(tree, shardings)
    if not isinstance(shardings, jax.sharding.Sharding):
        return jax.tree.map(_place_leaf, tree, shardings)
    return jax.tree.map(lambda leaf: _place_leaf(leaf, shardings), tree)


def _place_leaf(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    if isinstance(leaf, jax.Array):
        if not leaf.is_fully_addressable or sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = _place_leaf(jax.random.key_data(leaf), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def place_rows(
    read: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, sharding: NamedSharding
) -> jax.Array:
    """Reads a batch onto the devices; a process reads no rows but those of its own devices.

    Args:
        read: from some of ``rows`` to their values, with a leading axis for the rows.
        rows: of the whole batch, `[b]`.
        sharding: of the batch, split along its leading axis at most.
    """
    if _peers is None:
        return jax.device_put(read(rows), sharding)
    shards = sharding.addressable_devices_indices_map((len(rows),))
    spans = {index[0].indices(len(rows))[:2] for index in shards.values()}
    parts = {span: read(rows[slice(*span)]) for span in spans}
    shape = (len(rows), *next(iter(parts.values())).shape[1:])
    take = lambda index: parts[index[0].indices(len(rows))[:2]]  # noqa: E731
    return jax.make_array_from_callback(shape, sharding, take)


def fetch(tree: Any) -> Any:
    """Copies a tree to numpy, whole on every process; all processes must call it."""
    return jax.device_get(jax.tree.map(_whole, tree))


def _whole(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return leaf
    everywhere = NamedSharding(leaf.sharding.mesh, PartitionSpec())
    return _copy(leaf, sharding=everywhere)


def _copy_to(leaf: jax.Array, *, sharding: NamedSharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(leaf, sharding)


_copy = jax.jit(_copy_to, static_argnames=("sharding",))


def end() -> None:
    """Leaves a job in which every process has done all its work; waits for the others."""
    global _peers
    if _peers is None:
        return
    any_of(False)
    jax.distributed.shutdown()
    any_of(False)  # process 0, whose service the others still speak to, goes last
    _peers.leave()
    _peers = None
    _met.clear()
    files.mute(False)


def abandon(code: int, line: str, *, say: bool = True) -> int:
    """Ends this process where others may be anywhere: an orderly shutdown would wait for them.

    Args:
        code: to exit with.
        line: what standard error and the others are told.
        say: whether standard error is told.

    Returns:
        ``code``, where there are no others.
    """
    if _peers is not None:
        _last_words.acquire()  # if the watch has it, it ends this process with words of its own
    if say:
        print(f"reprojax: {line}", file=sys.stderr)
    if _peers is None:
        return code
    _peers.leave(line, code)
    _exit(code)


def note_failure(error: Exception) -> None:
    """Call it where an error is caught that may come from a collective, before it is reported.

    A lost process fails everybody's collectives; if that is the cause, the watch, which is a
    thread, meanwhile says so and ends this process.
    """
    if _peers is not None and not isinstance(error, ReprojaxError):
        time.sleep(NOTICE_SECONDS)


def _end_with_another(line: str, code: int) -> None:
    if _last_words.acquire(blocking=False):
        print(f"reprojax: {one_line(line, 2000)}", file=sys.stderr)
        _exit(code)


def _exit(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # destructors of JAX's client would wait for processes that are gone
