"""A study as an array of a real SLURM on this machine: preempted, requeued, the same scores."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "squeue", "scancel")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
SECONDS = 1200  # for anything: a busy machine may take minutes to start a job
GRID = """
from reprojax import config as rc


def get_config(scale=""):
    rc.require_scale(scale, [])
    config = rc.default_config("tinygrid")
    config.data.update(n_train=128, n_heldout=100)
    config.noise.n = 24
    config.sampling.update(num_steps=5, batch_size=8)
    config.training.update(steps=1500, batch_size=16, warmup_steps=3)
    config.loop.update(checkpoint_every=500, log_every=5, eval_every=750)
    network = dict(width=16, depth=2, num_heads=2, patch=4)
    for n in (32, 64, 128):
        model = rc.network_model("uvit", n_train=n, network=network)
        rc.add_models(config, **{f"uvit_n{n}": model})
    rc.add_models(config, optimum=rc.closed_form("optimum"))
    return config
"""
CONF = """
ClusterName=reprojax
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=60
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SlurmdTimeout=0
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_for(condition, what, folder):
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            logs = {p.name: p.read_text(errors="replace")[-3000:] for p in folder.rglob("*log*")}
            pytest.fail(f"waited in vain for {what}: {logs}")
        time.sleep(0.2)


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one node of four slots; gives a function that runs a command on it."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    if missing:
        pytest.skip(f"SLURM is not installed (apt-get install slurm-wlm munge): no {missing[0]}")
    if os.geteuid() != 0:
        pytest.skip("the daemons of SLURM want to be started by root")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: sockets have paths of 107 characters
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    conf, key = folder / "slurm.conf", folder / "munge.key"
    host = socket.gethostname().partition(".")[0]
    conf.write_text(CONF.format(folder=folder, host=host, ports=free_ports(2)))
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    env = {**os.environ, "PATH": PATH, "SLURM_CONF": str(conf)}

    def run(*command, check=True):
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    munge = [f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in
             ("key-file", "socket", "pid-file", "log-file", "seed-file")]  # fmt: skip
    daemons = (["munged", "--foreground", "--force", *munge], ["slurmctld", "-D"], ["slurmd", "-D"])
    started = []
    try:
        for command in daemons:
            log = (folder / f"{command[0]}.out.log").open("w")
            started.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
            if command[0] == "munged":
                wait_for((folder / "munge.socket").exists, "munged", folder)
        wait_for(lambda: "idle" in run("sinfo", "-h", "-o", "%T", check=False), "the node", folder)
        yield run, env
    finally:
        if len(started) == len(daemons):
            run("scancel", "--user=root", check=False)
            deadline = time.monotonic() + 60
            while run("squeue", "-h", check=False).strip() and time.monotonic() < deadline:
                time.sleep(1)
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_preempted_array_gives_the_local_scores(cluster, tmp_path, repo_root):
    run, env = cluster
    config = tmp_path / "tinygrid.py"
    config.write_text(GRID)
    env["PYTHONPATH"] = str(repo_root)
    local, shared = tmp_path / "local", tmp_path / "shared"
    python = [sys.executable, "-m", "reprojax.main", f"--config={config}"]
    run(*python, f"--workdir={local}", "--mode=score")

    said = run(
        sys.executable,
        repo_root / "launch" / "sweep.py",
        *[f"--config={config}", f"--workdir={shared}", "--executor=slurm", "--workers=2"],
        *["--cpus=2", "--time=60", "--signal_delay=300", "--", "--mode=score"],
    )
    array, first, second = re.search(r"\(slurm\): (\d+)_(\d) \1_(\d)", said).groups()
    assert (first, second) == ("0", "1") and f"scancel {array}" in said
    logs = Path(f"{shared}-logs")

    def log(task):
        paths = logs.glob(f"{array}_{task}_*log.*")
        return "".join(path.read_text(errors="replace") for path in paths)

    def training():
        begun = {path.parent for path in shared.glob("cells/*/metrics.jsonl")}
        return begun - {path.parent for path in shared.glob("cells/*/weights.safetensors")}

    # As SLURM preempts. A task that has not come to its worker yet would die of the signal.
    wait_for(lambda: "$ " in log(0) and "$ " in log(1) and training(), "training", logs)
    run("scancel", "--signal=USR2", array)
    wait_for(lambda: "Requeued job" in log(0) + log(1), "a task back in the queue", logs)
    wait_for(lambda: not run("squeue", "-h").strip(), "the end of the array", logs)

    assert re.search(r"interrupted in training .* at step \d+", log(0) + log(1))
    assert re.search(r"resumed at step \d+", log(0) + log(1))
    for task in (0, 1):
        assert "main ended with exit code 0" in log(task), log(task)
    assert (shared / "scores.json").read_bytes() == (local / "scores.json").read_bytes()


def test_the_plain_array_script_goes_on_where_it_was_stopped(cluster, tmp_path, repo_root):
    run, env = cluster
    config, shared = tmp_path / "tinygrid.py", tmp_path / "shared"
    config.write_text(GRID)
    env["PYTHONPATH"] = str(repo_root)
    env["PATH"] = f"{Path(sys.executable).parent}:{PATH}"
    log = tmp_path / "log"
    said = run(
        *["sbatch", "--array=0-0", "--mem=0", "--cpus-per-task=2", f"--output={log}"],
        *[f"--chdir={repo_root}", "launch/slurm_array.sh"],
        *[f"--config={config}", f"--workdir={shared}", "--mode=score"],
    )
    (job,) = re.findall(r"Submitted batch job (\d+)", said)
    wait_for(lambda: list(shared.glob("cells/*/metrics.jsonl")), "training", tmp_path)
    run("scancel", "--batch", "--signal=USR1", f"{job}_0")  # as before the time limit
    wait_for(lambda: log.exists() and "requeued" in log.read_text(), "its requeue", tmp_path)
    wait_for(lambda: not run("squeue", "-h").strip(), "the end of the array", tmp_path)
    assert re.search(r"interrupted in training .* at step \d+", log.read_text())
    assert re.search(r"resumed at step \d+", log.read_text())
    assert (shared / "scores.json").exists()
