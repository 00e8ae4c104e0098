"""Intervals and the Fréchet distance."""

import numpy as np
import pytest
import scipy.linalg

from reprojax.scoring.frechet import Projection, frechet, frechet_distance
from reprojax.scoring.stats import jackknife_deviations, wilson


@pytest.mark.parametrize(
    "successes, n, low, high",
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_has_the_published_values(successes, n, low, high):
    """81 of 263 is the example of Newcombe (1998), Table I: .2553 to .3662."""
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("n", [1, 3, 1000])
def test_wilson_contains_the_proportion(n):
    for successes in range(n + 1):
        low, high = wilson(successes, n)
        assert 0 <= low <= successes / n <= high <= 1


def test_the_jackknife_of_means_is_their_covariance():
    x = np.random.default_rng(0).standard_normal((2, 40))
    one, two = (jackknife_deviations(lambda keep, v=v: v[keep].mean(), 40, 40) for v in x)
    covariance = np.array([[one @ one, one @ two], [one @ two, two @ two]])
    np.testing.assert_allclose(covariance, np.cov(x) / 40, atol=1e-12)
    few = jackknife_deviations(lambda keep: x[0, keep].mean(), 40)
    assert len(few) == 20 and np.linalg.norm(few) == pytest.approx(np.linalg.norm(one), rel=0.5)
    assert jackknife_deviations(lambda keep: 1.0, 1).shape == (0,)


def sqrtm_distance(x, y):
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    cross = scipy.linalg.sqrtm(a @ b).real
    return np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a + b - 2 * cross)


def test_frechet_distance_is_that_of_scipy_sqrtm():
    rng = np.random.default_rng(1)
    mix = rng.standard_normal((5, 5))
    x, y = rng.standard_normal((300, 5)) @ mix, rng.standard_normal((200, 5)) + 0.3
    assert frechet_distance(x, y) == pytest.approx(sqrtm_distance(x, y), rel=1e-8)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-10)


def test_frechet_distance_of_scaled_and_moved_data_is_the_closed_form():
    """y = 3x + 1: ‖μ_x − μ_y‖² + tr (1 − 3)² Σ."""
    x = np.random.default_rng(2).standard_normal((100, 4))
    y = 3 * x + 1
    truth = np.sum((x.mean(0) - y.mean(0)) ** 2) + 4 * np.trace(np.cov(x, rowvar=False))
    assert frechet_distance(x, y) == pytest.approx(truth, rel=1e-10)
    assert frechet_distance(x[:, :1], y[:, :1]) > 0  # one dimension is a covariance too


@pytest.mark.parametrize("n", [90, 300])  # fewer and more rows than dimensions
def test_the_projection_spans_the_leading_components(n):
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((n, 120)) * np.geomspace(1, 1e-3, 120)).astype(np.float32)
    projection = Projection.fit(x)
    assert projection(x).shape == (n, 64)
    np.testing.assert_allclose(projection.basis.T @ projection.basis, np.eye(64), atol=1e-10)
    singular = np.linalg.svd(x.astype(np.float64) - x.mean(0), compute_uv=False)
    energy = np.linalg.norm(projection(x)) ** 2
    assert energy == pytest.approx(np.sum(singular[:64] ** 2), rel=1e-6)
    assert Projection.fit(x[:10])(x).shape == (n, 9)
    assert Projection.fit(x[:, :64]).basis is None


def test_frechet_interval_covers_the_value_and_stops_at_0():
    rng = np.random.default_rng(4)
    heldout = rng.standard_normal((500, 3))
    value, (low, high) = frechet(rng.standard_normal((400, 3)) + 2, heldout)
    assert 0 < low < value < high and 9 < value < 15
    value, (low, high) = frechet(heldout[:30], heldout)
    assert low == 0 <= value < high
