import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("reprojax.data.source")

from PIL import Image

from reprojax import score
from reprojax.runtime.workdir import Workdir
from reprojax.sampling.noise import NoiseBank
from reprojax.scoring.descriptors import PixelDescriptor

N = 12


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Sample files of every kind, in the current folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)

    def images(n, shape=(4, 4, 3)):
        return rng.integers(0, 256, (n, *shape), dtype=np.uint8)

    a, train = images(N), images(40)
    near = np.clip(a.astype(int) + 3, 0, 255).astype(np.uint8)
    np.savez("a.npz", images=a)
    np.savez("near.npz", images=near)
    np.savez("train.npz", images=train)
    np.savez("heldout.npz", images=images(20))
    np.savez("short.npz", images=a[:5])
    np.savez("wide.npz", images=images(N, (4, 5, 3)))
    np.savez("gray.npz", images=a[..., 0])
    np.savez("float.npz", images=a / 255)
    np.savez("other.npz", x=a)
    features = rng.standard_normal((N, 6)).astype(np.float32)
    np.savez("fa.npz", features=features)
    np.savez("fb.npz", features=-features)
    np.savez("fnan.npz", features=np.full((N, 6), np.nan, np.float32))
    np.savez("f64.npz", features=features.astype(np.float64))
    np.savez("noise.npz", noise=NoiseBank(0, N, (4, 4, 3)).all())
    np.savez("named.npz", noise=np.zeros((N, 4, 4, 3), np.float32), fingerprint="abc")
    np.savez("few.npz", noise=np.zeros((3, 4, 4, 3), np.float32))
    (tmp_path / "broken.npz").write_bytes(b"not a zip")
    folder = tmp_path / "folder"
    folder.mkdir()
    with zipfile.ZipFile("folder.zip", "w") as archive:
        for i, image in enumerate(a):
            Image.fromarray(image).save(folder / f"{i}.png")
            archive.write(folder / f"{i}.png", f"{i}.png")
    return tmp_path


def run(*argv):
    score.main([*argv, "--out", "out"])
    return json.loads(Path("out/scores.json").read_text())


def test_two_sets_with_training_and_heldout_images(files, capsys):
    argv = ["--samples", "a=a.npz", "--samples", "b=near.npz"]
    argv += ["--train", "train.npz", "--heldout", "heldout.npz", "--noise", "noise.npz"]
    scores = run(*argv)
    keys = ["schema", "study", "noise", "data", "cells", "pairs", "models", "calibration"]
    keys += ["distances", "rp_curves", "transport"]
    assert list(scores) == keys and scores["schema"] == 2
    assert scores["noise"] == {"fingerprint": NoiseBank(0, N, (4, 4, 3)).fingerprint(), "n": N}
    cell = scores["cells"]["a"]
    assert cell["kind"] == "external" and cell["n_train"] == 40 and len(cell["hash"]) == 16
    pairs = {row["score"]: row for row in scores["pairs"]}
    assert pairs["rp"]["value"] == pairs["mae"]["value"] == 1.0
    assert pairs["rp"]["chance"] < 0.2 and pairs["rp"]["descriptor"] == "pixels"
    assert len(scores["models"]) == 6
    row = scores["models"][0]
    assert row["score"] == "gl" and row["reference"] == 0.95 and row["n_train"] == 40
    assert scores["calibration"]["rp"]["threshold"] == pairs["rp"]["threshold"]
    assert scores["calibration"]["gl"]["source"] == "held-out images"
    out = capsys.readouterr().out
    assert "chance" in out and "held-out" in out and "wrote out/scores.json" in out
    first = Path("out/scores.json").read_bytes()
    run(*argv)
    assert Path("out/scores.json").read_bytes() == first
    page = Path("out/report/index.html").read_text()
    assert "Scores of a, b" in page and "python -m reprojax.score --samples a=a.npz" in page
    assert {p.name for p in Path("out/figures").iterdir()} >= {"samples.png", "gl.png"}


def test_one_set_with_training_images_gives_models_only(files):
    scores = run("--samples", "[red]=a.npz", "--train", "train.npz", "--noise", "named.npz")
    assert scores["pairs"] == [] and scores["noise"]["fingerprint"] == "abc"
    assert {row["score"] for row in scores["models"]} == {"gl", "memorized"}
    assert all(row["reference"] is None for row in scores["models"])
    assert "each against the others" in scores["calibration"]["gl"]["source"]


def test_given_features_need_no_descriptor(files):
    scores = run("--samples", "a=fa.npz", "--samples", "b=fb.npz")
    (row,) = scores["pairs"]
    assert (row["score"], row["descriptor"], row["threshold"]) == ("rp", "features", 0.6)
    assert row["value"] == 0.0 and scores["models"] == [] and scores["noise"] is None
    scores = run("--samples", "a=fa.npz", "--samples", "b=fa.npz", "--threshold", "0.9")
    assert scores["pairs"][0]["value"] == 1.0 and scores["pairs"][0]["threshold"] == 0.9


def test_a_folder_a_zip_and_an_npz_of_the_same_images_are_the_same(files):
    argv = [f"--samples={name}={path}" for name, path in zip("xyz", ("folder", "folder.zip"))]
    scores = run(*argv, "--samples=z=a.npz")
    assert len({cell["hash"] for cell in scores["cells"].values()}) == 1
    assert [row["value"] for row in scores["pairs"]] == [1.0] * 6
    assert scores["calibration"]["rp"]["source"] == "samples of x"
    assert scores["calibration"]["gl"] is None


@pytest.mark.parametrize(
    "argv, message",
    [
        ("", "--samples"),
        ("--samples a.npz --samples b=a.npz", "NAME=PATH"),
        ("--samples =a.npz --samples b=a.npz", "NAME=PATH"),
        ("--samples a=a.npz", "one set needs --train"),
        ("--samples a=a.npz --samples a=near.npz", "another name"),
        ("--samples a=a.npz --samples b=none.npz", "--samples b"),
        ("--samples a=a.npz --samples b=none", "--samples b"),
        ("--samples a=a.npz --samples b=broken.npz", "--samples b"),
        ("--samples a=a.npz --samples b=other.npz", "`images` or `features`"),
        ("--samples a=a.npz --samples b=float.npz", "--samples b"),
        ("--samples a=a.npz --samples b=short.npz", "samples b: has 5 samples"),
        ("--samples a=a.npz --samples b=wide.npz", "--samples b: has images of shape"),
        ("--samples a=a.npz --samples b=gray.npz", "--samples b: has images of shape"),
        ("--samples a=a.npz --samples b=fa.npz", "--samples b: has features alone"),
        ("--samples a=fa.npz --samples b=fnan.npz", "NaN"),
        ("--samples a=fa.npz --samples b=f64.npz", "float32"),
        ("--samples a=a.npz --samples b=near.npz --train fa.npz", "--train: has features alone"),
        ("--samples a=a.npz --samples b=near.npz --train wide.npz", "images of shape"),
        ("--samples a=a.npz --samples b=near.npz --heldout heldout.npz", "together with --train"),
        ("--samples a=a.npz --samples b=near.npz --descriptor pixels:w.npz", "must be pixels"),
        ("--samples a=a.npz --samples b=near.npz --descriptor pixel", "did you mean 'pixels'"),
        ("--samples a=a.npz --samples b=near.npz --weights w.npz", "--weights"),
        ("--samples a=a.npz --samples b=near.npz --threshold 2", "between -1 and 1"),
        ("--samples a=a.npz --samples b=near.npz --threshold nan", "between -1 and 1"),
        ("--samples a=a.npz --samples b=near.npz --threshold x", "invalid float"),
        ("--samples a=a.npz --samples b=near.npz --noise a.npz", "'noise'"),
        ("--samples a=a.npz --samples b=near.npz --noise few.npz", "at least 12"),
        ("--samples a=a.npz --samples b=near.npz --unknown 1", "--unknown"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(files, capsys, argv, message):
    with pytest.raises(SystemExit) as caught:
        run(*argv.split())
    captured = capsys.readouterr()
    assert caught.value.code == 2
    assert captured.err.count("\n") == 1 and captured.err.endswith("\n")
    assert message in captured.err
    assert captured.out == "" and not (files / "out").exists()


def test_an_out_that_is_a_file_is_refused(files, capsys):
    (files / "out").write_text("mine")
    with pytest.raises(SystemExit) as caught:
        run("--samples", "a=a.npz", "--samples", "b=near.npz")
    assert caught.value.code == 2 and "--out" in capsys.readouterr().err
    assert (files / "out").read_text() == "mine"


@pytest.mark.parametrize("name", ["quickstart", "score"])
def test_the_folder_of_a_study_is_left_alone(name, files, capsys):
    study = Workdir("out", name, "a")
    study.claim()
    study.own("scores.json").write_text("{}")
    with pytest.raises(SystemExit) as caught:
        run("--samples", "a=a.npz", "--samples", "b=near.npz")
    err = capsys.readouterr().err
    assert caught.value.code == 2 and "--out='out': must be a new or empty folder" in err
    assert err.count("\n") == 1 and Path("out/scores.json").read_text() == "{}"


def test_a_folder_with_other_files_is_refused_with_the_reason(files, capsys):
    (files / "out").mkdir()
    (files / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(SystemExit) as caught:
        run("--samples", "a=a.npz", "--samples", "b=near.npz")
    err = capsys.readouterr().err
    assert caught.value.code == 2 and "--out='out': holds files of something else" in err
    assert (files / "out" / "thesis.tex").read_text() == "mine"


def test_training_images_are_described_once(files, monkeypatch):
    sizes, describe = [], PixelDescriptor.__call__
    monkeypatch.setattr(
        PixelDescriptor, "__call__", lambda self, x: sizes.append(len(x)) or describe(self, x)
    )
    run("--samples", "a=a.npz", "--samples", "b=near.npz", "--train", "train.npz")
    assert sizes.count(40) == 1


def test_other_samples_take_the_place_of_the_ones_before(files):
    run("--samples", "a=a.npz", "--samples", "b=near.npz", "--train", "train.npz")
    scores = run("--samples", "c=a.npz", "--samples", "d=near.npz")
    assert list(scores["cells"]) == ["c", "d"] and scores["models"] == []
    assert {p.name.split("-")[0] for p in Path("out/cells").iterdir()} == {"c", "d"}


def test_features_alone_make_a_page_too(files):
    run("--samples", "a=fa.npz", "--samples", "b=fb.npz")
    page = Path("out/report/index.html").read_text()
    assert "Pairs" in page and not Path("out/figures/samples.png").exists()


def test_help_says_how_thresholds_come_about(capsys):
    with pytest.raises(SystemExit) as caught:
        score.main(["--help"])
    assert caught.value.code == 0 and "calibrated" in capsys.readouterr().out
