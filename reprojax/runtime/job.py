"""A job of one or many processes: starting it, agreeing, placing and fetching arrays, ending it.

Every process runs the same program. Process 0 decides and writes; the others follow it through
`follow`. With one process all of this costs nothing.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from reprojax.errors import EndedPeerError, InputError, ReprojaxError, one_line
from reprojax.runtime import files
from reprojax.runtime.rollcall import call_roll
from reprojax.runtime.watch import Watch

START_SECONDS = 120.0  # for all processes to come
# When JAX itself notices that a process was lost, it aborts this one. The watch is much faster.
HEARTBEAT_SECONDS = 600
SHUTDOWN_SECONDS = 60  # for all processes to leave a job that is done
SETTLE_SECONDS = 60.0  # for the others to fail too where one process failed in joint work
_SETTLED = "settled"

# As in JAX, the state of the job is that of the process: there can be only one.
_watch: Watch | None = None
_met: set[Mesh] = set()
_last_words = threading.Lock()


def start(
    coordinator: str = "",
    num_processes: int = 0,
    process_id: int = -1,
    *,
    timeout: float = START_SECONDS,
) -> None:
    """Joins the processes of a job. Call it before anything uses a device.

    Args:
        coordinator: "host:port" of process 0, or "" where JAX finds the job by itself (SLURM,
            Open MPI, TPU pods, Kubernetes).
        num_processes: The number of processes of the job; used with ``coordinator``.
        process_id: The number of this process, from 0; used with ``coordinator``.
        timeout: How long to wait for the other processes, in seconds.

    Raises:
        InputError: The coordinator is not "host:port", its port cannot be used, or JAX finds no
            job.
        LostPeerError: Some processes did not come, or they disagree on their numbers. The message
            names them. Where JAX finds the job by itself, JAX ends the process instead.
    """
    global _watch
    if coordinator:
        host, port = parse_address(coordinator)
        call_roll(host, port, process_id, num_processes, timeout)
        _initialize(timeout, coordinator, num_processes, process_id)
    else:
        _initialize(timeout)
    state = distributed.global_state
    if state.num_processes > 1:
        _watch = Watch(state.client, state.process_id, state.num_processes, _end_with_another)
        files.mute(state.process_id != 0)


def pretend_devices(count: int) -> None:
    """Makes this process see ``count`` CPU devices. Call it before anything uses a device.

    Raises:
        InputError: ``count`` is less than 1.
        RuntimeError: A device was used before.
    """
    if count < 1:
        raise InputError("--plan_devices", count, "must be at least 1")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", count)


def parse_address(coordinator: str) -> tuple[str, int]:
    """Returns the host and the port of "host:port".

    Raises:
        InputError: The text is something else.
    """
    host, _, port = coordinator.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        requirement = "must be host:port of process 0, with a port below 65536, e.g. node1:1234"
        raise InputError("--coordinator", coordinator, requirement)
    return host, int(port)


def _initialize(timeout: float, *explicit: Any) -> None:
    """Initialises JAX's distributed service, for the job that is given or the one JAX finds."""
    # Its handler would take SIGTERM from ours, which saves and ends in good order.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            *explicit,
            initialization_timeout=max(1, int(timeout)),
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except ValueError as error:
        if explicit:
            raise
        requirement = "must run in a job that JAX finds, e.g. of SLURM; or use --coordinator"
        raise InputError("--distributed", None, requirement) from error


def is_first() -> bool:
    """Returns whether this process decides and writes."""
    return _watch is None or _watch.number == 0


def is_alone() -> bool:
    """Returns whether the job has no other process."""
    return _watch is None


def meet(mesh: Mesh) -> None:
    """Connects the devices of a mesh along each of its axes, once all processes are here.

    Gloo gives the members of a group 30 s to come when the group is used for the first time. A
    train step is compiled just before, and one process may find it in its cache while another does
    not. So every group that a step can use is connected beforehand.
    """
    if _watch is None or mesh in _met:
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
    """Returns process 0's JSON value on every process; the others wait for it."""
    return value if _watch is None else _watch.agree(value)


def any_of(flag: bool) -> bool:
    """Returns whether the flag is true on any process; all wait for each other."""
    if _watch is None:
        return flag
    flags = _watch.gather(bool(flag))
    for i, value in enumerate(flags or ()):
        if _is_settled(value):  # it failed in work that would go on here, and wait for it
            abandon(1, f"process {i} of {_watch.count}: {value[_SETTLED]}")
    return _watch.agree(flags is not None and any(flags))


def together(order: list[Any], work: Callable[[], Any]) -> Any:
    """Has every process do a piece of work that contains collectives. Call it on process 0.

    Args:
        order: JSON values, which `follow` passes to the function of the other processes.
        work: The same work for this process.

    Returns:
        The result of ``work``.

    Raises:
        Exception: The error of the work, here or on another process. The job goes on in both cases
            if all processes have left the work; otherwise all of them end.
    """
    if _watch is None:
        return work()
    _watch.agree(order)
    return _settle(work)


def follow(do: Callable[..., Any]) -> None:
    """Does what process 0 orders, until it calls `release`. Call it on the other processes.

    Args:
        do: The function that does the work of an order. It gets the order's values.

    Raises:
        EndedPeerError: Process 0 ended without `release`.
    """
    while (order := agree(None)) is not None:
        _settle(lambda order=order: do(*order))


def release() -> None:
    """Ends `follow` on the other processes; does nothing when called on one of them."""
    if is_first():
        agree(None)


def _settle(work: Callable[[], Any]) -> Any:
    """Does joint work, and agrees on whether it succeeded on every process."""
    error = value = None
    try:
        value = work()
    except EndedPeerError:
        raise
    except Exception as raised:
        note_failure(raised)
        error = raised
    # Others may wait in a collective for a process that failed alone; then the job cannot go on.
    timeout = None if error is None else SETTLE_SECONDS
    failure = "" if error is None else one_line(f"{type(error).__name__}: {error}")
    try:
        # A process that is still at work may first ask something else (`any_of`).
        settled = _watch.gather({_SETTLED: failure}, timeout, _is_settled)
        answer = _watch.agree({_SETTLED: failure}, timeout)
    except TimeoutError:
        abandon(getattr(error, "exit_code", 1), one_line(str(error), 2000))
    if not _is_settled(answer):  # process 0 is still at work, and would wait for this process
        line = f"joint work ended here before it did on process 0; {error or 'no error here'}"
        abandon(getattr(error, "exit_code", 1), one_line(line, 2000))
    if not is_first():
        return value
    if error is not None:
        raise error
    for i, outcome in enumerate(settled):
        if outcome[_SETTLED]:
            raise RuntimeError(f"process {i} of {_watch.count}: {outcome[_SETTLED]}")
    return value


def _is_settled(value: Any) -> bool:
    """Returns whether the value tells how joint work ended on a process."""
    return isinstance(value, dict) and _SETTLED in value


def place(tree: Any, shardings: Any) -> Any:
    """Puts a tree on the devices of a mesh, which may belong to several processes.

    Args:
        tree: Arrays of numpy or of this process, the same on every process. Arrays that span
            processes already stay as they are.
        shardings: One sharding for all leaves, or a tree of shardings.

    Returns:
        The tree of JAX arrays.
    """
    if _watch is None:
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
    """Reads a batch onto the devices. A process reads only the rows of its own devices.

    Args:
        read: A function from some of ``rows`` to their values, with a leading axis for the rows.
        rows: The rows of the whole batch, `[b]`.
        sharding: The sharding of the batch, which may split its leading axis only.

    Returns:
        The batch, `[b, ...]`.
    """
    if _watch is None:
        return jax.device_put(read(rows), sharding)
    shards = sharding.addressable_devices_indices_map((len(rows),))
    spans = {index[0].indices(len(rows))[:2] for index in shards.values()}
    parts = {span: read(rows[slice(*span)]) for span in spans}
    shape = (len(rows), *next(iter(parts.values())).shape[1:])

    def take(index: tuple[slice, ...]) -> np.ndarray:
        return parts[index[0].indices(len(rows))[:2]]

    return jax.make_array_from_callback(shape, sharding, take)


def fetch(tree: Any) -> Any:
    """Returns a tree as whole numpy arrays on every process; all processes must call it."""
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
    global _watch
    if _watch is None:
        return
    any_of(False)
    _watch.leave()
    _watch = None
    jax.distributed.shutdown()
    _met.clear()
    files.mute(False)


def abandon(code: int, line: str, *, say: bool = True) -> int:
    """Ends this process while the others may be anywhere; an orderly end would wait for them.

    Args:
        code: The exit code.
        line: The reason, for standard error and for the other processes.
        say: Whether to print the reason.

    Returns:
        ``code``, in a job of one process. Otherwise it does not return.
    """
    if _watch is not None:
        _last_words.acquire()  # whoever has it ends this process, perhaps the watch
    if say:
        print(f"reprojax: {line}", file=sys.stderr)
    if _watch is None:
        return code
    _watch.leave(line, code)
    _exit(code)


def note_failure(error: Exception) -> None:
    """Waits until it is clear whether an error comes from the loss of another process.

    Call it where an error is caught that may come from a collective, before it is reported. A lost
    process makes the collectives of all others fail. If that is the cause, the watch, which runs
    in threads, prints it and ends this process meanwhile.
    """
    if _watch is not None and not isinstance(error, ReprojaxError):
        _watch.await_heartbeats()
        with _last_words:  # the watch keeps it while it ends this process
            pass


def _end_with_another(line: str, code: int) -> None:
    """Ends this process because another was lost or has ended."""
    if _last_words.acquire(blocking=False):
        print(f"reprojax: {one_line(line, 2000)}", file=sys.stderr)
        _watch.leave(line, code)
        _exit(code)


def _exit(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # destructors of JAX's client would wait for processes that are gone
