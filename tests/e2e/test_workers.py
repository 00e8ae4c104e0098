"""Many workers on one folder: killed, failing, sharded; nothing is lost and nothing done twice."""

import json
import os
import random
import signal
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from reprojax.runtime.console import Reporter
from reprojax.runtime.files import write_bytes
from reprojax.study import runner, workers
from reprojax.study.stages import is_trained

SIX = """
from reprojax import config as rc


def get_config(scale=""):
    config = rc.default_config("six")
    config.data.n_train = 100
    config.data.n_heldout = 50
    config.noise.n = 24
    config.sampling.num_steps = 4
    config.sampling.batch_size = 8
    config.training.steps = 60
    config.training.batch_size = 8
    config.training.warmup_steps = 3
    config.loop.checkpoint_every = 10
    config.loop.log_every = 10
    config.loop.eval_every = 60
    config.loop.eval_images = 8
    small = dict(width=8, depth=2, num_heads=1, patch=4)
    rc.add_models(
        config,
        **{f"seed{i}": rc.network_model("uvit", seed=i, network=small) for i in range(5)},
        gaussian=rc.closed_form("gaussian"),
    )
    return config
"""
NETWORKS = 5


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """Path of a config file with six cells, five of which share their compiled programs."""
    path = tmp_path_factory.mktemp("six") / "six_config.py"
    path.write_text(textwrap.dedent(SIX))
    return path


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Environment of processes that compile each program once between them."""
    here = str(tmp_path_factory.mktemp("compiled"))
    return {
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", here),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def alone(six, tmp_path_factory):
    """The folder of the study by a single worker in this process."""
    return run(six, tmp_path_factory.mktemp("alone") / "w", last="score")


def run(config_file, workdir, reporter=None, **options):
    """The study in this process; gives its folder."""
    from reprojax import config as rc
    from reprojax.main import load_config

    study = rc.make_study(load_config(["", f"--config={config_file}"]))
    quiet = reporter or Reporter(Console(quiet=True))
    runner.run_study(runner.prepare(study), workdir, reporter=quiet, **options)
    return Path(workdir)


def finished(workdir):
    """How often each cell was trained, and sampled, to the end."""
    counts = Counter()
    for path in workdir.glob("cells/*/history.jsonl"):
        name = path.parent.name.rpartition("-")[0]
        counts.update((name, json.loads(line)["done"]) for line in path.read_text().splitlines())
    return counts


def check_whole(workdir, alone, killed=0):
    """Every cell is complete, none was done twice, and the scores are those of one worker."""
    assert len(list(workdir.glob("cells/*/weights.safetensors"))) == NETWORKS
    assert len(list(workdir.glob("cells/*/samples-*.npz"))) == NETWORKS + 1
    counts, wanted = finished(workdir), finished(alone)
    assert set(wanted.values()) == {1}
    assert counts <= wanted  # nothing twice
    # who is killed between an artefact and its line leaves the one without the other
    assert (wanted - counts).total() <= killed
    assert (workdir / "scores.json").read_bytes() == (alone / "scores.json").read_bytes()
    rubbish = ("*.tmp", "*.claim", "parts-*", "failed.json", ".manifest*")
    assert not [p for pattern in rubbish for p in workdir.rglob(pattern)]


def survive_kills(seed, six, alone, compiled, folder, start):
    print("seed", seed)
    choose = random.Random(seed)
    arguments = [f"--config={six}", f"--workdir={folder}", "--mode=score"]
    workers = [start(*arguments, env=compiled) for _ in range(4)]
    deadline = time.monotonic() + 600
    while not list(folder.glob("cells/*/metrics.jsonl")):
        assert time.monotonic() < deadline and None in [w.poll() for w in workers]
        time.sleep(0.01)
    for worker in choose.sample(workers, 2):
        time.sleep(choose.uniform(0, 4))
        worker.send_signal(signal.SIGKILL)
        worker.wait()  # as a zombie it would count as alive, until its lease ends
    results = [(*w.communicate(timeout=600), w.returncode) for w in workers]
    codes = sorted(code for _, _, code in results)
    assert set(codes) <= {0, -signal.SIGKILL} and codes.count(0) >= 2, results
    check_whole(folder, alone, killed=2)
    manifest = json.loads((folder / "manifest.json").read_text())
    listed = [folder / name for name in manifest["artefacts"]]
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"]
    assert not [p for p in files if not any(p == a or a in p.parents for a in listed)]


def test_four_workers_two_of_them_killed(six, alone, compiled, tmp_path, start):
    seed = random.SystemRandom().randrange(10**6)
    survive_kills(seed, six, alone, compiled, tmp_path / "w", start)


@pytest.mark.slow
@pytest.mark.parametrize("repetition", range(20))
def test_four_workers_two_of_them_killed_often(repetition, six, alone, compiled, tmp_path, start):
    seed = random.SystemRandom().randrange(10**6)
    survive_kills(seed, six, alone, compiled, tmp_path / "w", start)


def test_the_flags_of_a_worker(six, tmp_path, reprojax, monkeypatch):
    """Exit 4 with a failed cell, --retry_failed and --shard, with stand-ins for training."""
    broken = {"seed1"}

    def train_cell(context, cell):
        if is_trained(context, cell):
            return False
        if cell.name in broken:
            raise RuntimeError("no luck")
        files = context.files(cell)
        files.own(files.weights)
        write_bytes(files.weights, b"")
        return True

    monkeypatch.setattr(workers, "train_cell", train_cell)
    base = [f"--config={six}", f"--workdir={tmp_path / 'w'}", "--mode=train"]
    code, out, err = reprojax(*base, "--shard=0/2")
    assert (code, err) == (0, "") and "trained 3" in out and "4 of 6 cells are done" in out
    code, out, err = reprojax(*base, "--wait_seconds=5")
    assert code == 4 and err.count("\n") == 1 and "trained 1" in out
    assert "1 of 6 cells failed: seed1" in err and "no luck" in err and "--retry_failed" in err
    broken.clear()
    assert reprojax(*base)[0] == 4  # a failure is remembered
    code, out, err = reprojax(*base, "--retry_failed")
    assert (code, err) == (0, "") and "trained 1" in out
