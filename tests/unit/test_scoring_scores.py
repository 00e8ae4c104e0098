"""RP, MAE score, GL, memorized: against brute force and at their ends."""

import numpy as np
import pytest

from reprojax.errors import InputError
from reprojax.scoring.descriptors import (
    PixelDescriptor,
    check_descriptor,
    make_descriptor,
    unit_rows,
)
from reprojax.scoring.models import gl, memorized
from reprojax.scoring.pairs import mae_chance, mae_score, rp, rp_chance
from reprojax.scoring.thresholds import calibrate_gl, calibrate_rp


def unit(rng, n, d=6):
    return unit_rows(rng.standard_normal((n, d)).astype(np.float32))


def images(rng, n, shape=(4, 4, 1)):
    return rng.integers(0, 256, (n, *shape), dtype=np.uint8)


def test_rp_and_its_chance_are_brute_force():
    rng = np.random.default_rng(0)
    fa, fb = unit(rng, 53), unit(rng, 53)
    cosines = fa.astype(np.float64) @ fb.T.astype(np.float64)
    over = cosines > np.float32(0.3)
    assert rp(fa, fb, 0.3) == np.mean(np.diag(over))
    assert rp_chance(fa, fb, 0.3) == pytest.approx(
        (over.sum() - np.diag(over).sum()) / (53 * 52), abs=1e-15
    )


def test_identical_sets_have_rp_1_and_independent_ones_the_chance():
    rng = np.random.default_rng(1)
    fa, fb = unit(rng, 800), unit(rng, 800)
    assert rp(fa, fa, 0.6) == 1.0
    chance = rp_chance(fa, fb, 0.3)
    assert abs(rp(fa, fb, 0.3) - chance) < 4 * np.sqrt(chance * (1 - chance) / 800)


@pytest.mark.parametrize("n", [2, 7, 1500])
def test_mae_score_and_its_chance_are_brute_force(n):
    rng = np.random.default_rng(2)
    a = images(rng, n, (2, 2, 1))
    b = np.clip(a.astype(int) + rng.integers(-30, 31, a.shape), 0, 255).astype(np.uint8)

    def brute(x, y, limit):
        return np.mean(np.abs(x.astype(float) - y.astype(float)).mean(axis=(1, 2, 3)) < limit)

    assert mae_score(a, b) == brute(a, b, 15.0)
    shifts = range(1, min(32, n - 1) + 1)
    truth = np.mean([brute(a, np.roll(b, -shift, axis=0), 80.0) for shift in shifts])
    assert mae_chance(a, b, 80.0) == pytest.approx(truth, abs=1e-12)


def test_the_mae_threshold_is_strict():
    a = np.zeros((2, 3, 3, 1), np.uint8)
    b = np.full_like(a, 15)
    assert mae_score(a, b) == 0.0
    b[0, 0, 0] = 14
    assert mae_score(a, b) == 0.5


def test_pairs_of_unequal_shape_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="one shape"):
        rp(unit(rng, 4), unit(rng, 5), 0.6)
    with pytest.raises(InputError, match="at least 2"):
        mae_chance(images(rng, 1), images(rng, 1))


def test_gl_is_0_on_copies_and_1_on_strangers():
    train = np.eye(6, dtype=np.float32)
    assert gl(train[:4], train, 0.6) == 0.0
    assert gl(-train, train, 0.6) == 1.0
    assert gl(np.concatenate([train[:1], -train[:3]]), [train[:2], train[2:]], 0.6) == 0.75


@pytest.mark.parametrize("num_heldout", [100, 333])
def test_the_gl_threshold_gives_heldout_images_95(num_heldout):
    rng = np.random.default_rng(3)
    train, heldout = unit(rng, 400), unit(rng, num_heldout)
    tau = calibrate_gl(heldout, train)
    assert tau == round(tau, 6)
    assert gl(heldout, train, tau) == pytest.approx(1 - int(0.05 * num_heldout) / num_heldout)


def test_without_heldout_images_gl_is_calibrated_by_leaving_one_out():
    rng = np.random.default_rng(4)
    train = unit(rng, 200)
    tau = calibrate_gl(None, train)
    cosines = train.astype(np.float64) @ train.T.astype(np.float64)
    np.fill_diagonal(cosines, -1)
    assert 0.04 < np.mean(cosines.max(axis=1) > tau) <= 0.05  # two nearest to each other tie
    assert calibrate_gl(train[:0], train) == tau


def test_the_rp_threshold_is_exceeded_by_one_pair_in_a_thousand():
    rng = np.random.default_rng(5)
    train = unit(rng, 150)
    tau = calibrate_rp(train)
    assert rp_chance(train, train, tau) * 150 * 149 / 2 == pytest.approx(int(150 * 149 / 2 * 1e-3))
    few = calibrate_rp(train[:10])  # 45 pairs cannot show 1 in 1,000: none is above
    assert rp_chance(train[:10], train[:10], few) == 0
    assert rp_chance(train[:10], train[:10], few - 1e-5) > 0
    same = np.repeat(train[:1], 5, axis=0)  # nor is a tie
    assert rp_chance(same, same, calibrate_rp(same)) == 0
    with pytest.raises(InputError, match="at least 2"):
        calibrate_rp(train[:1])


def test_memorized_finds_copies_with_a_little_noise_and_not_strangers():
    rng = np.random.default_rng(6)
    train = images(rng, 60)
    copies = np.clip(train[:30].astype(int) + rng.integers(-5, 6, (30, 4, 4, 1)), 0, 255)
    assert memorized(copies.astype(np.uint8), train) == 1.0
    assert memorized(images(rng, 30), train) == 0.0


def test_memorized_is_strict_and_counts_copies_of_duplicates():
    def gray(*levels):
        return np.array(levels, np.uint8).reshape(-1, 1, 1, 1)

    assert memorized(gray(10), gray(11, 13)) == 0.0  # 1/3 exactly
    assert memorized(gray(10), gray(11, 14)) == 1.0
    assert memorized(gray(10), gray(10, 10)) == 1.0
    assert memorized(gray(10), gray(12, 12)) == 0.0
    with pytest.raises(InputError, match="at least 2"):
        memorized(gray(10), gray(10))


def test_pixel_descriptor_is_centred_unit_and_blind_to_the_blocks():
    rng = np.random.default_rng(7)
    x = images(rng, 20, (3, 3, 2))
    describe = PixelDescriptor.fit([x[:7], x[7:]])
    np.testing.assert_allclose(describe.mean, x.astype(float).mean(axis=0), rtol=1e-6)
    features = describe(x)
    assert features.dtype == np.float32 and features.shape == (20, 18)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(describe(x[5:9]), features[5:9])
    flat = PixelDescriptor(np.full((1, 1, 1), 7.0))
    assert flat(np.full((2, 1, 1, 1), 7, np.uint8)).tolist() == [[0.0], [0.0]]
    with pytest.raises(InputError, match="as the mean"):
        describe(x[:, :2])
    with pytest.raises(InputError, match="at least 1 image"):
        PixelDescriptor.fit([])


def test_rows_of_unit_length_keep_their_bits():
    rng = np.random.default_rng(8)
    x = unit(rng, 50)
    np.testing.assert_array_equal(unit_rows(x), x)
    np.testing.assert_allclose(unit_rows(3 * x), x, atol=1e-7)


def test_an_unknown_descriptor_is_refused_with_the_names_there_are():
    images = np.zeros((2, 3, 3, 1), np.uint8)
    assert isinstance(make_descriptor("pixels", [images]), PixelDescriptor)
    with pytest.raises(InputError, match=r"scoring\.descriptor='pixel': must be one of pixels"):
        check_descriptor("pixel")
    with pytest.raises(InputError, match=r"='pixels:w.npz': must be pixels"):
        check_descriptor("pixels:w.npz")
