import numpy as np
import pytest

from reprojax.scoring import similarity
from reprojax.scoring.similarity import count_over, max_cosine, paired_cosines, two_nearest

BLOCKS = [(8, 16), (7, 5), (64, 128)]


def unit(rng, n, d=6):
    x = rng.standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def cosines64(a, b):
    return a.astype(np.float64) @ b.T.astype(np.float64)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("n, m", [(1, 1), (16, 32), (21, 50)])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_max_cosine_is_brute_force(block, n, m, exclude_self):
    rng = np.random.default_rng(0)
    b = unit(rng, m)
    a = b[:n] if exclude_self else unit(rng, n)
    truth = cosines64(a, b)
    if exclude_self:
        truth[np.arange(n), np.arange(n)] = -np.inf
    for reference in (b, [b[:9], b[9:10], b[10:]], iter([b])):
        value, index = max_cosine(a, reference, exclude_self=exclude_self, block=block)
        np.testing.assert_allclose(value, truth.max(axis=1), atol=1e-6)
        if np.isfinite(truth).any():
            np.testing.assert_array_equal(index, truth.argmax(axis=1))
        assert value.dtype == np.float64 and index.dtype == np.int64


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("exclude", [False, True])
def test_count_over_is_brute_force(block, exclude):
    rng = np.random.default_rng(1)
    a, b = unit(rng, 37), unit(rng, 37)
    truth = cosines64(a, b)
    if exclude:
        np.fill_diagonal(truth, -np.inf)
    for tau in (-0.5, 0.0, 0.3, 0.8):
        assert count_over(a, b, tau, exclude, block) == np.sum(truth > np.float32(tau))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("n, m", [(16, 32), (21, 50), (3, 2)])
def test_two_nearest_is_brute_force(block, dtype, n, m):
    rng = np.random.default_rng(2)
    a, b = (rng.integers(0, 256, (k, 12)).astype(dtype) for k in (n, m))
    truth = ((a.astype(np.float64)[:, None, :] - b.astype(np.float64)[None, :, :]) ** 2).sum(-1)
    order = np.argsort(truth, axis=1, kind="stable")[:, :2]
    for reference in (b, [b[:1], b[1:]]):
        squared, index = two_nearest(a, reference, block)
        np.testing.assert_array_equal(index, order)
        np.testing.assert_array_equal(squared, np.take_along_axis(truth, order, axis=1))


@pytest.mark.parametrize("block", [(8, 4), (8, 16), (8, 64)])
@pytest.mark.parametrize("farther", [np.arange(3, 31), np.full(40, 3)])
def test_two_nearest_is_exact_where_float32_is_not(block, farther):
    """Distances 1 and 2 among 3 and more, at squared norms of 5e7: float32 counts in fours."""
    rng = np.random.default_rng(3)
    query = rng.choice(np.array([0, 255], np.uint8), 3072)
    queries = np.stack([query, 255 - query])
    for _ in range(5):
        distances = rng.permutation(np.concatenate([farther, [1, 2]]))
        near = np.repeat(query[None, :], len(distances), axis=0)
        for row, distance in zip(near, distances):
            row[rng.choice(3072, distance, replace=False)] ^= 1  # 0 to 1, 255 to 254
        squared, index = two_nearest(queries, near, block)
        assert squared[0].tolist() == [1.0, 2.0]
        assert distances[index[0]].tolist() == [1, 2]


def test_two_nearest_takes_the_smaller_index_of_duplicates_and_marks_what_is_missing():
    row = np.array([[1, 2, 3]], np.uint8)
    assert two_nearest(row, np.repeat(row, 40, axis=0), (4, 8))[1].tolist() == [[0, 1]]
    squared, index = two_nearest(row, row)
    assert squared.tolist() == [[0.0, np.inf]] and index.tolist() == [[0, -1]]


def test_thresholds_are_strict_for_float32_features():
    """float32(.6) is above .6 in float64, and is not above the threshold .6."""
    a = np.array([[1, 0], [1, 0]], np.float32)
    at = np.array([[0.6, 0.8], [0.6, 0.8]], np.float32)
    assert float(at[0, 0]) > 0.6
    above = at.copy()
    above[:, 0] = np.nextafter(np.float32(0.6), np.float32(1))
    assert count_over(a, at, 0.6) == 0 and count_over(a, above, 0.6) == 2
    tau = similarity.exact_threshold(0.6)
    assert not (paired_cosines(a, at) > tau).any() and (paired_cosines(a, above) > tau).all()
    assert not (max_cosine(a, at, tau=0.6)[0] > tau).any()
    assert (max_cosine(a, above, tau=0.6)[0] > tau).all()


def test_near_the_threshold_float64_decides():
    """Sums whose float32 value depends on their order: all are decided as float64 decides."""
    rng = np.random.default_rng(3)
    a, b = unit(rng, 40, 500), unit(rng, 60, 500)
    truth = cosines64(a, b)
    for tau in np.float32(truth[::9, ::13].ravel()):  # float32 numbers beside a true cosine
        assert count_over(a, b, tau, False, (16, 32)) == np.sum(truth > tau)
        value, _ = max_cosine(a, b, tau=tau, block=(16, 32))
        np.testing.assert_array_equal(value > tau, truth.max(axis=1) > tau)


@pytest.mark.parametrize("n", [3, 40])
def test_more_undecided_pairs_than_the_device_lists(n):
    """All cosines are at the threshold or one float32 number above it."""
    a, b = (np.tile(np.array([1, 0], np.float32), (n, 1)) for _ in range(2))
    b[:, 0] = np.where(np.arange(n) % 3, np.float32(0.6), np.nextafter(np.float32(0.6), 1))
    above = -(-n // 3)
    assert count_over(a, b, 0.6, exclude_diagonal=False, block=(32, 32)) == n * above
    assert count_over(a, b, 0.6, block=(32, 32)) == n * above - above


def test_no_device_array_is_larger_than_a_block_and_other_sizes_compile_nothing(monkeypatch):
    rng = np.random.default_rng(4)
    kernels = (similarity._block_max, similarity._block_over, similarity._block_nearest)

    def run(n, m):
        a, b = unit(rng, n, 11), unit(rng, m, 11)
        max_cosine(a, b, tau=0.5, block=(8, 16))
        max_cosine(a[: min(n, m)], b, exclude_self=True, block=(8, 16))
        count_over(a, b, 0.1, block=(8, 16))
        count_over(a, b, 0.2, False, block=(8, 16))
        two_nearest(a, b, block=(8, 16))
        return [kernel._cache_size() for kernel in kernels]

    first = run(5, 9)
    assert run(30, 47) == first and run(8, 16) == first
