"""Sets read block by block score as sets held whole."""

import numpy as np
import pytest

from reprojax.scoring.calibration import Thresholds
from reprojax.scoring.descriptors import PixelDescriptor
from reprojax.scoring.maker import make_scores
from reprojax.scoring.rows import RowReader, flat
from reprojax.scoring.scores import CellRow
from reprojax.scoring.sets import RealSet, SampleSet
from reprojax.scoring.similarity import max_cosine
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
    heldout = RealSet(images[:100] // 2, descriptor(images[:100] // 2), 100)
    mirror = images[:40].copy()
    mirror[20:] = mirror[20:][:, ::-1]
    samples = [SampleSet(n, mirror, descriptor(mirror), "t") for n in ("a", "b")]
    reader = lazy(images, 2048)
    sets = [
        {"t": RealSet(images, features, 2500)},
        {"t": RealSet(reader, reader.map((16,), descriptor), 2500)},
    ]
    taus = [
        (calibrate_rp(s["t"].features), calibrate_gl(heldout.features, s["t"].features))
        for s in sets
    ]
    assert taus[0] == taus[1]
    # The Frechet projection is fitted to the first 4,096 rows: allow that one longer read.
    sets[1]["t"] = RealSet(reader, lazy(images, 4096).map((16,), descriptor), 2500)
    cells = {s.name: CellRow("0", "external", "external") for s in samples}
    thresholds = Thresholds(*taus[0])
    scores = [make_scores(samples, cells, s, heldout, "pixels", thresholds) for s in sets]
    assert scores[0] == scores[1]
    assert scores[0].model("a", "memorized").value == 0.5
    index = [max_cosine(samples[0].features, s["t"].features)[1] for s in sets]
    np.testing.assert_array_equal(*index)
