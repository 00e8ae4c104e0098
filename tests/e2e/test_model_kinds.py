"""Conditional, given and contrast models as cells: through the scores and every analysis."""

import json

import numpy as np
import pytest

CONDITIONAL = """
from reprojax import config as rc

UVIT = dict(width=8, depth=2, num_heads=2, patch=4, num_classes=10)
UNET = dict(width=4, multipliers=(1,), num_blocks=1, attention=(), num_classes=10)


def get_config(scale=""):
    rc.require_scale(scale, ["few"])
    config = rc.default_config("conditional")
    config.data.update(n_train=24, n_heldout=12)
    config.noise.n = 20
    config.sampling.update(num_steps=2, batch_size=20)
    config.training.update(steps=4, batch_size=8, warmup_steps=1)
    config.loop.update(eval_images=4, snapshots=2)
    rc.add_models(
        config,
        unet=rc.network_model("unet", network=UNET, n_train=12),
        unet_more=rc.network_model("unet", network=UNET),
        uvit=rc.network_model("uvit", network=UVIT, n_train=12, seed=1),
        uvit_more=rc.network_model("uvit", network=UVIT, seed=1),
        plain=rc.network_model("uvit", network=dict(UVIT, num_classes=0), seed=2),
        optimum=rc.closed_form("optimum"),
    )
    networks = ("unet", "uvit")
    if scale == "few":
        with config.unlocked():
            del config.models["unet"], config.models["unet_more"], config.models["uvit_more"]
        rc.add_analysis(config, "encoding", cells=("uvit", "plain"), n=4, num_steps=2)
        rc.add_analysis(config, "jacobian", cells=("uvit",), n=2, sigmas=(0.5,))
        return config
    rc.add_analysis(config, "solvers", cells=networks, n=6, solvers=("ddim", "tsit5"), nfe=(3,),
                    limit_nfe=4, tolerances=(0.5,))
    rc.add_analysis(config, "encoding", cells=(*networks, "plain"), n=4, num_steps=2)
    rc.add_analysis(config, "jacobian", cells=networks, n=2, sigmas=(0.5,))
    rc.add_analysis(config, "ceiling", cells=networks, n=4, num_steps=(1, 2))
    rc.add_analysis(config, "local", cells=("uvit_more", "unet"), n=4, calibrate_on=2, radii=(0, 1),
                    sigmas=(0.5, 2.0))
    rc.add_analysis(config, "shared_solver", cells=(*networks, "plain"), n=6)
    grid = ("unet", "unet_more", "uvit", "uvit_more")
    rc.add_analysis(config, "grid", cells=grid, n=12)
    rc.add_analysis(config, "along_training", cells=grid, n=6)
    return config
"""


@pytest.fixture
def conditional(tmp_path):
    path = tmp_path / "conditional.py"
    path.write_text(CONDITIONAL)
    return f"--config={path}"


def test_a_conditional_transformer_gets_its_labels(conditional, reprojax, tmp_path):
    workdir = tmp_path / "w"
    code, out, err = reprojax(f"{conditional}:few", f"--workdir={workdir}")
    assert (code, err) == (0, "") and "analysed 2" in out
    scores = json.loads((workdir / "scores.json").read_text())
    assert scores["conditions"]["num_classes"] == 10


@pytest.mark.slow  # it compiles the programs of four networks under eight analyses
def test_conditional_networks_go_through_every_analysis(conditional, reprojax, tmp_path):
    from reprojax.analyses.table import ANALYSES

    workdir = tmp_path / "w"
    code, out, err = reprojax(conditional, f"--workdir={workdir}")
    assert (code, err) == (0, "") and f"analysed {len(ANALYSES)}" in out
    assert {p.stem for p in (workdir / "analyses").glob("*.json")} == set(ANALYSES)
    scores = json.loads((workdir / "scores.json").read_text())
    assert scores["conditions"]["num_classes"] == 10 and len(scores["conditions"]["fingerprint"])
    assert scores["cells"]["unet"]["num_classes"] == 10
    assert "num_classes" not in scores["cells"]["plain"]
    rows = {frozenset((r["a"], r["b"])): r for r in scores["pairs"] if r["score"] == "rp"}
    assert rows[frozenset(("unet", "uvit"))]["condition"] == "same"
    assert "condition" not in rows[frozenset(("unet", "plain"))]
    assert "same condition" in (workdir / "report" / "index.html").read_text()

    encoding = json.loads((workdir / "analyses" / "encoding.json").read_text())
    assert len(encoding["round_trips"]) == 6 and len(encoding["transplants"]) == 12


def test_a_conditional_network_needs_labels(conditional, reprojax, tmp_path):
    np.savez(tmp_path / "images.npz", images=np.zeros((50, 8, 8), np.uint8))
    data = ["--config.data.source=npz", f"--config.data.path={tmp_path / 'images.npz'}"]
    code, _, err = reprojax(conditional, f"--workdir={tmp_path / 'w'}", *data)
    assert code == 2 and err.count("\n") == 1, err
    assert "models.unet.network.num_classes=10: must fit the training images, without labels" in err
    assert not (tmp_path / "w").exists()


OTHERS = """
from reprojax import config as rc


def get_config(scale=""):
    config = rc.default_config("others")
    config.data.update(n_train=60, n_heldout=30)
    config.noise.n = 20
    config.sampling.num_steps = 2
    rc.use_baselines(config)
    rc.add_models(
        config,
        theirs=rc.external_model(PATH),
        ppca=rc.contrast_model("ppca"),
        ppca_again=rc.contrast_model("ppca", seed=1, options=dict(latent=8)),
    )
    return config
"""


@pytest.fixture
def others(tmp_path):
    """A study with given samples and contrast models; and the path of the samples."""
    samples, path = tmp_path / "theirs.npz", tmp_path / "others.py"
    path.write_text(f"PATH = {str(samples)!r}\n{OTHERS}")
    return f"--config={path}", samples


def images(n, shape=(8, 8, 1)):
    return np.random.default_rng(0).integers(0, 256, (n, *shape), np.uint8)


def test_given_samples_and_contrast_models_stand_beside_others(others, reprojax, tmp_path):
    config, path = others
    np.savez(path, images=images(25))  # more than there are noises: the first are used
    code, out, err = reprojax(config, f"--workdir={tmp_path / 'w'}")
    assert (code, err) == (0, "") and "trained 2, sampled 4, described 5" in out
    scores = json.loads((tmp_path / "w" / "scores.json").read_text())
    kinds = {name: cell["kind"] for name, cell in scores["cells"].items()}
    assert kinds["theirs"] == "external" and kinds["ppca"] == kinds["ppca_again"] == "contrast"
    assert scores["cells"]["ppca"]["params"] == 64 * 17 and scores["cells"]["ppca"]["nfe"] == 1
    assert all(row["n"] == 20 for row in scores["pairs"])
    assert {m["name"] for m in scores["models"] if m["score"] == "frechet"} == set(kinds)
    code, out, _ = reprojax(config, f"--workdir={tmp_path / 'w'}")
    assert code == 0 and "nothing recomputed" in out
    # other samples under the same name are another cell
    np.savez(path, images=images(25)[::-1])
    code, _, err = reprojax(config, f"--workdir={tmp_path / 'w'}")
    assert code == 2 and "another config" in err
    code, out, _ = reprojax(config, "--dry_run")
    assert code == 0 and "ppca" in out and "theirs" in out


@pytest.mark.parametrize(
    "arrays, message",
    [
        (dict(images=images(19)), "has 19 images; must have one for each of 20 noises"),
        (dict(images=images(20, (9, 9, 1))), "must hold images of shape (8, 8, 1)"),
        (dict(features=np.ones((20, 3), np.float32)), "must hold images"),
        (dict(x=np.ones(3)), "must be an .npz with `images` or `features`"),
        (None, "must be an .npz file that can be read"),
    ],
)
def test_given_samples_that_do_not_fit_are_named(arrays, message, others, reprojax, tmp_path):
    config, path = others
    if arrays:
        np.savez(path, **arrays)
    code, _, err = reprojax(config, f"--workdir={tmp_path / 'w'}")
    assert code == 2 and err.count("\n") == 1, err
    assert f"models.theirs.path={str(path)!r}: {message}" in err, err
    assert not (tmp_path / "w").exists()


def test_a_finished_folder_of_schema_1_is_done(tiny, reprojax, tmp_path):
    """What an earlier version scored is read, reported again, and not made again."""
    workdir = tmp_path / "w"
    assert reprojax(f"--config={tiny}", f"--workdir={workdir}")[0] == 0
    path = workdir / "scores.json"
    scores = json.loads(path.read_text())
    old = {**scores, "schema": 1}
    del old["calibration"]
    for kind in ("pairs", "models"):
        old[kind] = [{k: v for k, v in row.items() if k != "point"} for row in scores[kind]]
    path.write_text(json.dumps(old))
    code, out, err = reprojax(f"--config={tiny}", f"--workdir={workdir}")
    assert (code, err) == (0, "") and "nothing recomputed" in out
    assert json.loads(path.read_text())["schema"] == 1
    page = (workdir / "report" / "index.html").read_text()
    assert all(name in page for name in scores["cells"])
