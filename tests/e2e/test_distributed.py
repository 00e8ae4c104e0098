"""Two processes on one machine do what one does; where one is lost, the other says so."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
DEVICES = 4  # in all, whatever the number of processes


def free_port():
    """A port that is free."""
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def job(repo_root, tmp_path):
    """Starts the processes of a job; gives them. Ends what is left of them."""
    started = []

    def start(command, count, devices=DEVICES, numbers=None):
        port = free_port()
        flags = f"--xla_force_host_platform_device_count={devices // count}"
        env = {**os.environ, "PYTHONPATH": str(repo_root), "XLA_FLAGS": flags}
        for number in range(count) if numbers is None else numbers:
            arguments = [str(a) for a in command(port, count, number)]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            process = subprocess.Popen([sys.executable, *arguments], env=env, cwd=tmp_path, **pipes)
            started.append(process)
        return started[-(count if numbers is None else len(numbers)) :]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def script(job, tmp_path):
    """Runs a task of one_process.py to its end; gives what it found."""

    def run(task, count, dtype="float32", devices=DEVICES, fails=0):
        def command(port, count, number):
            return [HERE / "one_process.py", task, tmp_path, port, count, number, dtype]

        ends = [(p, *p.communicate(timeout=1800)) for p in job(command, count, devices)]
        for process, _, err in ends:
            assert process.returncode == fails, err
        if not fails:
            return dict(np.load(tmp_path / f"result-{count}-{dtype}.npz"))
        return [err for _, _, err in ends]

    return run


def apart(a, b):
    """Distance of two vectors relative to their length."""
    return np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b)


@pytest.mark.parametrize(
    ("dtype", "bound"),
    [("float64", 1e-9), pytest.param("float32", 1e-3, marks=pytest.mark.slow)],
)
def test_two_processes_train_as_one_does(script, dtype, bound):
    one, two = script("compare", 1, dtype), script("compare", 2, dtype)
    for name in ("noises", "batch0", "batch1"):
        assert one[name].dtype == two[name].dtype
        np.testing.assert_array_equal(one[name], two[name])
    assert not np.array_equal(one["batch0"], one["batch1"])
    assert one["params"].dtype == dtype
    assert apart(two["gradient"], one["gradient"]) <= 1e-6
    assert apart(two["params"], one["params"]) <= bound


@pytest.fixture
def at_work(job, tmp_path):
    """Starts two processes that train without end; returns them once both do."""

    def command(port, count, number):
        folder = tmp_path / str(port)
        return [HERE / "one_process.py", "train", folder, port, count, number, "endless"]

    def start():
        processes = job(command, 2)
        pattern = f"{processes[0].args[4]}/train/ready*"
        deadline = time.monotonic() + 1200
        while len(list(tmp_path.glob(pattern))) < 2:
            assert time.monotonic() < deadline and processes[0].poll() is None
            time.sleep(0.1)
        return processes

    return start


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)]
)
def test_a_lost_process_is_named_by_the_other(at_work, how):
    """The other notices it in a collective, which fails or never ends."""
    processes = at_work()
    processes[1].send_signal(how)
    lost = time.monotonic()
    _, err = processes[0].communicate(timeout=120)
    assert time.monotonic() - lost < 60
    assert processes[0].returncode == 1, err
    # One line, the last; what XLA says of a slow compilation came before the loss.
    assert "reprojax: process 1 of 2 was lost" in err.splitlines()[-1], err
    assert err.count("reprojax:") == 1, err
    assert not any(word in err for word in ("Traceback", "Terminating", "Check failure")), err


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_the_loss_of_process_0_ends_the_other(at_work, how):
    """It hosts JAX's coordination service. When that dies, JAX aborts the others in its own way."""
    processes = at_work()
    processes[0].send_signal(how)
    lost = time.monotonic()
    _, err = processes[1].communicate(timeout=120)
    assert time.monotonic() - lost < 60
    assert processes[1].returncode != 0
    if how == signal.SIGSTOP:  # it falls silent, which the watch notices
        assert processes[1].returncode == 1, err
        assert "reprojax: process 0 of 2 was lost" in err.splitlines()[-1], err


def test_a_process_that_never_comes_is_named_by_the_others(job, tmp_path):
    def command(port, count, number):
        return [HERE / "one_process.py", "come", tmp_path, port, count, number]

    for process in job(command, 3, devices=3, numbers=[0, 2]):
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1
        assert err == "reprojax: process 1 of 3 did not come within 3 s\n"


def test_the_package_opens_no_port():
    words = ("create_server", ".listen(", "socketserver", "http.server", "HTTPServer", ".accept(")
    for path in (HERE.parents[1] / "reprojax").rglob("*.py"):
        text = path.read_text()
        assert not [word for word in words if word in text], path


@pytest.mark.slow
def test_what_two_processes_saved_one_and_eight_devices_go_on_with(script, tmp_path):
    """One run, stopped at step 24 by an agreed stop, goes on elsewhere to the same end."""
    whole = script("train", 1)["params"]
    (tmp_path / "train").rename(tmp_path / "whole")
    for devices in (1, 8):
        errors = script("train", 2, "stops", fails=130)
        assert all("interrupted in training cell at step 24 of 60" in e for e in errors)
        found = script("train", 1, devices=devices)
        assert any("resumed at step 24" in line for line in found["log"])
        assert apart(found["params"], whole) <= 1e-3
        (tmp_path / "train").rename(tmp_path / f"resumed{devices}")


@pytest.mark.slow
def test_a_study_by_two_processes_has_the_scores_of_one(job, tiny, tmp_path):
    """Sums in another order move a few samples over a threshold: scores may differ by 2 of 40."""
    scores = []
    for count in (1, 2):
        workdir = tmp_path / f"w{count}"

        def command(port, count, number, workdir=workdir):
            base = ["-m", "reprojax.main", f"--config={tiny}", f"--workdir={workdir}"]
            base.append("--config.loop.state_sharding=sharded")
            if count == 1:
                return base
            return [
                *base,
                f"--coordinator=localhost:{port}",
                f"--num_processes={count}",
                f"--process_id={number}",
            ]

        for process in job(command, count):
            _, err = process.communicate(timeout=1800)
            assert process.returncode == 0, err
            assert "Traceback" not in err
        scores.append(json.loads((workdir / "scores.json").read_text()))
        assert (workdir / "report" / "index.html").exists()
    one, two = scores
    assert one["noise"] == two["noise"] and one["study"] == two["study"]
    for kind in ("pairs", "models"):
        for a, b in zip(one[kind], two[kind], strict=True):
            same = ("a", "b", "name", "score", "n")
            assert [a.get(k) for k in same] == [b.get(k) for k in same]
            if a["score"] != "frechet":
                assert abs(a["value"] - b["value"]) <= 2 / 40 + 1e-9, (a, b)
