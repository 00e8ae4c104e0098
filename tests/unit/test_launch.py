"""What starts studies on many machines: options are checked, scripts parse, flags exist."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
MANIFESTS = sorted(LAUNCH.glob("*.yaml"))
CONFIG = f"--config={ROOT / 'configs' / 'grid.py'}:lab"


@pytest.fixture(scope="module")
def sweep():
    spec = importlib.util.spec_from_file_location("launch_sweep", LAUNCH / "sweep.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MISTAKES = {
    "no config": ([], "--config"),
    "an absent config": (["--config=no.py"], "no.py"),
    "an unknown scale": ([CONFIG.replace(":lab", ":lob")], "lob"),
    "an unknown option": ([CONFIG, "--worker=2"], "--worker=2"),
    "an unknown executor": ([CONFIG, "--executor=pbs"], "pbs"),
    "no workers": ([CONFIG, "--workers=0"], "--workers"),
    "workers in words": ([CONFIG, "--workers=two"], "two"),
    "SLURM's option": ([CONFIG, "--partition=gpu"], "only with --executor=slurm"),
    "more cores than there are": ([CONFIG, "--workers=2", "--cpus=5000"], "cores for 2 workers"),
    "a time": ([CONFIG, "--executor=slurm", "--time=soon"], "D-HH:MM:SS"),
    "too short": ([CONFIG, "--executor=slurm", "--time=2"], "--signal_delay"),
    "no memory": ([CONFIG, "--executor=slurm", "--mem=0"], "--mem"),
    "a stray word": ([CONFIG, "now"], "now"),
    "the workdir twice": ([CONFIG, "--", "--workdir=x"], "--workdir"),
    "a word for main": ([CONFIG, "--", "now"], "now"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(case, sweep, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, word = MISTAKES[case]
    assert sweep.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("sweep: ") and err.count("\n") == 1 and word in err, err
    assert not list(tmp_path.iterdir())


def run_python(*arguments, **env):
    """In a process of its own: importing submitit closes every logging handler of this one."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_slurm_where_there_is_none(tmp_path):
    options = [CONFIG, f"--workdir={tmp_path / 'w'}", "--executor=slurm"]
    result = run_python(LAUNCH / "sweep.py", *options, PATH=str(tmp_path))
    assert result.returncode == 2 and "sbatch" in result.stderr and result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_times_as_slurm_writes_them(sweep):
    times = {"90": 90, "1:30:00": 90, "0:00:30": 1, "2-12:00:00": 3600}
    assert {text: sweep.minutes(text) for text in times} == times


def test_what_follows_the_dashes_goes_to_main(sweep):
    options = sweep.parse([CONFIG, "--workers=3", "--", "--mode=train", "--config.noise.n=8"])
    assert options.main_flags == ["--mode=train", "--config.noise.n=8"]
    assert options.workers == 3


def test_local_workers_have_gpus_of_their_own(sweep, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def devices(*more):
        options = sweep.parse([CONFIG, "--workers=2", *more])
        return [sweep.visible_devices(options, i) for i in range(2)]

    assert devices() == [None, None]
    assert devices("--gpus=2") == ["0,1", "2,3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert devices() == ["4,7", "4,7"] and devices("--gpus=1") == ["4", "7"]
    assert devices("--gpus=1", "--executor=slurm", "--time=60") == [None, None]
    with pytest.raises(sweep.InputError, match="has only 2 for 2 workers"):
        devices("--gpus=2")


def test_local_workers_have_cores_of_their_own(sweep, monkeypatch):
    monkeypatch.setattr(sweep, "CAN_PIN", True)
    monkeypatch.setattr(sweep.os, "sched_getaffinity", lambda _: {1, 2, 3, 5, 8}, raising=False)

    def cores(n, *more):
        options = sweep.parse([CONFIG, f"--workers={n}", *more])
        return [sweep.own_cores(options, i) for i in range(n)]

    assert cores(1) == [[1, 2, 3, 5, 8]]
    assert cores(2) == [[1, 2], [3, 5, 8]]
    assert cores(2, "--cpus=1") == [[1], [2]]
    assert cores(6) == [None] * 6
    assert cores(2, "--cpus=1", "--executor=slurm", "--time=60") == [None, None]
    with pytest.raises(sweep.InputError, match="5 cores for 3 workers"):
        cores(3, "--cpus=2")
    monkeypatch.setattr(sweep, "CAN_PIN", False)
    assert cores(2) == [None, None]
    with pytest.raises(sweep.InputError, match="only on Linux"):
        cores(2, "--cpus=1")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no process keeps to a core here")
def test_main_keeps_to_the_cores_of_its_worker(sweep, monkeypatch, tmp_path):
    before = os.sched_getaffinity(0)
    first = min(before)
    monkeypatch.setattr(sweep.signal, "signal", lambda *_: None)
    child = f"import os; raise SystemExit(os.sched_getaffinity(0) != {{{first}}})"
    try:
        assert sweep.Worker([sys.executable, "-c", child], None, 1, [first])() == 0
    finally:
        os.sched_setaffinity(0, before)


CHILD = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
assert signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN
pathlib.Path(sys.argv[1]).touch()
time.sleep(600)
"""
# As submitit stops a worker: the signal comes while it waits for main.
PREEMPTED = """
import importlib.util, os, pathlib, signal, sys, threading, time
path, ready, child = sys.argv[1:]
spec = importlib.util.spec_from_file_location("launch_sweep", path)
sweep = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sweep)
command = [sys.executable, "-c", child, ready]
worker = sweep.Worker([*command, "--retry_failed", "--retry_failed=true"], "5", grace=120)

def preempt(number, frame):
    again = worker.checkpoint().function
    assert worker._process.wait() == 130
    assert (again.command, again.devices, again._process) == (command, "5", None)
    print("preempted", flush=True)
    raise SystemExit

def signal_when_ready():
    while not (pathlib.Path(ready).exists() and worker._process):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGUSR2)

signal.signal(signal.SIGUSR2, preempt)
threading.Thread(target=signal_when_ready, daemon=True).start()
worker()
"""


def test_a_preempted_worker_lets_main_save_and_can_be_requeued(tmp_path):
    result = run_python("-c", PREEMPTED, LAUNCH / "sweep.py", tmp_path / "ready", CHILD)
    assert result.returncode == 0 and result.stdout.endswith("preempted\n"), result.stderr


def test_a_worker_fails_as_main_does(sweep, monkeypatch):
    monkeypatch.setattr(sweep.signal, "signal", lambda *_: None)
    with pytest.raises(RuntimeError, match="exit code 7"):
        sweep.Worker([sys.executable, "-c", "raise SystemExit(7)"], None, 1)()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(path):
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck"):
        result = subprocess.run(["shellcheck", path], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_say_how_they_are_used(path, tmp_path):
    env = {"PATH": os.environ["PATH"], "ZONE": "z"}
    result = subprocess.run([path], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert result.returncode == 2 and "--config=" in result.stderr


GCLOUD = """#!/usr/bin/env bash
echo "$*" >> "$CALLS"
case "$*" in
  *" describe "*)
    n=$(cat "$CALLS.n" 2>/dev/null || echo 0)
    echo $((n + 1)) > "$CALLS.n"
    echo "$STATES" | cut -d, -f$((n + 1)) ;;
esac
"""


@pytest.mark.parametrize(
    ("states", "num_created", "num_deleted"),
    [(",WAITING_FOR_RESOURCES,PROVISIONING,ACTIVE", 1, 0), ("ACTIVE,ACTIVE", 0, 0),
     ("SUSPENDED,ACTIVE", 1, 1)],
)  # fmt: skip
def test_a_pod_is_requested_only_where_there_is_none(states, num_created, num_deleted, tmp_path):
    """With a stand-in for gcloud that prints the states one after another."""
    gcloud, calls = tmp_path / "gcloud", tmp_path / "calls"
    gcloud.write_text(GCLOUD)
    gcloud.chmod(0o755)
    (tmp_path / "git").write_text("#!/bin/sh\n")
    (tmp_path / "git").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "CALLS": str(calls), "STATES": states, "POLL_SECONDS": "0"}
    main = ["--config=configs/grid.py", "--workdir=/mnt/reprojax/a b"]
    command = [LAUNCH / "tpu_pod.sh", "--zone=z", "--project=p", "--nfs=10.0.0.2:/s", "--", *main]
    result = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert result.returncode == 0, result.stderr
    text = calls.read_text()
    assert text.count("queued-resources create") == num_created
    assert text.count("queued-resources delete") == num_deleted
    assert r"--workdir=/mnt/reprojax/a\ b --distributed" in text
    assert all("--zone=z --project=p" in x for x in text.splitlines() if x.startswith("compute"))


def test_a_pod_of_which_nothing_is_known_is_not_waited_for(tmp_path):
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(
        "#!/bin/sh\ncase $* in *create*) ;; *) echo 'token expired' >&2; exit 1 ;; esac\n"
    )
    gcloud.chmod(0o755)
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "POLL_SECONDS": "0"}
    command = [LAUNCH / "tpu_pod.sh", "--zone=z", "--", "--config=c", "--workdir=w"]
    result = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    assert result.returncode == 1 and result.stderr.endswith("of reprojax: token expired\n")


def main_flags() -> set[str]:
    text = (ROOT / "reprojax" / "main.py").read_text("utf-8")
    return set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', text))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_hold_the_command(path):
    documents = list(yaml.safe_load_all(path.read_text("utf-8")))
    text = path.read_text("utf-8")
    assert text.startswith("# ") and f"launch/{path.name}" in text  # what for, and the command
    if path.name == "skypilot.yaml":
        (task,) = documents
        assert task["resources"]["use_spot"] and "-m reprojax.main" in task["run"]
        subprocess.run(["bash", "-n", "-c", task["setup"] + task["run"]], check=True)
        assert set(re.findall(r"\$([A-Z]+)", task["run"])) <= set(task["envs"])
        flags = re.findall(r"--(\w+)[=.\s]", task["run"])
    else:
        claim, jobs = documents
        job = jobs["spec"]["replicatedJobs"][0]["template"]["spec"]
        pod = job["template"]["spec"]
        (container,) = pod["containers"]
        assert jobs["kind"] == "JobSet" and job["completionMode"] == "Indexed"
        assert job["parallelism"] == job["completions"]
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
        assert container["command"] == ["python", "-m", "reprojax.main"]
        flags = [re.match(r"--(\w+)", a)[1] for a in container["args"]]
    assert {"config", "workdir"} <= set(flags) <= main_flags()


def test_every_flag_that_a_script_gives_main_is_one_of_its_flags():
    assert {"config", "workdir"} <= main_flags()
    pod = (LAUNCH / "tpu_pod.sh").read_text("utf-8")
    (flag,) = re.findall(r"-m reprojax\.main \$\(.*?\)--(\w+)", pod)
    files = [*filter(Path.is_file, LAUNCH.glob("*")), ROOT / "README.md"]
    text = "".join(path.read_text("utf-8") for path in files)
    names = re.findall(r"--(distributed|shard|retry_failed|coordinator|process_id)\b", text)
    assert {flag, *names} <= main_flags()
