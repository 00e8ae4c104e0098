import numpy as np
import pytest

from reprojax.data.source import ArraySource
from reprojax.data.subset import near_duplicates, split
from reprojax.errors import InputError

N = 101


@pytest.fixture
def source():
    images = np.random.default_rng(0).integers(0, 256, (N, 4, 4, 1), dtype=np.uint8)
    return ArraySource(images, np.arange(N, dtype=np.int32))


def indices(source, n_train=0, n_heldout=11, seed=0, **kwargs):
    return split(source, n_train=n_train, n_heldout=n_heldout, seed=seed, **kwargs)


@pytest.mark.parametrize("part", ["all", "A", "B"])
def test_training_sets_nest(source, part):
    largest = indices(source, part=part).train.indices
    for n in (1, 7, 30, len(largest)):
        np.testing.assert_array_equal(indices(source, n, part=part).train.indices, largest[:n])


def test_parts_and_heldout_share_nothing_and_cover_the_source(source):
    a, b = indices(source, part="A"), indices(source, part="B")
    assert len(a.train) == len(b.train) == 45
    together = np.concatenate([a.train.indices, b.train.indices, a.heldout.indices])
    np.testing.assert_array_equal(np.sort(together), np.arange(N))
    whole = indices(source).train.indices
    np.testing.assert_array_equal(whole[::2], a.train.indices)
    np.testing.assert_array_equal(whole[1::2], b.train.indices)


def test_heldout_does_not_depend_on_what_is_trained_on(source):
    heldout = indices(source).heldout.indices
    for kwargs in ({"n_train": 3}, {"part": "A"}, {"part": "B", "n_train": 5}):
        np.testing.assert_array_equal(indices(source, **kwargs).heldout.indices, heldout)
    assert indices(source, n_heldout=0).heldout is None
    assert len(indices(source, n_heldout=0).train) == N


def test_the_seed_decides(source):
    first = indices(source).train.indices
    assert first.dtype == np.int64
    np.testing.assert_array_equal(first, indices(source).train.indices)
    assert not np.array_equal(first, indices(source, seed=1).train.indices)
    assert not np.array_equal(first, np.sort(first))


def test_a_small_subset_is_gone_through_again(source):
    train = indices(source, 3).train
    np.testing.assert_array_equal(train.cycle(7), [0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_array_equal(train.cycle(2), [0, 1])
    np.testing.assert_array_equal(train.take(train.cycle(4))[3], train.images(0, 1)[0])


def test_subset_reads_its_images(source):
    subset = indices(source, 20).train
    assert len(subset) == 20 and subset.shape == (4, 4, 1)
    expected = source.images[subset.indices]
    np.testing.assert_array_equal(subset.images(), expected)
    np.testing.assert_array_equal(subset.images(5, 9), expected[5:9])
    np.testing.assert_array_equal(subset.take(np.array([3, 3, 0])), expected[[3, 3, 0]])
    np.testing.assert_array_equal(subset.labels, subset.indices)
    assert subset.fingerprint == source.fingerprint(subset.indices)
    assert subset.fingerprint != indices(source, 19).train.fingerprint
    assert indices(ArraySource(source.images)).train.labels is None


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_train": 91}, "data.n_train.*at most 90 .*: the set has 101 images, 11 are held out"),
        ({"n_train": 46, "part": "B"}, "data.n_train.*at most 45.*part B"),
        ({"n_train": -1}, "data.n_train"),
        ({"n_heldout": 101}, "data.n_heldout.*0 to 100"),
        ({"n_heldout": 100, "part": "B"}, "data.n_train.*at most 0"),
        ({"n_heldout": -1}, "data.n_heldout"),
        ({"part": "C"}, "data.part"),
    ],
)
def test_asking_for_too_much(source, kwargs, message):
    with pytest.raises(InputError, match=message):
        indices(source, **kwargs)


def test_dedup_drops_copies_before_anything_is_drawn(source):
    doubled = ArraySource(np.concatenate([source.images, source.images[:40]]))
    drawn = indices(doubled, dedup=True)
    kept = np.concatenate([drawn.train.indices, drawn.heldout.indices])
    np.testing.assert_array_equal(np.sort(kept), np.arange(N))
    with pytest.raises(InputError, match="101 images without near-duplicates"):
        indices(doubled, 91, dedup=True)


def greedy(images, threshold):
    """The definition, one pair at a time in float64."""
    pixels = images.reshape(len(images), -1).astype(np.float64)
    pixels -= pixels.mean(axis=0)
    kept = []
    for i, x in enumerate(pixels):
        norms = [np.linalg.norm(x) * np.linalg.norm(pixels[j]) for j in kept]
        if not any(x @ pixels[j] > threshold * norm for j, norm in zip(kept, norms)):
            kept.append(i)
    return np.isin(np.arange(len(images)), kept)


@pytest.mark.parametrize("block_size", [1, 7, 64, 2048])
@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_near_duplicates_are_the_greedy_ones(block_size, threshold):
    rng = np.random.default_rng(1)
    base = rng.integers(40, 216, (30, 4, 4, 1))
    # Chains of ever noisier copies: a copy of a dropped copy must be judged against kept ones.
    noisy = [base + rng.integers(-r, r + 1, base.shape) for r in (5, 20, 40)]
    images = rng.permutation(np.concatenate([base, *noisy])).astype(np.uint8)
    keep = near_duplicates(images, threshold, block_size=block_size)
    np.testing.assert_array_equal(keep, greedy(images, threshold))
    assert 0 < keep.sum() < len(images)


def test_an_image_without_direction_is_kept():
    assert near_duplicates(np.full((3, 2, 2, 1), 7, np.uint8)).all()
