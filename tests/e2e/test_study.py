"""A whole small study through the command line: contract, second run, modes, kills."""

import json
import math
import os
import signal
import time

import numpy as np
import pytest

from reprojax.runtime import programs
from reprojax.training.step import train_step


def test_the_main_job_keeps_its_contract(tiny, tmp_path, reprojax):
    workdir = tmp_path / "w"
    code, out, err = reprojax(f"--config={tiny}", f"--workdir={workdir}")
    assert (code, err) == (0, "")
    scores = json.loads((workdir / "scores.json").read_text())
    assert scores["schema"] == 2 and scores["noise"]["n"] == 40
    assert list(scores["cells"]) == ["b_uvit", "a_unet", "seed1", "optimum", "gaussian"]
    cell = scores["cells"]["a_unet"]
    assert cell["kind"] == "network" and cell["width"] == 4 and cell["n_train"] == 200
    assert cell["solver"] == "heun" and cell["nfe"] == 9 and len(cell["hash"]) == 16
    assert scores["cells"]["optimum"]["kind"] == "closed_form"
    assert len(scores["pairs"]) == 2 * math.comb(5, 2)
    assert {(m["name"], m["score"]) for m in scores["models"]} == {
        (name, score) for name in scores["cells"] for score in ("gl", "memorized", "frechet")
    }
    for row in scores["pairs"]:
        assert 0 <= row["ci95"][0] <= row["value"] <= row["ci95"][1] <= 1
        assert 0 <= row["chance"] <= 1 and row["n"] == 40
    by_name = {(m["name"], m["score"]): m for m in scores["models"]}
    copied = {name: by_name[name, "memorized"]["value"] for name in ("optimum", "gaussian")}
    assert copied["optimum"] > 0.9 > copied["gaussian"]
    assert by_name["optimum", "gl"]["value"] < 0.1
    assert by_name["gaussian", "gl"]["reference"] == pytest.approx(0.95, abs=0.011)
    page = (workdir / "report" / "index.html").read_text()
    assert all(name in page for name in scores["cells"])
    for figure in ("samples", "rp_heatmap", "gl", "loss"):
        assert (workdir / "figures" / f"{figure}.png").stat().st_size > 5000
    assert "a_unet" in out and "held-out" in out
    manifest = json.loads((workdir / "manifest.json").read_text())
    listed = [workdir / name for name in manifest["artefacts"]]
    files = [p for p in workdir.rglob("*") if p.is_file() and p.name != "manifest.json"]
    stray = [p for p in files if not any(p == a or a in p.parents for a in listed)]
    assert not stray  # --overwrite must be able to remove everything that a study wrote

    before = {p: p.stat().st_mtime_ns for p in files}
    code, out, _ = reprojax(f"--config={tiny}", f"--workdir={workdir}")
    assert code == 0 and "nothing recomputed" in out and "up to date" in out
    assert {p: p.stat().st_mtime_ns for p in files} == before

    code, _, err = reprojax(f"--config={tiny}", f"--workdir={workdir}", "--config.noise.seed=5")
    assert code == 2 and "belongs to another config" in err and "--overwrite" in err
    (workdir / "mine.txt").write_text("not the study's")
    arguments = [f"--config={tiny}", f"--workdir={workdir}", "--config.noise.seed=5"]
    code, out, _ = reprojax(*arguments, "--overwrite", "--mode=train")
    assert code == 0 and (workdir / "mine.txt").exists()
    assert not (workdir / "scores.json").exists() and not (workdir / "report").exists()


def test_modes_build_on_each_other(tiny, tmp_path, reprojax):
    base = [f"--config={tiny}", f"--workdir={tmp_path / 'w'}"]
    assert reprojax(*base, "--mode=train")[0] == 0
    assert list((tmp_path / "w").glob("cells/*/weights.safetensors"))
    assert not list((tmp_path / "w").glob("cells/*/samples-*.npz"))
    code, out, _ = reprojax(*base, "--mode=sample")
    assert code == 0 and "trained 0, sampled 5" in out
    code, out, _ = reprojax(*base, "--mode=score")
    assert code == 0 and "described 5, scored 1" in out
    assert not (tmp_path / "w" / "report").exists()
    assert reprojax(*base, "--mode=report")[0] == 0
    assert (tmp_path / "w" / "report" / "index.html").exists()


def test_weights_stand_in_for_training(tiny, tmp_path, reprojax):
    base = [f"--config={tiny}", f"--workdir={tmp_path / 'w'}"]
    assert reprojax(*base, "--mode=sample")[0] == 0
    (weights,) = (tmp_path / "w").glob("cells/b_uvit-*/weights.safetensors")
    again = [f"--config={tiny}", f"--workdir={tmp_path / 'v'}", "--mode=sample"]
    code, out, _ = reprojax(*again, f"--config.models.b_uvit.weights={weights}")
    assert code == 0 and "trained 2" in out
    one, two = (np.load(next((tmp_path / d).glob("cells/b_uvit-*/samples-*"))) for d in "wv")
    np.testing.assert_array_equal(one["images"], two["images"])
    code, _, err = reprojax(*again, f"--config.models.seed1.weights={tiny}")
    assert code == 2 and "models.seed1.weights" in err
    vp = ["--config.models.b_uvit.kernel=vp", "--config.models.b_uvit.preconditioning=vp_v"]
    code, _, err = reprojax(*again, f"--config.models.b_uvit.weights={weights}", *vp)
    assert code == 2 and "with kernel 'edm'; must be used with it, not with 'vp'" in err
    code, _, err = reprojax(*again, f"--config.models.a_unet.weights={weights}")
    assert code == 2 and "missing:" in err and err.count("\n") == 1


def test_dry_run_writes_nothing(tiny, tmp_path, reprojax):
    code, out, _ = reprojax(f"--config={tiny}", f"--workdir={tmp_path / 'w'}", "--dry_run")
    assert code == 0 and not (tmp_path / "w").exists()
    assert "a_unet" in out and "total about" in out


def wait_for(condition, process, seconds=900):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the awaited stage never came"
        time.sleep(0.002)


@pytest.mark.slow
def test_kills_lose_nothing(tiny, tmp_path, start, reprojax):
    """SIGKILL in training, in sampling and in scoring; then the same bytes as an unkilled run."""
    workdir = tmp_path / "killed"
    arguments = [f"--config={tiny}", f"--workdir={workdir}"]
    arguments += ["--config.noise.n=1200", "--config.training.steps=60"]  # time to be killed in

    def killed_when(condition):
        process = start(*arguments)
        wait_for(condition, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (workdir / "scores.json").exists()

    killed_when(lambda: list(workdir.glob("cells/b_uvit-*/checkpoints/[1-9]*")))
    assert not list(workdir.glob("cells/*/weights.safetensors"))
    killed_when(lambda: list(workdir.glob("cells/a_unet-*/parts-*/*.npz")))
    assert len(list(workdir.glob("cells/*/samples-*.npz"))) == 1
    killed_when(lambda: len(list(workdir.glob("cells/*/features-*.npz"))) == 5)
    process = start(*arguments)
    out, err = process.communicate()
    assert process.returncode == 0 and err == "", err
    assert "trained 0, sampled 0, described 0, scored 1" in out

    clean = [a.replace(str(workdir), str(tmp_path / "clean")) for a in arguments]
    assert reprojax(*clean)[0] == 0
    one = (workdir / "scores.json").read_bytes()
    assert one == (tmp_path / "clean" / "scores.json").read_bytes()
    leftovers = [p for p in workdir.rglob("*") if p.name.endswith(".tmp") or "parts-" in p.name]
    assert not leftovers


def test_sigterm_saves_and_the_same_command_resumes(tiny, tmp_path, start):
    workdir = tmp_path / "w"
    arguments = [f"--config={tiny}", f"--workdir={workdir}", "--mode=train"]
    arguments += ["--config.training.steps=4000", "--config.loop.checkpoint_every=100000"]
    process = start(*arguments)
    log = lambda: list(workdir.glob("cells/b_uvit-*/metrics.jsonl"))  # noqa: E731
    wait_for(lambda: log() and log()[0].stat().st_size > 0, process)
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130 and "the same command resumes" in err and err.count("\n") == 1
    (saved,) = workdir.glob("cells/b_uvit-*/checkpoints/[1-9]*")
    stopped = log()[0].stat().st_mtime_ns
    process = start(*arguments)
    wait_for(lambda: log()[0].stat().st_mtime_ns > stopped, process)
    time.sleep(1)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 130 and f"resumed at step {saved.name}" in out


def test_a_stop_in_sampling_keeps_what_is_sampled(tiny, tmp_path, start, reprojax):
    workdir = tmp_path / "w"
    arguments = [f"--config={tiny}", f"--workdir={workdir}", "--mode=sample"]
    arguments += ["--config.noise.n=1200"]
    process = start(*arguments)
    wait_for(lambda: list(workdir.glob("cells/b_uvit-*/parts-*")), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130 and "in sampling b_uvit at" in err
    (part,) = workdir.glob("cells/b_uvit-*/parts-*/*.npz")
    assert 0 < int(part.stem) < 1200
    with np.load(part) as data:
        kept = data["images"]
    assert reprojax(*arguments)[0] == 0
    with np.load(next(workdir.glob("cells/b_uvit-*/samples-*.npz"))) as data:
        assert len(data["images"]) == 1200
        np.testing.assert_array_equal(data["images"][: len(kept)], kept)
    assert not list(workdir.glob("cells/*/parts-*"))


def test_divergence_is_exit_3(tiny, tmp_path, reprojax):
    arguments = [f"--config={tiny}", f"--workdir={tmp_path / 'w'}"]
    code, _, err = reprojax(*arguments, "--config.training.learning_rate=1e30")
    assert code == 3 and err.count("\n") == 1
    assert "b_uvit" in err and "is not finite at step" in err and "checkpoint is kept" in err


@pytest.mark.slow
def test_a_study_of_many_networks_keeps_the_programs_of_one(tiny, tmp_path, reprojax, monkeypatch):
    """Where the kernel's limit is near, as it is after some dozens of networks on a CPU."""
    held = []

    def nearly_full():
        held.append(train_step._cache_size())
        return 40_000, 65_530

    monkeypatch.setattr(programs, "mappings", nearly_full)
    arguments = [f"--config={tiny}", f"--workdir={tmp_path / 'w'}", "--mode=train"]
    code, _, err = reprojax(*arguments)
    assert (code, err) == (0, "")
    assert held[1:] == [1, 1]  # of three networks, two of them alike, each finds one before it
