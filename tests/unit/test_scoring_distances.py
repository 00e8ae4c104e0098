"""PFD, r², RP curves, intervals and transport: against brute force and at their ends."""

from itertools import permutations

import numpy as np
import pytest
import scipy.stats

from reprojax.errors import InputError
from reprojax.scoring import distances
from reprojax.scoring import transport as transport_module
from reprojax.scoring.descriptors import unit_rows
from reprojax.scoring.distances import (
    CURVE_TAUS,
    determination,
    per_image_r2,
    pfd,
    pfd_chance,
    rp_curve,
    rp_curve_chance,
)
from reprojax.scoring.pairs import rp, rp_chance
from reprojax.scoring.stats import mean_interval, median
from reprojax.scoring.transport import transport


def images(rng, n, shape=(3, 2, 2)):
    return rng.integers(0, 256, (n, *shape), dtype=np.uint8)


def gray(*rows):
    return np.array(rows, np.uint8)[:, :, None, None]


def unit(rng, n, d=6):
    return unit_rows(rng.standard_normal((n, d)).astype(np.float32))


@pytest.fixture(params=[4, 1024])
def rows(request, monkeypatch):
    """Blocks that split the sets of these tests, and one that holds them."""
    monkeypatch.setattr(distances, "ROWS", request.param)


def test_pfd_and_its_chance_are_brute_force(rows):
    rng = np.random.default_rng(0)
    a, b = images(rng, 13), images(rng, 13)
    square = np.array([[np.mean((x.astype(float) - y.astype(float)) ** 2) for y in b] for x in a])
    value, (low, high) = pfd(a, b)
    assert value == pytest.approx(np.sqrt(np.diag(square).mean()), rel=1e-14)
    error = np.diag(square).std(ddof=1) / np.sqrt(13) / (2 * value)  # the delta method
    assert (value - low, high - value) == pytest.approx((1.959964 * error,) * 2)
    others = square[~np.eye(13, dtype=bool)].mean()
    assert pfd_chance(a, b) == pytest.approx(np.sqrt(others), rel=1e-14)


def test_pfd_at_its_ends():
    a = images(np.random.default_rng(1), 5)
    assert pfd(a, a) == (0.0, (0.0, 0.0))
    assert pfd_chance(a[:1].repeat(4, 0), a[:1].repeat(4, 0)) == 0.0
    black = np.zeros((3, 2, 2, 1), np.uint8)
    assert pfd(black, black + np.uint8(255)) == (255.0, (255.0, 255.0))
    one = black + np.array([0, 0, 9], np.uint8).reshape(3, 1, 1, 1)  # as uneven as can be
    assert 0 < pfd(black, one)[1][0] < 0.03 * pfd(black, one)[0]
    with pytest.raises(InputError, match="at least 2"):
        pfd(a[:1], a[:1])
    with pytest.raises(InputError, match="one shape"):
        pfd_chance(a, a[:4])


def test_the_pfd_interval_covers_95_percent():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(400):
        gaps = rng.integers(1, 101, 60)  # E gap² = 101 · 201 / 6
        a = np.zeros((60, 1, 1, 1), np.uint8)
        _, (low, high) = pfd(a, a + gaps.astype(np.uint8).reshape(a.shape))
        hits += low < np.sqrt(101 * 201 / 6) < high
    assert 0.91 <= hits / 400 <= 0.98


def test_r2_is_the_squared_correlation_and_determination_counts_every_error(rows):
    rng = np.random.default_rng(3)
    a, b = images(rng, 9), images(rng, 9)
    x, y = (v.reshape(9, -1).astype(float) for v in (a, b))
    pearson = [scipy.stats.pearsonr(p, q).statistic for p, q in zip(x, y)]
    np.testing.assert_allclose(per_image_r2(a, b), np.square(pearson), rtol=1e-10, atol=1e-15)
    spread = ((y - y.mean(1, keepdims=True)) ** 2).sum(1)
    np.testing.assert_allclose(determination(a, b), 1 - ((x - y) ** 2).sum(1) / spread, rtol=1e-13)
    assert per_image_r2(a, b).dtype == determination(a, b).dtype == np.float64
    assert per_image_r2(a, 255 - a).tolist() == per_image_r2(a, a).tolist() == [1.0] * 9
    assert (determination(a, 255 - a) < 0).all() and determination(a, a).tolist() == [1.0] * 9


def test_r2_of_images_of_one_value():
    a = gray([7, 7, 7], [7, 7, 7], [7, 7, 7], [1, 2, 3])
    b = gray([7, 7, 7], [8, 8, 8], [1, 2, 3], [7, 7, 7])
    assert per_image_r2(a, b).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert determination(a, b).tolist()[:2] == [1.0, 0.0] and determination(a, b)[3] == 0.0
    assert determination(a, b)[2] == pytest.approx(1 - (36 + 25 + 16) / 2)


def test_a_curve_is_rp_at_each_threshold_and_falls(rows):
    rng = np.random.default_rng(4)
    fa = unit(rng, 40)
    fb = unit_rows((fa + 0.3 * rng.standard_normal(fa.shape)).astype(np.float32))
    curve, chance = rp_curve(fa, fb), rp_curve_chance(fa, fb)
    assert curve.tolist() == [rp(fa, fb, tau) for tau in CURVE_TAUS]
    cosines = fa.astype(np.float64) @ fb.T.astype(np.float64)
    for tau, value in zip(CURVE_TAUS, chance):
        over = sum(cosines[i, j] > np.float32(tau) for i in range(40) for j in range(40) if i != j)
        assert value == over / (40 * 39) == pytest.approx(rp_chance(fa, fb, tau))
    for values in (curve, chance):
        assert values.dtype == np.float64 and values.shape == (len(CURVE_TAUS),)
        assert (np.diff(values) <= 0).all() and values[0] > values[-1]
    assert rp_curve(fa, fb, [0.9, 0.1]).tolist() == [rp(fa, fb, 0.9), rp(fa, fb, 0.1)]
    assert rp_curve_chance(fa, fb, [0.9, 0.1]).tolist() == [chance[9], chance[1]]


def test_a_curve_is_strict_at_a_float32_threshold():
    """float32(.6) is above .6 in float64, and is not above the threshold .6."""
    a = np.array([[1, 0], [1, 0]], np.float32)
    at = np.array([[0.6, 0.8], [0.6, 0.8]], np.float32)
    above = at.copy()
    above[:, 0] = np.nextafter(np.float32(0.6), np.float32(1))
    for curve in (rp_curve, rp_curve_chance):
        assert curve(a, at, (0.5, 0.6, 0.7)).tolist() == [1.0, 0.0, 0.0]
        assert curve(a, above, (0.5, 0.6, 0.7)).tolist() == [1.0, 1.0, 0.0]


def test_curves_of_identical_sets_and_of_one_image():
    f = np.eye(5, dtype=np.float32)
    assert rp_curve(f, f).tolist() == [1.0] * len(CURVE_TAUS)
    assert rp_curve_chance(f, f).tolist() == [0.0] * len(CURVE_TAUS)
    assert rp_curve_chance(f[:1].repeat(5, 0), f[:1].repeat(5, 0)).min() == 1.0
    with pytest.raises(InputError, match="at least 2"):
        rp_curve_chance(f[:1], f[:1])


def test_other_sizes_of_a_curve_compile_nothing():
    rng = np.random.default_rng(5)
    rp_curve_chance(unit(rng, 4, 7), unit(rng, 4, 7))
    before = distances._block_counts._cache_size()
    rp_curve_chance(unit(rng, 9, 7), unit(rng, 9, 7))
    assert distances._block_counts._cache_size() == before


def test_the_thresholds_rise_and_are_dense_near_1():
    assert list(CURVE_TAUS) == sorted(set(CURVE_TAUS))
    assert CURVE_TAUS[:2] == (0.0, 0.1) and CURVE_TAUS[9:11] == (0.9, 0.91)
    assert CURVE_TAUS[-3:] == (0.99, 0.995, 0.999) and len(CURVE_TAUS) == 21


def test_the_mean_interval_is_normal():
    values = np.random.default_rng(6).standard_normal(50) + 3
    mean, interval = mean_interval(values)
    assert mean == pytest.approx(values.mean())
    truth = scipy.stats.norm.interval(0.95, values.mean(), scipy.stats.sem(values))
    assert interval == pytest.approx(truth, abs=1e-6)
    with pytest.raises(InputError, match="at least 2"):
        mean_interval(values[:1])


@pytest.mark.parametrize(
    "n, low, high", [(1, 1, 1), (5, 1, 5), (6, 1, 6), (20, 6, 15), (100, 40, 61)]
)
def test_the_median_interval_has_the_tabulated_ranks(n, low, high):
    """The ranks of the two-sided sign test at 5 %."""
    values = np.random.default_rng(7).permutation(np.arange(1, n + 1))
    assert median(values) == ((n + 1) / 2, (low, high))
    covered = 1 - 2 * scipy.stats.binom.cdf(low - 1, n, 0.5)
    assert (covered >= 0.95) == (n > 5)
    assert 1 - 2 * scipy.stats.binom.cdf(low, n, 0.5) < 0.95  # the next ranks in cover too little


def test_the_median_of_nothing_is_refused():
    with pytest.raises(InputError, match="at least 1"):
        median(np.array([]))


def test_transport_is_the_best_of_all_permutations():
    rng = np.random.default_rng(8)
    z, x = rng.standard_normal((6, 2, 2, 1)).astype(np.float32), images(rng, 6, (2, 2, 1))
    costs = np.mean(
        (z.astype(float)[:, None] - (x.astype(float) / 127.5 - 1)[None]) ** 2, axis=(2, 3, 4)
    )
    totals = {p: costs[np.arange(6), list(p)].mean() for p in permutations(range(6))}
    best = min(totals, key=totals.get)
    result = transport(z, x)
    assert result.cost == pytest.approx(np.diag(costs).mean(), rel=1e-6)
    assert result.optimal == pytest.approx(totals[best], rel=1e-6)
    assert result.random == pytest.approx(np.mean(list(totals.values())), rel=1e-6)
    assert result.random == pytest.approx(costs.mean(), rel=1e-6)
    share = (result.random - result.cost) / (result.random - result.optimal)
    assert result.recovered == pytest.approx(share, rel=1e-9) and result.recovered < 1
    assert result.matched == np.mean(np.array(best) == np.arange(6)) and result.n == 6
    again = transport(z, x[list(best)])
    assert again.recovered == again.matched == 1.0 and again.cost == again.optimal


def test_a_monotone_map_is_optimal_and_a_shuffled_one_recovers_nothing():
    rng = np.random.default_rng(9)
    z = rng.standard_normal((400, 4, 4, 1)).astype(np.float32)
    x = np.clip(np.rint(127.5 + 40 * z), 0, 255).astype(np.uint8)
    result = transport(z, x)
    assert result.recovered > 1 - 1e-9 and result.matched == 1.0
    shuffled = transport(z, x[rng.permutation(400)])
    assert abs(shuffled.recovered) < 0.05 and shuffled.matched < 0.05
    assert shuffled.optimal == pytest.approx(result.optimal)
    assert transport(z, 255 - x).recovered < 0  # worse than chance


def test_transport_at_its_ends(monkeypatch):
    rng = np.random.default_rng(10)
    z, x = rng.standard_normal((9, 3, 1, 1)).astype(np.float32), images(rng, 9, (3, 1, 1))
    assert transport(z, x[:1].repeat(9, 0)).recovered == 1.0  # all pairings cost the same
    monkeypatch.setattr(transport_module, "MAX_POINTS", 5)
    assert transport(z, x) == transport(z[:5], x[:5]) and transport(z, x).n == 5
    with pytest.raises(InputError, match="one shape"):
        transport(z, x[:8])
    with pytest.raises(InputError, match="at least 2"):
        transport(z[:1], x[:1])
