import json

import numpy as np
import pytest

from reprojax.errors import InputError
from reprojax.scoring import scoreboard
from reprojax.scoring.descriptors import PixelDescriptor
from reprojax.scoring.frechet import Projection, frechet_distance
from reprojax.scoring.models import gl, memorized
from reprojax.scoring.scoreboard import SampleSet, TrainSet, nearest, score_all


@pytest.fixture
def study():
    rng = np.random.default_rng(0)

    def images(n):
        return rng.integers(0, 256, (n, 9, 9, 1), dtype=np.uint8)

    large, heldout, x = images(90), images(40), images(30)
    near = np.clip(large[:30].astype(int) + rng.integers(-4, 5, (30, 9, 9, 1)), 0, 255)
    describe = PixelDescriptor.fit([large])

    def real(y):
        return TrainSet(y, describe(y), len(y))

    samples = [
        SampleSet("copier", near.astype(np.uint8), describe(near.astype(np.uint8)), "large"),
        SampleSet("stranger", x, describe(x), "small"),
        SampleSet("images", x, None, "large"),
        SampleSet("features", None, describe(x), None),
    ]
    return samples, {"small": real(large[:20]), "large": real(large)}, real(heldout)


def test_rows_come_in_order_and_leave_out_what_cannot_be_had(study):
    pairs, models = score_all(*study, "pixels", 0.5, 0.9)
    assert [(row["a"], row["b"], row["score"]) for row in pairs] == [
        ("copier", "stranger", "rp"),
        ("copier", "stranger", "mae"),
        ("copier", "images", "mae"),
        ("copier", "features", "rp"),
        ("stranger", "images", "mae"),
        ("stranger", "features", "rp"),
    ]
    assert [(row["name"], row["score"]) for row in models] == [
        ("copier", "gl"),
        ("copier", "memorized"),
        ("copier", "frechet"),
        ("stranger", "gl"),
        ("stranger", "memorized"),
        ("stranger", "frechet"),
        ("images", "memorized"),
    ]
    assert pairs[-1]["value"] == 1.0 and pairs[-2]["value"] == 1.0  # the same samples


def test_rows_have_the_contract_and_the_values_of_the_functions(study):
    samples, train_sets, heldout = study
    pairs, models = score_all(*study, "pixels", 0.5, 0.9)
    pair_keys = ["a", "b", "descriptor", "threshold", "score", "value", "ci95", "chance", "n"]
    assert all(list(row) == pair_keys for row in pairs)
    assert [row["threshold"] for row in pairs[:2]] == [0.5, 15.0]
    by = {(row["name"], row["score"]): row for row in models}
    train, sample = train_sets["large"], samples[0]
    assert by["copier", "gl"] == {
        "name": "copier",
        "score": "gl",
        "descriptor": "pixels",
        "threshold": 0.9,
        "value": round(gl(sample.features, train.features, 0.9), 6),
        "ci95": by["copier", "gl"]["ci95"],
        "reference": round(gl(heldout.features, train.features, 0.9), 6),
        "n": 30,
        "n_train": 90,
    }
    row = by["copier", "memorized"]
    assert row["threshold"] == 0.333333 and row["value"] == 1.0
    assert row["reference"] == memorized(heldout.images, train.images)
    row = by["stranger", "frechet"]
    projection = Projection.fit(train.features)  # of the largest set, for every model
    x, y = (projection(s.features) for s in (samples[1], heldout))
    assert row["threshold"] is None and row["n_train"] == 20
    assert row["value"] == round(frechet_distance(x, y), 6)
    few = projection(train_sets["small"].features)
    assert row["reference"] == round(frechet_distance(few, y), 6)
    first = projection(train.features[:30])  # as many as there are samples
    assert by["copier", "frechet"]["reference"] == round(frechet_distance(first, y), 6)


def test_without_heldout_images_references_are_null_and_frechet_is_absent(study):
    samples, train_sets, _ = study
    _, models = score_all(samples, train_sets, None, "pixels", 0.5, 0.9)
    assert {row["score"] for row in models} == {"gl", "memorized"}
    assert all(row["reference"] is None for row in models)


def test_the_numbers_are_plain_and_the_same_every_time(study):
    first, second = (json.dumps(score_all(*study, "pixels", 0.5, 0.9)) for _ in range(2))
    assert first == second
    pairs, models = json.loads(first)
    for row in pairs + models:
        assert row["value"] == round(row["value"], 6)
        assert row["ci95"][0] <= row["value"] <= row["ci95"][1]


def test_each_training_set_is_judged_once_and_progress_is_told(study, monkeypatch):
    made, told = [], []
    original = scoreboard._Judge.__init__

    def counting(self, *args):
        made.append(args[0].n)
        original(self, *args)

    monkeypatch.setattr(scoreboard._Judge, "__init__", counting)
    score_all(*study, "pixels", 0.5, 0.9, progress=lambda *args: told.append(args))
    assert sorted(made) == [20, 90]
    assert [done for _, done, _ in told] == list(range(1, 10)) and told[-1] == ("images", 9, 9)


def test_sets_that_do_not_compare_are_refused(study):
    samples, train_sets, heldout = study
    short = SampleSet("short", samples[0].images[:5], samples[0].features[:5])
    for bad, message in (
        ([samples[0], short], "5 samples': 30 samples"),
        ([samples[0], samples[0]], "a name that no other set has"),
        ([SampleSet("one", short.images[:1])], "at least 2"),
    ):
        with pytest.raises(InputError, match=message):
            score_all(bad, train_sets, heldout, "pixels", 0.5, 0.9)


def test_nearest_finds_the_training_image(study):
    samples, train_sets, _ = study
    index, cosine = nearest(samples[0].features, train_sets["large"])
    np.testing.assert_array_equal(index, np.arange(30))
    assert index.dtype == np.int64 and (cosine > 0.9).all()
