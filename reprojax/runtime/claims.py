"""Claims on parts of a study: one worker at a time, kept by a heartbeat, lost with its owner.

A claim is a file that `filelock.SoftFileLease` writes and then touches three times per lease. A
dead owner of this host is taken over at once; one of another host when its file has not been
touched for a whole lease, timed by the clock of whoever waits. Filelock does so by exchanging two
files in one call, which NFS has not: there a claim that stays untouched for longer is renamed away.
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
LEASE_SECONDS = 60.0  # all workers of a folder must agree on it
ABANDONED = 1.5  # leases without a touch after which a claim is renamed away
LOCK_POLL_SECONDS = 0.01  # a lock is held for milliseconds
LOCK_SECONDS = 300.0  # whoever waits longer than any take-over lasts says so
DOUBT_SECONDS = 0.2  # a file that another worker is just comparing may be out of its place so long


class Claim:
    """One claim that is held; a context manager that gives it back.

    Args:
        name: of what is claimed.
        lease: acquired.
        stop: told of it while it is entered.
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
        """Gives it back; a file that is another's by now is left alone."""
        with contextlib.suppress(OSError):
            self._lease.release()

    @property
    def lost(self) -> bool:
        """Whether another worker holds it now: what its file says, not what is remembered."""
        if self._lease.compromise is not None:
            return True
        for pause in (DOUBT_SECONDS, DOUBT_SECONDS, 0.0):
            owner = self._lease.owner
            if owner is not None and owner.token == self._lease.token:
                return False
            time.sleep(pause)
        return True

    def require(self) -> None:
        """Raises LostClaimError if another worker holds it now."""
        if self.lost:
            raise LostClaimError(
                f"the claim on {self.name} was lost: this process was held up for longer than a "
                f"lease, or its file was removed"
            )


class Claims:
    """The claims that one worker makes in one folder.

    Args:
        folder: where their files are.
        stop: told of what is held.
        lease_seconds: after which an owner that gives no sign is taken over.
    """

    def __init__(self, folder: Path, stop: StopRequest, lease_seconds: float = LEASE_SECONDS):
        self.folder, self._stop, self._seconds = Path(folder), stop, lease_seconds
        # Kept, because each times for how long it has seen its file unchanged.
        self._contenders: dict[str, _Contender] = {}

    def take(self, name: str) -> Claim | None:
        """Claims ``name``, or gives None where a living worker has it.

        To be asked again and again where None was given: that is how an owner on another host is
        found to be dead.
        """
        contender = self._contender(name)
        # Held by this worker itself it would be counted, not refused.
        if contender.lease.is_locked or not contender.acquire():
            return None
        return Claim(name, contender.lease, self._stop)

    def taken(self, name: str) -> bool:
        """Whether there is a claim on ``name``, by a living worker or a dead one."""
        return self._path(name).exists()

    def bury(self, name: str) -> None:
        """Removes the claim on ``name`` where its owner is known to be dead."""
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
    """Tries for one claim, again and again.

    Args:
        path: of its file.
        seconds: of a lease.
    """

    def __init__(self, path: Path, seconds: float):
        # Any thread of this process may look at it.
        self.lease = SoftFileLease(path, lease_duration=seconds, thread_local=False)
        self._path, self._patience = path, ABANDONED * seconds
        self._look: tuple[int, int] | None = None
        self._since = 0.0

    def acquire(self) -> bool:
        """Takes the lease, unless somebody has it who may be alive."""
        for _ in range(2):
            with contextlib.suppress(Timeout):
                self.lease.acquire(blocking=False)
                return True
            if not self._abandoned():
                return False
            _put_away(self._path, self._look)
        return False

    def _abandoned(self) -> bool:
        look, now = _look_at(self._path), time.monotonic()
        if look is None or look != self._look:
            self._look, self._since = look, now
        return look is not None and now - self._since > self._patience


def _look_at(path: Path) -> tuple[int, int] | None:
    """Which file it is and when it was touched; opened, so that NFS asks the server."""
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _put_away(path: Path, look: tuple[int, int]) -> None:
    """Removes a claim's file, unless it is another one by now."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    if _look_at(aside) != look:  # claimed anew a moment ago: back, if nobody has claimed it since
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[Claim]:
    """Waits for the lock at ``path`` and holds it: for what takes milliseconds.

    Yields:
        The claim, to be asked with ``require`` before what is written.

    Raises:
        InputError: others have held it for `LOCK_SECONDS`.
    """
    stop = StopRequest()  # of its own: nobody asks it
    contender, deadline = _Contender(path, LEASE_SECONDS), time.monotonic() + LOCK_SECONDS
    while not contender.acquire():
        if time.monotonic() > deadline:
            allowed = f"unlocked: others have held {path.name} for {LOCK_SECONDS:.0f} s"
            raise InputError("workdir", str(path.parent), allowed)
        time.sleep(LOCK_POLL_SECONDS)
    with Claim(path.name, contender.lease, stop) as claim:
        yield claim
