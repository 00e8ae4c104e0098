"""Where a share crosses a level: right, with an honest interval, and censored where it is not."""

import numpy as np
import pytest

from reprojax.errors import InputError
from reprojax.scoring.crossing import crossing, first_fall
from reprojax.scoring.stats import line_slope, share_ratio

SIZES = 2 ** np.arange(4, 13)
N = 512


def share(middle, steepness=2.0):
    return 1 / (1 + np.exp(-steepness * (np.log2(SIZES) - middle)))


def nested(counts, n=N):
    """Flags of n noises with so many hits at each size: the first ones."""
    return np.arange(n) < np.asarray(counts)[:, None]


def test_a_logistic_share_is_crossed_where_it_is():
    hits = nested(np.round(N * share(7.3)))
    result = crossing(SIZES, hits, 0.5)
    assert result.value == pytest.approx(2**7.3, rel=0.01) and not result.censored
    assert result.ci95[0] < result.value < result.ci95[1] < 1.15 * result.ci95[0]
    half = crossing(SIZES, hits, np.full(len(SIZES), 0.2))
    assert half.value == pytest.approx(2 ** (7.3 + np.log(0.25) / 2), rel=0.05)
    assert crossing(SIZES, hits, 0.5) == result  # no randomness but its own streams'


def test_a_falling_share_is_the_rising_one_upside_down():
    hits = nested(np.round(N * share(7.3)))
    falling = crossing(SIZES, ~hits, 0.3, falling=True)
    assert falling == crossing(SIZES, hits, 0.7)


@pytest.mark.parametrize("together", [False, True])
def test_the_interval_covers_the_truth_as_often_as_it_says(together):
    """Whether a noise is a hit at one size says nothing of the next, or all: each has its N."""
    rng, covered, rounds = np.random.default_rng(0), 0, 200
    for i in range(rounds):
        middle = rng.uniform(6, 10)
        uniform = rng.random((1 if together else len(SIZES), N))
        hits = uniform < share(middle, rng.uniform(1, 2))[:, None]
        low, high = crossing(SIZES, hits, 0.5, index=i, draws=200).ci95
        covered += low <= 2**middle <= high
    assert 0.91 <= covered / rounds <= 0.985  # 2.6 standard errors about .95, less at 200 draws


def test_noises_that_go_together_make_the_interval_wider():
    counts, rng = np.array([3, 20, 200, 300, 505]), np.random.default_rng(3)
    sizes = SIZES[: len(counts)]
    apart = np.stack([rng.permutation(row) for row in nested(counts)])
    wide, narrow = (crossing(sizes, hits, 0.5).ci95 for hits in (nested(counts), apart))
    assert np.log(wide[1] / wide[0]) > 1.15 * np.log(narrow[1] / narrow[0])


def test_a_crossing_outside_the_sizes_is_censored():
    low = crossing(SIZES, nested([500] * len(SIZES)), 0.5)
    assert (low.value, low.ci95, low.censored, low.smallest) == (None, (None, None), "below", 16)
    high = crossing(SIZES, nested([1] * len(SIZES)), 0.5)
    assert (high.value, high.censored, high.largest) == (None, "above", 4096)
    edge = crossing(SIZES, nested([0] * (len(SIZES) - 1) + [260]), 0.5)
    assert not edge.censored and edge.ci95[0] < 4096 and edge.ci95[1] is None


def test_noise_that_makes_a_share_fall_does_not_cross_twice():
    counts = np.array([0, 0, 10, 300, 240, 500, 512, 512, 512])
    result = crossing(SIZES, nested(counts), 0.5)
    assert 64 < result.value < 256


@pytest.mark.parametrize(
    "sizes, level, field", [([16], 0.5, "sizes"), ([32, 16], 0.5, "sizes"), ([16, 32], 1.0, "lev")]
)
def test_what_cannot_be_crossed_is_named(sizes, level, field):
    with pytest.raises(InputError, match=field):
        crossing(sizes, nested([1] * len(sizes), 4), level)


def test_the_first_fall_is_the_first_and_interpolated_in_logarithms():
    steps, values = [10, 100, 1000, 10_000], [16.0, 4.0, 1.0, 8.0]
    result = first_fall(steps, values, 0.05 * np.eye(4), 2.0)
    assert result.value == pytest.approx(10**2.5) and result.ci95[0] < result.value < result.ci95[1]
    assert first_fall(steps, values, np.zeros((4, 1)), 20.0).censored == "below"
    with pytest.raises(InputError, match="factor"):
        first_fall(steps, values, np.zeros((4, 1)), 1.0)


def test_a_flat_end_makes_the_first_fall_uncertain_and_never_late():
    """The lowest is uniform anew too: it is reached by the last step in every draw."""
    steps, values = [10, 100, 1000, 10_000], [16.0, 1.05, 1.0, 1.02]
    low, high = first_fall(steps, values, 0.2 * np.eye(4), 1.1).ci95
    assert low < 100 and 1000 < high <= 10_000
    # Where one noise moves all of them alike, their order is sure.
    low, high = first_fall(steps, values, np.full((4, 1), 0.05), 1.1).ci95
    assert 90 < low < high < 110


def test_a_ratio_of_shares_and_its_interval():
    value, (low, high) = share_ratio(30, 500, 300, 500)
    assert value == pytest.approx(0.1) and low < 0.1 < high
    assert np.log(high / low) / 2 == pytest.approx(
        1.96 * np.sqrt(1 / 30 + 1 / 300 - 2 / 500), rel=0.02
    )
    assert share_ratio(0, 500, 300, 500)[0] == 0 and share_ratio(0, 500, 300, 500)[1][0] == 0
    assert share_ratio(5, 500, 0, 500) == (None, None)
    rng = np.random.default_rng(1)
    draws = zip(rng.binomial(400, 0.1, 600), rng.binomial(400, 0.5, 600))
    covered = [lo <= 0.2 <= hi for _, (lo, hi) in (share_ratio(a, 400, b, 400) for a, b in draws)]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_a_slope_and_its_interval():
    x = np.log([16.0, 64, 256, 1024])
    slope, intercept, (low, high) = line_slope(x, 1.5 * x + 2)
    assert (slope, intercept) == pytest.approx((1.5, 2.0)) and high - low < 1e-6
    assert line_slope(x[:2], x[:2])[2] is None and line_slope(x[:1], x[:1]) is None
    rng, hits = np.random.default_rng(2), 0
    for _ in range(2000):
        _, _, (low, high) = line_slope(x, x + rng.normal(0, 0.3, 4))
        hits += low <= 1 <= high
    assert 0.935 <= hits / 2000 <= 0.965
