"""A grid of capacity and number of images through the command line: both of its analyses."""

import json
import textwrap

import pytest

GRID = """
from reprojax import config as rc

SIZES = (8, 24, 96)


def get_config(scale=""):
    rc.require_scale(scale, [])
    config = rc.default_config("tinygrid")
    config.data.update(n_train=max(SIZES), n_heldout=60, part="A")
    config.noise.n = 24
    config.sampling.update(num_steps=4, batch_size=24)
    config.training.update(steps=30, batch_size=16, warmup_steps=3, learning_rate=5e-3)
    config.loop.update(log_every=10, eval_every=30, eval_images=8, checkpoint_every=30, snapshots=3)
    networks, closed = {}, {}

    def add(name, width, n, **fields):
        network = dict(width=width, depth=2, num_heads=2, patch=4)
        networks[name] = rc.network_model("uvit", n_train=n, network=network, **fields)

    for n in SIZES:
        add(f"b_{n}", 16, n, seed=1)
        add(f"a_{n}", 8, n)
        closed |= {f"{f}_{n}": rc.closed_form(f, n_train=n) for f in ("optimum", "gaussian")}
    add("again", 8, 24, seed=2)
    add("apart", 8, 24, seed=2, part="B")
    rc.add_models(config, **networks, **closed)
    rc.add_analysis(config, "grid", cells=(*networks, *closed), n=24)
    rc.add_analysis(config, "along_training", cells=("a_8", "a_24", "a_96", "b_24", "again"), n=16)
    return config
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tinygrid.py"
    path.write_text(textwrap.dedent(GRID))
    return f"--config={path}"


@pytest.mark.slow
def test_a_grid_is_analysed_from_its_facts_and_along_training(config, reprojax, tmp_path):
    workdir = tmp_path / "w"
    code, out, err = reprojax(config, f"--workdir={workdir}")
    assert (code, err) == (0, "") and "analysed 2" in out
    assert "valley of RP" in out and "slope in log N" in out
    scores = json.loads((workdir / "scores.json").read_text())
    grid, training = (
        json.loads((workdir / "analyses" / f"{name}.json").read_text())
        for name in ("grid", "along_training")
    )
    check_grid(grid, scores)
    check_training(training, scores)
    figures = ("grid", "grid_states", "grid_losses", "training", "training_times")
    assert all((workdir / "figures" / f"{name}.png").exists() for name in figures)
    page = (workdir / "report" / "index.html").read_text()
    assert "Capacity and dataset size" in page and "Along training" in page

    # what was sampled for the analysis is kept, so it is made again as it was, and quickly
    before = sorted((workdir / "analyses" / "samples").iterdir())
    assert len(before) == 5 * 3
    (workdir / "analyses" / "along_training.json").unlink()
    times = [path.stat().st_mtime_ns for path in before]
    code, out, _ = reprojax(config, f"--workdir={workdir}")
    assert code == 0 and "analysed 1" in out
    again = json.loads((workdir / "analyses" / "along_training.json").read_text())
    assert again == training and times == [path.stat().st_mtime_ns for path in before]


def check_grid(grid, scores):
    assert [c["label"] for c in grid["capacities"]] == ["uvit-8", "uvit-16"]
    assert grid["sizes"] == [8, 24, 96] and (grid["subset"], grid["seeds"]) == ("A", [0, 1])
    (pair,) = grid["pairs"]
    assert [(p["a"], p["b"]) for p in pair["points"]] == [(f"a_{n}", f"b_{n}") for n in (8, 24, 96)]
    stored = {(r["a"], r["b"]): r for r in scores["pairs"] if r["score"] == "rp"}
    assert pair["points"][1]["rp"]["value"] == stored["b_24", "a_24"]["value"]
    assert pair["points"][1]["rp"]["ci95"] == stored["b_24", "a_24"]["ci95"]
    assert len(grid["states"]) == len(grid["loss_gaps"]) == 6
    models = {(r["name"], r["score"]): r for r in scores["models"]}
    for row in grid["states"]:
        assert row["memorized"]["value"] == models[row["name"], "memorized"]["value"]
        total = sum(row[state]["value"] for state in ("memorized", "spurious", "generalized"))
        assert total == pytest.approx(1, abs=1e-5) and 0 <= row["reference"]["spurious"] <= 1
    (apart,) = grid["disjoint"]
    assert (apart["parts"]["b"], apart["seeds"]["b"]) == ("apart", "again")
    assert all(0 < apart[k]["cosine"] < 1 for k in ("parts", "seeds"))
    assert apart["parts"]["value"] == stored["a_24", "apart"]["value"]
    assert apart["ratio"] == pytest.approx(apart["parts"]["value"] / apart["seeds"]["value"])
    assert apart["gaussian"]["a"] == "gaussian_24"
    assert apart["seeds"]["a"] == apart["parts"]["a"] == "a_24"
    for model in grid["models"]:
        assert model["gl_crossing"] and model["memorization"]
        assert all(p["optimum"] and p["gaussian"] for p in model["points"])


def check_training(training, scores):
    cells = {c["name"]: c for c in training["cells"]}
    assert list(cells) == ["a_8", "a_24", "a_96", "b_24", "again"]
    for cell in cells.values():
        assert [row["step"] for row in cell["rows"]] == [1, 5, 30]
        assert cell["rows"][-1]["final"]["rp"] == 1.0
        first, last = cell["rows"][0], cell["rows"][-1]
        assert sum(last["loss_heldout"]) < sum(first["loss_heldout"])
        assert first["optimum"]["n"] == training["n"] == 16
    pairs = [(p["a"], p["b"], p["differ"]) for p in training["pairs"]]
    assert pairs == [("a_24", "again", "seed"), ("a_24", "b_24", "capacity")]
    group = next(g for g in training["groups"] if g["names"] == ["a_8", "a_24", "a_96"])
    for line in (group["t_mem"], group["t_gen"]):
        assert line["num_reached"] + line["num_never"] + line["num_at_once"] == 3


@pytest.mark.parametrize(
    "mistake, named",
    [
        ("--config.loop.snapshots=0", "loop.snapshots=0: must be at least 2"),
        ("--config.data.n_heldout=0", "data.n_heldout"),
        ("--config.analyses.grid.cells=('a_8','a_24')", "two capacities"),
        ("--config.analyses.grid.cells=('a_8','b_8')", "two numbers of training images"),
        ("--config.analyses.grid.cells=('optimum_8',)", "analyses.grid.cells"),
        ("--config.models.again.seed=0", "analyses.grid.cells='again'"),
        ("--config.analyses.along_training.cells=('optimum_8',)", "analyses.along_training.cells"),
        ("--config.analyses.along_training.quality=1.0", "analyses.along_training.quality"),
        ("--config.analyses.grid.memorized_share=1.0", "analyses.grid.memorized_share"),
    ],
)
def test_what_is_no_grid_is_named_before_anything_runs(mistake, named, config, reprojax, tmp_path):
    code, _, err = reprojax(config, f"--workdir={tmp_path / 'w'}", mistake)
    assert code == 2 and named in err and len(err.splitlines()) == 1, err
    assert not (tmp_path / "w").exists()
