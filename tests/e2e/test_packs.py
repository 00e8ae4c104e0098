"""A study whose cells of equal shape are trained in one program, through the command line."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from reprojax.errors import DivergedError
from reprojax.study import packs

SHORT = ("--mode=train", "--config.training.steps=12", "--config.loop.snapshots=2")


def trained(workdir):
    """The files of each cell by its name, checkpoints by their steps alone."""
    found = {}
    for cell in (workdir / "cells").iterdir():
        paths = {str(p.relative_to(cell)) for p in cell.rglob("*") if p.is_file()}
        steps = {p.name for p in (cell / "checkpoints").iterdir() if p.is_dir()}
        found[cell.name] = steps | {p for p in paths if not p.startswith("checkpoints")}
    return found


def weights(workdir):
    return {p.parent.name: load_file(p) for p in workdir.glob("cells/*/weights.safetensors")}


@pytest.fixture
def seeds(tiny):
    """Path of a config file of two U-ViTs that differ in their seed, and a closed form."""
    path = tiny.with_name("seeds_config.py")
    changes = """
every_model = get_config


def get_config(scale=""):
    config = every_model(scale)
    with config.unlocked():
        del config.models.a_unet, config.models.optimum
    return config
"""
    path.write_text(tiny.read_text() + changes)
    return path


@pytest.mark.slow
def test_a_packed_study_leaves_what_an_unpacked_one_leaves(seeds, tmp_path, reprojax):
    one_by_one, workdir = tmp_path / "a", tmp_path / "b"
    code, out, err = reprojax(f"--config={seeds}", f"--workdir={one_by_one}", *SHORT)
    assert code == 0 and "train seed1 (" in out, err  # none are packed unless asked for
    command = (f"--config={seeds}", f"--workdir={workdir}", *SHORT)
    code, out, err = reprojax(*command, "--config.loop.pack=4")
    assert code == 0, err
    assert "train 2 packed (b_uvit, seed1)" in out and "trained 2" in out
    assert trained(workdir) == trained(one_by_one)
    want = weights(one_by_one)
    assert len(want) == 2
    for name, tensors in weights(workdir).items():
        a = np.concatenate([v.ravel() for _, v in sorted(tensors.items())])
        b = np.concatenate([v.ravel() for _, v in sorted(want[name].items())])
        assert np.linalg.norm(a - b) < 1e-4 * np.linalg.norm(b)
    # The same folder whatever is packed: nothing is left to do.
    code, out, err = reprojax(*command, "--config.loop.pack=auto")
    assert code == 0 and "nothing recomputed" in out, err


def test_one_of_a_pack_that_diverged_is_the_only_one_that_failed(
    seeds, tmp_path, reprojax, monkeypatch
):
    real = packs.train_pack

    def one_diverges(context, cells):
        errors = real(context, cells)
        context.files(cells[0]).weights.unlink()
        return errors | {cells[0].name: DivergedError("b_uvit: loss is not finite")}

    monkeypatch.setattr(packs, "train_pack", one_diverges)
    command = (f"--config={seeds}", f"--workdir={tmp_path / 'w'}", *SHORT)
    code, _, err = reprojax(*command, "--config.loop.pack=2")
    assert code == 4 and "b_uvit" in err and "seed1" not in err, err
    (failure,) = (tmp_path / "w").glob("cells/*/failed.json")
    assert json.loads(failure.read_text())["error"] == "DivergedError"
    (name,) = weights(tmp_path / "w")
    assert name.startswith("seed1-")


def test_a_pack_that_breaks_is_given_up_and_each_trained_alone(
    seeds, tmp_path, reprojax, monkeypatch
):
    def breaks(context, cells):
        raise MemoryError("too much")

    monkeypatch.setattr(packs, "train_pack", breaks)
    command = (f"--config={seeds}", f"--workdir={tmp_path / 'w'}", *SHORT)
    code, out, err = reprojax(*command, "--config.loop.pack=2")
    assert code == 0, err
    assert out.count("pack: given up") == 1 and len(weights(tmp_path / "w")) == 2
