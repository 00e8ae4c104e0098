"""Claims on parts of a study: one worker at a time, kept by a heartbeat, lost with its owner.

A claim is a file that `filelock.SoftFileLease` writes and then touches three times per lease. A
dead owner of this host is taken over at once; one of another host when its file has not been
touched for a whole lease, timed by the clock of whoever waits.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import SoftFileLease, Timeout

from reprojax.errors import LostClaimError
from reprojax.training.signals import StopRequest

FOLDER = "claims"
LEASE_SECONDS = 60.0  # all workers of a folder must agree on it
LOCK_POLL_SECONDS = 0.01  # a lock is held for milliseconds
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
        self._leases: dict[str, SoftFileLease] = {}

    def take(self, name: str) -> Claim | None:
        """Claims ``name``, or gives None where a living worker has it.

        To be asked again and again where None was given: that is how an owner on another host is
        found to be dead.
        """
        lease = self._lease(name)
        if lease.is_locked:  # by this worker itself: taken again it would be counted, not refused
            return None
        try:
            lease.acquire(blocking=False)
        except Timeout:
            return None
        return Claim(name, lease, self._stop)

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

    def _lease(self, name: str) -> SoftFileLease:
        if name not in self._leases:
            self._leases[name] = make_lease(self._path(name), self._seconds)
        return self._leases[name]


def make_lease(path: Path, seconds: float = LEASE_SECONDS) -> SoftFileLease:
    """A lease that any thread of this process may look at."""
    return SoftFileLease(path, lease_duration=seconds, thread_local=False)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[Claim]:
    """Waits for the lock at ``path`` and holds it: for what takes milliseconds.

    Yields:
        The claim, to be asked with ``require`` before what is written.
    """
    stop = StopRequest()  # of its own: nobody asks it
    lease = make_lease(path)
    lease.acquire(poll_interval=LOCK_POLL_SECONDS)
    with Claim(path.name, lease, stop) as claim:
        yield claim
