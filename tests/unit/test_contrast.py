"""Contrast models: what they generate, and that another seed is another coding of the same."""

import jax.numpy as jnp
import numpy as np
import pytest

from reprojax.errors import InputError
from reprojax.models.contrast import CONTRAST_FAMILIES, check_contrast, fit_ppca, generate_ppca


def images():
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((3, 16))
    rows = rng.standard_normal((4000, 3)) @ basis * 0.2 + 0.1 * rng.standard_normal((4000, 16))
    return rows.reshape(-1, 4, 4, 1).astype(np.float32)


def test_ppca_generates_the_mean_and_the_leading_covariance():
    x = images()
    params = fit_ppca([x[:2500], x[2500:]], 0, {"latent": 3})
    z = np.random.default_rng(1).standard_normal((40_000, 4, 4, 1)).astype(np.float32)
    y = np.asarray(generate_ppca(params, jnp.asarray(z))).reshape(len(z), -1)
    flat = x.reshape(len(x), -1)
    np.testing.assert_allclose(y.mean(0), flat.mean(0), atol=0.01)
    values, basis = np.linalg.eigh(np.cov(flat.T))
    noise = values[:13].mean()
    expected = (basis[:, 13:] * (values[13:] - noise)) @ basis[:, 13:].T
    np.testing.assert_allclose(np.cov(y.T), expected, atol=0.02)
    np.testing.assert_allclose(params["loading"] @ params["loading"].T, expected, atol=1e-3)


def test_another_seed_is_a_rotation_of_the_latent():
    x = images()
    one, two = (fit_ppca([x], seed, {"latent": 3})["loading"] for seed in (0, 1))
    assert np.abs(one - two).max() > 0.1
    np.testing.assert_allclose(one @ one.T, two @ two.T, atol=1e-5)


def test_options_are_checked():
    with pytest.raises(InputError, match="did you mean 'ppca'"):
        check_contrast("pca", {})
    with pytest.raises(InputError, match=r"options\.latents"):
        check_contrast("ppca", {"latents": 3})
    with pytest.raises(InputError, match=r"options\.latent=0: must be at least 1"):
        check_contrast("ppca", {"latent": 0})
    with pytest.raises(InputError, match=r"options\.latent=5: must be 1 to 4"):
        CONTRAST_FAMILIES["ppca"].param_shapes((2, 2, 1), {"latent": 5})
    assert CONTRAST_FAMILIES["ppca"].param_shapes((2, 2, 1), {"latent": 3})["mean"].shape == (4,)
