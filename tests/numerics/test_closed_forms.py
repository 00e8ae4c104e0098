"""Closed-form denoisers against direct float64 formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reprojax.denoisers.gaussian import gaussian_denoiser
from reprojax.denoisers.optimum import empirical_optimum


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return np.clip(rng.normal(0, 0.5, (300, 4, 4, 3)), -1, 1).astype(np.float32)


def direct_optimum(images, x, sigma):
    y = images.reshape(len(images), -1).astype(np.float64)
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    logits = -((flat[:, None] - y[None]) ** 2).sum(-1) / (2 * sigma**2)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return ((weights / weights.sum(1, keepdims=True)) @ y).reshape(np.shape(x))


@pytest.mark.parametrize("block", [7, 64, 300, 1000])
@pytest.mark.parametrize("sigma", [0.002, 0.1, 1.0, 10.0, 80.0])
def test_the_optimum_is_theorem_1_for_any_block(images, sigma, block):
    rng = np.random.default_rng(1)
    x = (images[:20] + sigma * rng.normal(size=(20, 4, 4, 3))).astype(np.float32)
    got = empirical_optimum(images, block=block)(jnp.asarray(x), jnp.full(20, sigma))
    want = direct_optimum(images, x, sigma)
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_the_optimum_follows_the_dtype_of_its_state(images):
    with jax.enable_x64(True):
        x = jnp.asarray(images[:4] + 0.3, jnp.float64)
        got = empirical_optimum(images)(x, jnp.full(4, 0.5, jnp.float64))
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, direct_optimum(images, x, 0.5), atol=1e-6)


def test_the_gaussian_is_the_wiener_filter(images):
    denoise = gaussian_denoiser([images[:100], images[100:]])
    flat = images.reshape(300, -1).astype(np.float64)
    mean, cov = flat.mean(0), np.cov(flat.T, bias=True)
    x = np.random.default_rng(2).normal(size=(5, 4, 4, 3)).astype(np.float32)
    for sigma in (0.01, 0.5, 20.0):
        gain = cov @ np.linalg.inv(cov + sigma**2 * np.eye(48))
        want = mean + (x.reshape(5, -1) - mean) @ gain.T
        got = denoise(jnp.asarray(x), jnp.full(5, sigma)).reshape(5, -1)
        np.testing.assert_allclose(got, want, atol=2e-5)


def test_the_gaussian_minimises_the_denoising_loss_among_affine_maps(images):
    """Its residual is uncorrelated with its input: the normal equations hold."""
    rng = np.random.default_rng(3)
    x0 = np.repeat(images, 40, axis=0)
    x = (x0 + 0.7 * rng.normal(size=x0.shape)).astype(np.float32)
    residual = np.asarray(gaussian_denoiser([images])(jnp.asarray(x), jnp.full(len(x), 0.7))) - x0
    cross = residual.reshape(len(x), -1).T @ x.reshape(len(x), -1) / len(x)
    assert np.abs(cross).max() < 0.03
