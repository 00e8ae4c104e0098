"""Shipped studies at their full size: what README says of them, measured again."""

import json
from itertools import combinations
from pathlib import Path

import pytest

NETWORKS = ("unet8_edm", "unet8_edm_seed1", "unet16_vp", "uvit64_edm")


@pytest.mark.slow
def test_the_quickstart_shows_what_it_promises(repo_root, tmp_path, reprojax):
    workdir = tmp_path / "w"
    config = f"--config={repo_root / 'configs' / 'quickstart.py'}"
    code, _, err = reprojax(config, f"--workdir={workdir}")
    assert (code, err) == (0, "")
    scores = json.loads((workdir / "scores.json").read_text())
    assert scores["noise"]["n"] >= 256
    pair = {(p["a"], p["b"], p["score"]): p for p in scores["pairs"]}
    model = {(m["name"], m["score"]): m for m in scores["models"]}
    for a, b in combinations(NETWORKS, 2):
        couple = next(key[:2] for key in pair if set(key[:2]) == {a, b})
        rp, mae = pair[*couple, "rp"], pair[*couple, "mae"]
        assert rp["value"] >= 0.5 and mae["value"] >= 0.4, (couple, rp["value"], mae["value"])
        assert rp["chance"] <= 0.03 and mae["chance"] <= 0.03
        for name in (a, b):
            assert rp["value"] > pair[name, "gaussian", "rp"]["value"], (couple, name)
            assert mae["value"] > pair[name, "gaussian", "mae"]["value"], (couple, name)
    for name in NETWORKS:
        frechet = model[name, "frechet"]
        assert 0 < frechet["value"] < 2 * frechet["reference"], (name, frechet)
        assert model[name, "memorized"]["value"] <= 0.02
        assert abs(model[name, "gl"]["value"] - model[name, "gl"]["reference"]) <= 0.1


@pytest.mark.slow
def test_fashion_mnist_runs_through_every_stage(repo_root, tmp_path, reprojax):
    """The real images and all of configs/fashion.py, with a budget of a few steps."""
    if not Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    small = [f"--config.models.{n}.training.steps=20" for n in ("unet16_edm", "unet24_vp")]
    small += ["--config.models.unet16_edm_seed1.training.steps=20", "--config.noise.n=64"]
    small += ["--config.models.uvit64_edm.training.steps=20", "--config.data.n_heldout=1000"]
    config = f"--config={repo_root / 'configs' / 'fashion.py'}"
    code, _, err = reprojax(config, f"--workdir={tmp_path / 'w'}", *small)
    assert (code, err) == (0, "")
    scores = json.loads((tmp_path / "w" / "scores.json").read_text())
    model = {(m["name"], m["score"]): m for m in scores["models"]}
    assert model["optimum", "memorized"]["value"] > 0.8
    assert model["optimum", "gl"]["n_train"] == 60_000
