"""The Jacobian of a denoiser: exact for closed forms, and its ranks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from reprojax.denoisers.gaussian import gaussian_denoiser
from reprojax.denoisers.jacobian import jacobian, numerical_rank, singular_values, stable_rank
from reprojax.denoisers.optimum import empirical_optimum
from reprojax.errors import InputError

SHAPE, D = (3, 5, 2), 30


@struct.dataclass
class Linear:
    """A x + x³ sigma: a Jacobian that is not symmetric and depends on x and sigma."""

    matrix: jax.Array

    def __call__(self, x, sigma, cond=None):
        cube = x**3 * sigma[:, None, None, None]
        return (x.reshape(len(x), -1) @ self.matrix.T).reshape(x.shape) + cube


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (200, *SHAPE)).astype(np.float32)


def noisy(images, sigma, num=3):
    rng = np.random.default_rng(1)
    return (images[:num] + sigma * rng.standard_normal((num, *SHAPE))).astype(np.float32)


@pytest.mark.parametrize("sigma", [0.02, 0.5, 10.0])
def test_the_gaussian_has_a_wiener_filter_for_a_jacobian(images, sigma):
    denoise = gaussian_denoiser([images])
    basis, variances = (np.asarray(a, np.float64) for a in (denoise.basis, denoise.variances))
    gain = variances / (variances + sigma**2)
    x = noisy(images, sigma)
    with jax.enable_x64(True):
        x64 = x.astype(np.float64)
        got = jacobian(denoise, jnp.asarray(x64[0]), jnp.asarray(sigma, jnp.float64))
        np.testing.assert_allclose(got, (basis * gain) @ basis.T, atol=1e-12)
        values = singular_values(denoise, x64, sigma)
    # The basis is orthonormal to float32, so far are the gains from the singular values.
    np.testing.assert_allclose(values, np.sort(gain)[None, ::-1].repeat(3, 0), rtol=1e-5)
    np.testing.assert_allclose(singular_values(denoise, x, sigma), values, rtol=1e-4, atol=1e-6)
    assert values.dtype == np.float64 and values.shape == (3, D)


@pytest.mark.parametrize("block", [1, 7, 30, 64])
def test_columns_are_derivatives_for_any_block(images, block):
    matrix = np.random.default_rng(2).standard_normal((D, D)).astype(np.float32)
    denoise, x = Linear(jnp.asarray(matrix)), jnp.asarray(images[0])
    got = jacobian(denoise, x, jnp.float32(0.5), block=block)
    want = matrix + np.diag(1.5 * images[0].ravel() ** 2)
    np.testing.assert_allclose(got, want, atol=1e-6)
    values = singular_values(denoise, images[:2], 0.5, block=block)
    truth = np.linalg.svd(want.astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(values[0], truth, rtol=1e-5, atol=1e-6)
    assert np.abs(values[0] - values[1]).max() > 1e-2


@pytest.mark.parametrize("block", [2, 3])  # with and without padding
@pytest.mark.parametrize("sigma", [0.3, 2.0, 20.0])
def test_the_optimum_of_three_images_has_rank_2(images, sigma, block):
    """Its Jacobian is the covariance of the three under their weights, over sigma²."""
    y, x = images[:3], noisy(images, sigma)
    values = singular_values(empirical_optimum(y, block=block), x, sigma)
    flat = y.reshape(3, -1).astype(np.float64)
    for row, point in zip(values, x.reshape(3, -1).astype(np.float64)):
        logits = -np.sum((point - flat) ** 2, axis=1) / (2 * sigma**2)
        weights = np.exp(logits - logits.max())
        weights /= weights.sum()
        centred = flat - weights @ flat
        want = np.linalg.svd((centred.T * weights) @ centred / sigma**2, compute_uv=False)
        np.testing.assert_allclose(row, want, rtol=1e-3, atol=1e-5)
    assert (numerical_rank(values) <= 2).all() and (stable_rank(values) <= 2 + 1e-5).all()
    if sigma > 1:
        assert (numerical_rank(values) >= 1).all()
    else:  # one image has all the weight: nothing but rounding is left, which has any rank
        assert (numerical_rank(values) == 0).all() and (stable_rank(values) == 0).all()


def test_low_rank_data_has_its_rank_where_noise_is_small():
    """Four directions of variance 1, .25, .04 and .01: those above sigma² are kept."""
    rng = np.random.default_rng(3)
    basis = np.linalg.qr(rng.standard_normal((D, 4)))[0]
    parts = rng.standard_normal((500, 4))
    parts = np.linalg.qr(parts - parts.mean(0))[0] * np.sqrt(500) * [1, 0.5, 0.2, 0.1]
    data = (parts @ basis.T).reshape(500, *SHAPE)
    denoise, x = gaussian_denoiser([data]), noisy(data, 0.01)
    for sigma in (0.001, 0.5, 50.0):
        gain = np.array([1, 0.25, 0.04, 0.01])
        gain = gain / (gain + sigma**2)
        values = singular_values(denoise, x, sigma)
        np.testing.assert_allclose(values[:, :4], np.tile(gain, (3, 1)), rtol=2e-3)
        want = 1 + np.argmax(np.sqrt(np.cumsum(gain**2) / np.sum(gain**2)) > 0.99)
        # Float32 leaves variances of some 1e-8 where there are none: below sigma² = 1e-6 here.
        assert numerical_rank(values).tolist() == [want] * 3
        np.testing.assert_allclose(stable_rank(values), np.sum(gain**2) / gain[0] ** 2, rtol=1e-3)
    assert numerical_rank(singular_values(denoise, x, 0.001)).tolist() == [4] * 3


@pytest.mark.parametrize("sigma, least", [(0.01, 1e-4), (10.0, 1e-8)])
def test_what_is_below_the_rounding_is_0_and_what_is_above_is_kept(sigma, least):
    gains = np.zeros(D, np.float32)
    gains[:3] = 100 * least, 1.1 * least, 0.9 * least
    values = singular_values(Linear(jnp.diag(gains)), np.zeros((1, *SHAPE), np.float32), sigma)
    np.testing.assert_allclose(values[0, :2], gains[:2], rtol=1e-5)
    assert not values[0, 2:].any()


def test_a_second_call_compiles_nothing(images):
    rng = np.random.default_rng(4)
    matrices = rng.standard_normal((2, D, D)).astype(np.float32)
    singular_values(Linear(jnp.asarray(matrices[0])), images[:2], 0.5)
    before = jacobian._cache_size()
    first = singular_values(Linear(jnp.asarray(matrices[1])), images[2:7], 2)
    assert jacobian._cache_size() == before
    one = singular_values(Linear(jnp.asarray(matrices[1])), images[4:5], 2.0)
    np.testing.assert_allclose(first[2:3], one, rtol=1e-6)


def test_numerical_rank_is_the_smallest_and_strict():
    s = np.array([[3.0, 4.0, 0.0], [1.0, 1.0, 1.0], [5.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    s = -np.sort(-s, axis=1)
    assert numerical_rank(s).tolist() == [2, 3, 1, 0]
    assert numerical_rank(s[:1], 0.8).tolist() == [2]  # 4 / 5 is not above .8
    assert numerical_rank(s[:1], 0.79).tolist() == [1]
    assert numerical_rank(1e-9 * s).tolist() == [2, 3, 1, 0]
    assert np.issubdtype(numerical_rank(s).dtype, np.integer)
    assert stable_rank(s).tolist() == [25 / 16, 3.0, 1.0, 0.0]
    for eta in (1.0, -0.1, np.nan):
        with pytest.raises(InputError, match="eta"):
            numerical_rank(s, eta)


def test_a_noise_level_of_zero_is_refused(images):
    with pytest.raises(InputError, match="sigma"):
        singular_values(gaussian_denoiser([images]), images[:1], 0.0)
