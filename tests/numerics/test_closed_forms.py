"""The Gaussian denoiser against direct float64 formulas; the optimum is in test_optimum.py."""

import jax.numpy as jnp
import numpy as np
import pytest

from reprojax.denoisers.gaussian import gaussian_denoiser


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return np.clip(rng.normal(0, 0.5, (300, 4, 4, 3)), -1, 1).astype(np.float32)


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
