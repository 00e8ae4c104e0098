"""The typed rows of scores.json, their one maker, and reading what schema 1 wrote."""

import json
from dataclasses import replace

import numpy as np
import pytest

from reprojax.errors import InputError
from reprojax.scoring import maker
from reprojax.scoring.calibration import Thresholds, choose_thresholds
from reprojax.scoring.chance import chance_within, shared_groups
from reprojax.scoring.descriptors import PixelDescriptor
from reprojax.scoring.frechet import Projection, frechet_distance
from reprojax.scoring.maker import make_scores
from reprojax.scoring.models import gl, memorized
from reprojax.scoring.pairs import mae_chance, mae_pairs, mae_score, rp, rp_chance
from reprojax.scoring.scores import CellRow, Scores
from reprojax.scoring.sets import RealSet, SampleSet

THRESHOLDS = Thresholds(0.5, 0.9)


def cell(name, **facts):
    return CellRow(hash=f"{len(name):016x}", kind="network", family="unet", **facts)


@pytest.fixture
def sets():
    """Samples of four models, their training sets, held-out images and noises."""
    rng = np.random.default_rng(0)

    def images(n):
        return rng.integers(0, 256, (n, 9, 9, 1), dtype=np.uint8)

    large, heldout, x = images(90), images(40), images(30)
    near = np.clip(large[:30].astype(int) + rng.integers(-4, 5, (30, 9, 9, 1)), 0, 255)
    near = near.astype(np.uint8)
    describe = PixelDescriptor.fit([large])

    def real(y):
        return RealSet(y, describe(y), len(y))

    samples = [
        SampleSet("copier", near, describe(near), "large"),
        SampleSet("stranger", x, describe(x), "small"),
        SampleSet("images", x, None, "large"),
        SampleSet("features", None, describe(x), None),
    ]
    return samples, {"small": real(large[:20]), "large": real(large)}, real(heldout)


def scored(sets, samples=None, **options):
    samples, (_, trains, heldout) = samples or sets[0], sets
    cells = {s.name: cell(s.name) for s in samples}
    return make_scores(samples, cells, trains, heldout, "pixels", THRESHOLDS, **options)


def test_json_and_back_is_the_same(sets):
    noises = np.random.default_rng(1).standard_normal((20, 9, 9, 1)).astype(np.float32)
    header = {"study": {"name": "s", "hash": "h"}, "noise": {"fingerprint": "f", "n": 30}}
    scores = scored(sets, noises=noises, header=header)
    text = json.dumps(scores.to_json(), allow_nan=False)
    again = Scores.from_json(json.loads(text))
    assert again == scores and json.dumps(again.to_json()) == text
    assert len(scores.transport) == 3 and scores.transport[0].n == 20
    assert scores.to_json()["schema"] == 2
    # optional fields of a row are left out, those of the contract stay even where they are null
    rows = scores.to_json()
    assert "condition" not in rows["pairs"][0] and "params" not in rows["cells"]["copier"]
    assert rows["models"][2]["threshold"] is None and rows["models"][2]["point"] is None


def test_rows_can_be_looked_up_in_either_order(sets):
    scores = scored(sets)
    row = scores.pair("features", "copier")
    assert (row.a, row.b, row.score) == ("copier", "features", "rp")
    assert scores.pair("copier", "stranger", "mae").threshold == 15.0
    assert scores.pair("copier", "images") is None
    assert scores.model("copier", "gl").threshold == scores.threshold("gl") == 0.9
    assert scores.descriptor == "pixels" and scores.threshold("rp") == 0.5


def test_points_say_how_thresholds_came_about(sets):
    scores = scored(sets)
    points = {(r.score, r.point) for r in (*scores.pairs, *scores.models)}
    fixed = {("mae", "given"), ("memorized", "given"), ("frechet", None)}
    assert points == {("rp", "alike"), ("gl", "copy")} | fixed


def test_chance_of_conditional_models_is_within_conditions(sets):
    groups = np.arange(30) % 3
    # Three kinds of image, one for each condition: any two noises of a condition agree.
    kinds = np.stack([np.full((9, 9, 1), v, np.uint8) for v in (0, 90, 250)])[groups]
    features = np.eye(3, 4, dtype=np.float32)[groups]
    a = SampleSet("a", kinds, features, None, groups)
    b = replace(a, name="b")
    rows = {row.score: row for row in scored(sets, [a, b]).pairs}
    assert rows["rp"].chance == rows["mae"].chance == 1.0
    assert rows["rp"].condition == rows["mae"].condition == "same"
    free = [replace(a, groups=None), b]  # one of the two takes no condition
    rows = {row.score: row for row in scored(sets, free).pairs}
    assert rows["rp"].condition is None
    assert rows["rp"].chance == pytest.approx(3 * 10 * 9 / (30 * 29), abs=1e-6)


def test_chance_within_weights_groups_by_their_pairs():
    rng = np.random.default_rng(2)
    groups = np.repeat([0, 1, 2, 3], [9, 2, 40, 1])
    a, b = (rng.integers(0, 60, (52, 3, 3, 1), dtype=np.uint8) for _ in range(2))
    got = chance_within(mae_chance, a, b, groups, mae_pairs)
    hits = trials = 0
    for group in (0, 1, 2):
        x, y = a[groups == group], b[groups == group]
        for shift in range(1, min(32, len(x) - 1) + 1):
            hits += len(x) * mae_score(x, np.roll(y, -shift, axis=0))
            trials += len(x)
    assert got == pytest.approx(hits / trials) and 0 < got < 1


def test_conditions_that_no_two_noises_share_make_no_groups():
    groups, alone = np.array([0, 1, 0]), np.arange(3)
    assert shared_groups(groups, groups) is groups
    assert shared_groups(groups, None) is None and shared_groups(alone, alone) is None


def test_values_are_those_of_the_functions(sets):
    samples, _, _ = sets
    row = scored(sets).pair("copier", "stranger")
    features = [s.features for s in samples[:2]]
    assert row.value == round(rp(*features, 0.5), 6)
    assert row.chance == round(rp_chance(*features, 0.5), 6)


def test_schema_1_is_read_with_its_points():
    value = {
        "schema": 1,
        "noise": None,
        "cells": {"a": {"hash": "0", "kind": "external", "family": "external", "later": 1}},
        "pairs": [
            dict(
                a="a",
                b="b",
                descriptor=d,
                threshold=t,
                score=s,
                value=1,
                ci95=[0, 1],
                chance=0,
                n=2,
            )
            for d, t, s in (("pixels", 0.9, "rp"), ("pixels", 15.0, "mae"), ("features", 0.6, "rp"))
        ],
        "models": [
            dict(name="a", score=s, descriptor="pixels", threshold=None, value=1, ci95=[0, 1])
            | dict(reference=None, n=2, n_train=3)
            for s in ("gl", "memorized", "frechet")
        ],
    }
    scores = Scores.from_json(value)
    assert [row.point for row in scores.pairs] == ["alike", "given", "paper"]
    assert [row.point for row in scores.models] == ["copy", "given", None]
    assert scores.cells["a"].solver == "" and scores.pairs[0].ci95 == (0, 1)
    value["calibration"] = {"rp": {"source": "--threshold"}, "gl": None}
    assert Scores.from_json(value).pairs[0].point == "given"
    assert Scores.from_json(value).to_json()["schema"] == 2


def test_every_committed_result_can_be_read(repo_root):
    paths = sorted((repo_root / "results").glob("*/scores.json"))
    assert len(paths) >= 8
    for path in paths:
        scores, value = Scores.read(path), json.loads(path.read_text())
        assert len(scores.pairs) == len(value["pairs"]) and list(scores.cells) == list(
            value["cells"]
        )
        again = scores.to_json()
        for kind in ("pairs", "models"):
            for old, new in zip(value[kind], again[kind], strict=True):
                assert {k: new[k] for k in old} == old
        for kind in ("distances", "rp_curves", "transport", "cells"):
            if value["schema"] == 1 and kind in value:
                assert again[kind] == value[kind], (path, kind)


@pytest.mark.parametrize(
    "value, message",
    [
        ({"schema": 3}, "schema=3: must be 1 or 2"),
        ({}, "schema: must be 1 or 2"),
        ({"schema": 2, "cells": {}, "pairs": [{"a": "x"}], "models": []}, "rows of schema 2"),
        ({"schema": 2}, "rows of schema 2"),
    ],
)
def test_what_is_no_scores_json_is_refused(value, message):
    with pytest.raises(InputError, match=message):
        Scores.from_json(value)


def test_an_unreadable_file_is_refused(tmp_path):
    (tmp_path / "scores.json").write_text("{")
    for path in (tmp_path, tmp_path / "scores.json", tmp_path / "none"):
        with pytest.raises(InputError, match="must be a readable"):
            Scores.read(path)


def test_thresholds_say_what_they_rest_on(sets):
    samples, trains, heldout = sets
    chosen = choose_thresholds(trains["large"], heldout, descriptor="pixels")
    assert (chosen.rp_point, chosen.gl_point) == ("alike", "copy")
    assert chosen.calibration["rp"] == {
        "source": "training images",
        "n": 90,
        "rate": 1e-3,
        "threshold": chosen.rp,
    }
    assert chosen.calibration["gl"]["source"] == "held-out images"
    own = ("samples of x", RealSet(None, samples[0].features, 30))
    alone = choose_thresholds(None, None, descriptor="pixels", samples=own)
    assert alone.calibration["gl"] is None and alone.calibration["rp"]["source"] == "samples of x"
    paper = choose_thresholds(None, None, descriptor="features")
    assert (paper.rp, paper.rp_point) == (0.6, "paper")
    given = choose_thresholds(trains["large"], None, descriptor="pixels", given=0.25)
    assert (given.rp, given.gl, given.gl_point) == (0.25, 0.25, "given")


def test_rows_come_in_order_and_leave_out_what_cannot_be_had(sets):
    scores = scored(sets)
    assert [(row.a, row.b, row.score) for row in scores.pairs] == [
        ("copier", "stranger", "rp"),
        ("copier", "stranger", "mae"),
        ("copier", "images", "mae"),
        ("copier", "features", "rp"),
        ("stranger", "images", "mae"),
        ("stranger", "features", "rp"),
    ]
    assert [(row.name, row.score) for row in scores.models] == [
        ("copier", "gl"),
        ("copier", "memorized"),
        ("copier", "frechet"),
        ("stranger", "gl"),
        ("stranger", "memorized"),
        ("stranger", "frechet"),
        ("images", "memorized"),
    ]
    assert scores.pairs[-1].value == scores.pairs[-2].value == 1.0  # the same samples
    assert [(row.a, row.b) for row in scores.distances] == [
        ("copier", "stranger"),
        ("copier", "images"),
        ("stranger", "images"),
    ]
    assert scores.rp_curves.rows == () and scores.transport == ()


def test_rows_have_the_contract_and_the_values_of_the_functions(sets):
    samples, train_sets, heldout = sets
    scores = scored(sets)
    pairs = scores.to_json()["pairs"]
    keys = ["a", "b", "descriptor", "point", "threshold", "score", "value", "ci95", "chance", "n"]
    assert all(list(row) == keys for row in pairs)
    assert [row["threshold"] for row in pairs[:2]] == [0.5, 15.0]
    train, sample = train_sets["large"], samples[0]
    assert scores.to_json()["models"][0] == {
        "name": "copier",
        "score": "gl",
        "descriptor": "pixels",
        "point": "copy",
        "threshold": 0.9,
        "value": round(gl(sample.features, train.features, 0.9), 6),
        "ci95": list(scores.model("copier", "gl").ci95),
        "reference": round(gl(heldout.features, train.features, 0.9), 6),
        "n": 30,
        "n_train": 90,
    }
    row = scores.model("copier", "memorized")
    assert row.threshold == 0.333333 and row.value == 1.0
    assert row.reference == memorized(heldout.images, train.images)
    row = scores.model("stranger", "frechet")
    projection = Projection.fit(train.features)  # of the largest set, for every model
    x, y = (projection(s.features) for s in (samples[1], heldout))
    assert row.threshold is None and row.n_train == 20
    assert row.value == round(frechet_distance(x, y), 6)
    few = projection(train_sets["small"].features)
    assert row.reference == round(frechet_distance(few, y), 6)
    first = projection(train.features[:30])  # as many as there are samples
    reference = scores.model("copier", "frechet").reference
    assert reference == round(frechet_distance(first, y), 6)


def test_without_heldout_images_references_are_null_and_frechet_is_absent(sets):
    models = scored((*sets[:2], None)).models
    assert {row.score for row in models} == {"gl", "memorized"}
    assert all(row.reference is None for row in models)


def test_the_numbers_are_plain_and_the_same_every_time(sets):
    first, second = (json.dumps(scored(sets).to_json()) for _ in range(2))
    assert first == second
    scores = json.loads(first)
    for row in scores["pairs"] + scores["models"]:
        assert row["value"] == round(row["value"], 6)
        assert row["ci95"][0] <= row["value"] <= row["ci95"][1]


def test_each_training_set_is_judged_once_and_progress_is_counted(sets, monkeypatch):
    judged, progress = [], []
    original = maker._Judge.__init__

    def counting(self, train, *args):
        judged.append(train.n)
        original(self, train, *args)

    monkeypatch.setattr(maker._Judge, "__init__", counting)
    scored(sets, progress=lambda *args: progress.append(args))
    assert sorted(judged) == [20, 90]
    assert progress == [(i, 12) for i in range(1, 13)]  # 6 pairs, 3 models, 3 distances


def test_sets_that_do_not_compare_are_refused(sets):
    samples, _, _ = sets
    short = SampleSet("short", samples[0].images[:5], samples[0].features[:5])
    for bad, message in (
        ([samples[0], short], "samples short: has 5 samples; must have 30, as copier has"),
        ([samples[0], samples[0]], "a name that no other set has"),
        ([SampleSet("one", short.images[:1])], "has 1 samples; must have at least 2"),
    ):
        with pytest.raises(InputError, match=message):
            scored(sets, bad)
