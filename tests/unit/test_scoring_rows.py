"""Sets read block by block score as sets held whole."""

import numpy as np
import pytest

from reprojax.scoring.descriptors import PixelDescriptor
from reprojax.scoring.rows import RowReader, flat
from reprojax.scoring.scoreboard import SampleSet, TrainSet, nearest, score_all
from reprojax.scoring.thresholds import calibrate_gl, calibrate_rp


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2500, 4, 4, 1), np.uint8)


def lazy(images, most):
    def read(start, stop):
        assert stop - start <= most, "more than a block was read"
        return images[start:stop]

    return RowReader(len(images), images.shape[1:], read)


def test_it_is_addressed_like_an_array(images):
    rows = lazy(images, 2500)
    assert len(rows) == 2500 and rows.shape == images.shape
    np.testing.assert_array_equal(rows[10:20], images[10:20])
    np.testing.assert_array_equal(rows[2490:9999], images[2490:])
    assert flat(rows).shape == (2500, 16)
    np.testing.assert_array_equal(flat(rows)[:3], flat(images)[:3])


def test_all_scores_are_equal_and_no_more_than_a_block_is_read(images):
    descriptor = PixelDescriptor.fit([images])
    features = descriptor(images)
    heldout = TrainSet(images[:100] // 2, descriptor(images[:100] // 2), 100)
    mirror = images[:40].copy()
    mirror[20:] = mirror[20:][:, ::-1]
    samples = [SampleSet(n, mirror, descriptor(mirror), "t") for n in ("a", "b")]
    reader = lazy(images, 2048)
    sets = [
        {"t": TrainSet(images, features, 2500)},
        {"t": TrainSet(reader, reader.map((16,), descriptor), 2500)},
    ]
    taus = [
        (calibrate_rp(s["t"].features), calibrate_gl(heldout.features, s["t"].features))
        for s in sets
    ]
    assert taus[0] == taus[1]
    # The Frechet projection is fitted to the first 4,096 rows: allow that one longer read.
    sets[1]["t"] = TrainSet(reader, lazy(images, 4096).map((16,), descriptor), 2500)
    scores = [score_all(samples, s, heldout, "pixels", *taus[0]) for s in sets]
    assert scores[0] == scores[1]
    assert any(m["score"] == "memorized" and m["value"] == 0.5 for m in scores[0][1])
    index = [nearest(samples[0].features, s["t"])[0] for s in sets]
    np.testing.assert_array_equal(*index)
