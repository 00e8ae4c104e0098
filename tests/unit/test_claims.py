"""Claims: one holder at a time, dead owners are taken over, a lost claim is noticed."""

import os
import signal
import subprocess
import sys
import time

import pytest
from filelock import SoftFileLease

from reprojax.errors import InputError, InterruptedRunError, LostClaimError
from reprojax.runtime import claims as module
from reprojax.runtime.claims import Claims, locked
from reprojax.runtime.stop import StopRequest

LEASE = 1.0
FOREIGN = "filelock/2\npid={pid}\nhost=another-host\nmode=lease\ntoken={token}\nduration={lease}\n"


def foreign_claim(claims, name, lease=LEASE, token="a" * 32):
    """The file of a claim that a worker on another host holds."""
    path = claims.folder / f"{name}.claim"
    path.parent.mkdir(exist_ok=True)
    new = path.with_name("new")
    new.write_text(FOREIGN.format(pid=os.getpid(), token=token, lease=lease))
    os.replace(new, path)
    return path


@pytest.fixture
def claims(tmp_path):
    return Claims(tmp_path / "claims", StopRequest(), LEASE)


def wait_until(found, seconds=60):
    deadline = time.monotonic() + seconds
    while (value := found()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


def test_a_claim_is_one_worker_s_until_it_is_given_back(claims, tmp_path):
    other = Claims(tmp_path / "claims", StopRequest(), LEASE)
    with claims.take("x"):
        assert claims.taken("x") and other.taken("x")
        assert other.take("x") is None
        assert claims.take("x") is None  # not twice by the same worker either
        other.take("y").release()
    assert not claims.taken("x")
    with other.take("x"):
        assert claims.take("x") is None
    assert list((tmp_path / "claims").iterdir()) == []


def test_another_host_is_taken_over_when_its_lease_expired_and_not_while_it_lives(claims):
    path = foreign_claim(claims, "x")
    for i in range(30):  # for longer than a lease, but always touched since the last look
        os.utime(path, (i, i))
        assert claims.take("x") is None
        time.sleep(2 * LEASE / 30)
    start = time.monotonic()
    with wait_until(lambda: claims.take("x")) as claim:
        assert time.monotonic() - start > 0.9 * LEASE
        assert not claim.lost
        claim.require()


HOLD = """
import sys, time
from pathlib import Path
from reprojax.runtime.claims import Claims
from reprojax.runtime.stop import StopRequest
claim = Claims(Path(sys.argv[1]), StopRequest()).take("x")
print("held" if claim else "refused", flush=True)
time.sleep(600)
"""


def test_a_dead_owner_of_this_host_is_taken_over_at_once(tmp_path, repo_root):
    env = os.environ | {"PYTHONPATH": str(repo_root)}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    owner = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    claims = Claims(tmp_path, StopRequest())  # with a lease of a minute, which nobody waits for
    try:
        assert owner.stdout.readline() == "held\n"
        assert claims.take("x") is None
        claims.bury("x")
        assert claims.taken("x")  # it lives
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        claims.bury("x")
        assert not claims.taken("x")
        claim = claims.take("x")
        assert claim is not None
        claim.release()
    finally:
        owner.kill()
        owner.communicate()


def test_who_was_held_up_too_long_finds_out_and_leaves_the_new_owner_alone(tmp_path):
    stop = StopRequest()
    claims = Claims(tmp_path / "claims", stop)
    with claims.take("x") as claim:
        stop.require_claim()
        path = foreign_claim(claims, "x")
        assert claim.lost
        for ask in (claim.require, stop.require_claim):
            with pytest.raises(LostClaimError, match="claim on x"):
                ask()
        stop._last_check -= 2  # the last check was over a second ago
        with pytest.raises(LostClaimError):
            stop.check("anywhere")
        stop.requested = True
        with pytest.raises(InterruptedRunError, match="anywhere"):
            stop.check("anywhere")
    stop.require_claim()  # nothing is held any more
    assert "another-host" in path.read_text()


def test_a_claim_whose_file_is_gone_is_lost(tmp_path):
    claims = Claims(tmp_path / "claims", StopRequest())
    with claims.take("x") as claim:
        (tmp_path / "claims" / "x.claim").unlink()
        assert claim.lost
    with claims.take("x") as claim:
        assert not claim.lost


@pytest.fixture
def no_exchange(monkeypatch):
    """As on NFS, which cannot exchange two files: filelock then leaves a dead owner's claim."""
    monkeypatch.setattr(SoftFileLease, "_take_over", lambda self, *marker: None)


def test_where_files_cannot_be_exchanged_a_claim_without_a_touch_is_renamed_away(
    claims, no_exchange
):
    path = foreign_claim(claims, "x")
    for i in range(30):  # for longer than its patience, but always touched since the last look
        os.utime(path, (i, i))
        assert claims.take("x") is None
        time.sleep(2 * module.ABANDONED * LEASE / 30)
    start = time.monotonic()
    with wait_until(lambda: claims.take("x")) as claim:
        assert time.monotonic() - start > 0.9 * module.ABANDONED * LEASE
        assert not claim.lost
    assert list(claims.folder.iterdir()) == []


def test_of_two_that_find_a_claim_abandoned_one_gets_it(claims, no_exchange, monkeypatch):
    """The slower one has looked at the abandoned file, and finds the new one in its place."""
    path = foreign_claim(claims, "x")
    slower = Claims(claims.folder, StopRequest(), LEASE)
    assert claims.take("x") is None and slower.take("x") is None
    time.sleep(1.1 * module.ABANDONED * LEASE)
    real, taken = module._remove_abandoned, []

    def overtaken(path, look):
        monkeypatch.setattr(module, "_remove_abandoned", real)
        taken.append(claims.take("x"))
        real(path, look)

    monkeypatch.setattr(module, "_remove_abandoned", overtaken)
    assert slower.take("x") is None
    (claim,) = taken
    assert claim is not None and not claim.lost and path.exists()
    claim.release()
    assert list(claims.folder.iterdir()) == []


def test_a_lock_that_stays_locked_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.3)
    claims = Claims(tmp_path, StopRequest())
    foreign_claim(claims, "lock", lease=60)
    with pytest.raises(InputError, match=r"lock\.claim"), locked(tmp_path / "lock.claim"):
        pass
