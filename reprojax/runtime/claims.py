"""Claims, by which workers that share a workdir agree who does which part of a study.

A claim is a file that `filelock.SoftFileLease` writes and then touches three times per lease. The
claim of a dead process on the same host can be taken over at once. The claim of a process on
another host can be taken over when its file has not been touched for a whole lease, by the clock of
the worker that waits. Filelock takes over by exchanging two files in one system call. NFS lacks
that call, so a claim that stays untouched for longer still is renamed away here.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import SoftFileLease, Timeout

from reprojax.errors import InputError, LostClaimError
from reprojax.runtime.stop import StopRequest

FOLDER = "claims"
LEASE_SECONDS = 60.0  # must be the same for all workers of a folder
ABANDONED = 1.5  # a claim is renamed away after so many leases without a touch
LOCK_POLL_SECONDS = 0.01  # a lock is held for milliseconds
LOCK_SECONDS = 300.0  # longer than any take-over lasts, so waiting longer is an error
DOUBT_SECONDS = 0.2  # another worker that compares a claim's file may move it aside so long


class Claim:
    """A claim that this worker holds. As a context manager it is released at the end of the block.

    Args:
        name: The name of the part of the study that is claimed.
        lease: The lease on the claim's file, already acquired.
        stop: The stop request that checks this claim while the block runs.
    """

    def __init__(self, name: str, lease: SoftFileLease, stop: StopRequest):
        self.name, self._lease, self._stop = name, lease, stop
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Claim:
        self._exit.enter_context(self._stop.holding(self))
        return self

    def __exit__(self, *exc) -> None:
        self._exit.close()
        self.release()

    def release(self) -> None:
        """Releases the claim. A file that belongs to another worker by now is left alone."""
        with contextlib.suppress(OSError):
            self._lease.release()

    @property
    def lost(self) -> bool:
        """Whether another worker holds the claim now. The claim's file is read to find out."""
        if self._lease.compromise is not None:
            return True
        for pause in (DOUBT_SECONDS, DOUBT_SECONDS, 0.0):
            owner = self._lease.owner
            if owner is not None and owner.token == self._lease.token:
                return False
            time.sleep(pause)
        return True

    def require(self) -> None:
        """Raises LostClaimError if another worker holds the claim now."""
        if self.lost:
            raise LostClaimError(
                f"the claim on {self.name} was lost: this process was suspended for longer "
                f"than a lease, or the claim's file was removed"
            )


class Claims:
    """The claims that one worker makes in one folder.

    Args:
        folder: The folder with the files of the claims.
        stop: The stop request that checks the claims while they are held.
        lease_seconds: The time without a touch after which a claim can be taken over.
    """

    def __init__(self, folder: Path, stop: StopRequest, lease_seconds: float = LEASE_SECONDS):
        self.folder, self._stop, self._seconds = Path(folder), stop, lease_seconds
        # Kept from call to call, because each measures how long its file has not changed.
        self._contenders: dict[str, _Contender] = {}

    def take(self, name: str) -> Claim | None:
        """Claims ``name``. Returns None if a worker that may be alive holds the claim.

        Call it again and again after None: only repeated calls can tell that an owner on another
        host is dead.
        """
        contender = self._contender(name)
        # Filelock would grant this worker's own lease a second time.
        if contender.lease.is_locked or not contender.acquire():
            return None
        return Claim(name, contender.lease, self._stop)

    def taken(self, name: str) -> bool:
        """Returns True if there is a claim on ``name``, of a living worker or a dead one."""
        return self._path(name).exists()

    def bury(self, name: str) -> None:
        """Removes the claim on ``name`` if its owner is certainly dead."""
        claim = self.take(name) if self.taken(name) else None
        if claim is not None:
            claim.release()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.claim"

    def _contender(self, name: str) -> _Contender:
        if name not in self._contenders:
            self._contenders[name] = _Contender(self._path(name), self._seconds)
        return self._contenders[name]


class _Contender:
    """One worker's repeated attempts to get one claim.

    Args:
        path: The file of the claim.
        seconds: The length of a lease in seconds.
    """

    def __init__(self, path: Path, seconds: float):
        # Any thread of this process may check the lease.
        self.lease = SoftFileLease(path, lease_duration=seconds, thread_local=False)
        self._path, self._patience = path, ABANDONED * seconds
        self._state: tuple[int, int] | None = None
        self._since = 0.0

    def acquire(self) -> bool:
        """Acquires the lease and returns True, unless a worker that may be alive holds it."""
        for _ in range(2):
            with contextlib.suppress(Timeout):
                self.lease.acquire(blocking=False)
                return True
            if not self._abandoned():
                return False
            _remove_abandoned(self._path, self._state)
        return False

    def _abandoned(self) -> bool:
        state, now = _file_state(self._path), time.monotonic()
        if state is None or state != self._state:
            self._state, self._since = state, now
        return state is not None and now - self._since > self._patience


def _file_state(path: Path) -> tuple[int, int] | None:
    """Returns the inode and modification time of a file, or None if there is no such file.

    The file is opened, because NFS then asks the server in place of its cache.
    """
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _remove_abandoned(path: Path, state: tuple[int, int]) -> None:
    """Removes a claim's file, unless its state has changed."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    # A worker claimed it a moment ago: its file goes back, unless there is a newer claim already.
    if _file_state(aside) != state:
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[Claim]:
    """Waits for the lock at ``path`` and holds it during a block of some milliseconds.

    Args:
        path: The file of the lock.

    Yields:
        The claim. Call its ``require`` before each write.

    Raises:
        InputError: Other workers hold the lock for more than `LOCK_SECONDS`.
    """
    stop = StopRequest()  # one that nothing checks: the caller calls ``require`` itself
    contender, deadline = _Contender(path, LEASE_SECONDS), time.monotonic() + LOCK_SECONDS
    while not contender.acquire():
        if time.monotonic() > deadline:
            requirement = (
                f"has been locked by other workers for {LOCK_SECONDS:.0f} s; remove "
                f"{path.name} if none is running"
            )
            raise InputError("workdir", str(path.parent), requirement)
        time.sleep(LOCK_POLL_SECONDS)
    with Claim(path.name, contender.lease, stop) as claim:
        yield claim
