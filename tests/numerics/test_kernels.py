"""Drift, diffusion and marginals, derived from scale and sigma, against their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reprojax.diffusion.kernels import KERNELS, make_kernel
from reprojax.errors import InputError

BETA_MIN, BETA_MAX = 0.1, 20.0
LOW, HIGH = 0.02, 100.0


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def beta(t):
    return BETA_MIN + (BETA_MAX - BETA_MIN) * t


def big_b(t):
    return BETA_MIN * t + 0.5 * (BETA_MAX - BETA_MIN) * t**2


# name -> (drift f, diffusion g, mean factor, standard deviation), written out from the papers' SDEs
CLOSED = {
    "vp": (
        lambda t: -0.5 * beta(t),
        lambda t: np.sqrt(beta(t)),
        lambda t: np.exp(-0.5 * big_b(t)),
        lambda t: np.sqrt(-np.expm1(-big_b(t))),
    ),
    "subvp": (
        lambda t: -0.5 * beta(t),
        lambda t: np.sqrt(beta(t) * -np.expm1(-2 * big_b(t))),
        lambda t: np.exp(-0.5 * big_b(t)),
        lambda t: -np.expm1(-big_b(t)),
    ),
    "ve": (
        lambda t: 0 * t,
        lambda t: LOW * (HIGH / LOW) ** t * np.sqrt(2 * np.log(HIGH / LOW)),
        lambda t: 1 + 0 * t,
        lambda t: LOW * (HIGH / LOW) ** t,
    ),
    "edm": (lambda t: 0 * t, lambda t: np.sqrt(2 * t), lambda t: 1 + 0 * t, lambda t: t),
    # alpha = cos, deviation = sin: f = -(pi / 2) tan, g^2 = d sin^2 / dt - 2 f sin^2 = pi tan
    "cosine": (
        lambda t: -np.pi / 2 * np.tan(np.pi * t / 2),
        lambda t: np.sqrt(np.pi * np.tan(np.pi * t / 2)),
        lambda t: np.cos(np.pi * t / 2),
        lambda t: np.sin(np.pi * t / 2),
    ),
    # x_t = (1 - t) x0 + t z: f = -1 / (1 - t), g^2 = 2 t + 2 t^2 / (1 - t) = 2 t / (1 - t)
    "rf": (
        lambda t: -1 / (1 - t),
        lambda t: np.sqrt(2 * t / (1 - t)),
        lambda t: 1 - t,
        lambda t: t,
    ),
}


def times(kernel):
    return np.geomspace(max(kernel.t_min, 1e-5), kernel.t_max, 400)


def relative(a, b):
    return np.max(np.abs(np.asarray(a) - b) / np.maximum(np.abs(b), 1e-300) * (b != 0))


@pytest.mark.parametrize("name", CLOSED)
def test_derived_quantities_match_the_papers(name):
    kernel = make_kernel(name)
    t = times(kernel)
    drift, diffusion, mean, deviation = CLOSED[name]
    got_mean, got_deviation = kernel.marginal(jnp.asarray(t))
    np.testing.assert_allclose(kernel.drift(jnp.asarray(t)), drift(t), rtol=1e-10, atol=1e-10)
    assert relative(kernel.diffusion(jnp.asarray(t)), diffusion(t)) < 1e-10
    assert relative(got_mean, mean(t)) < 1e-10
    assert relative(got_deviation, deviation(t)) < 1e-10


@pytest.mark.parametrize("name", KERNELS)
def test_time_of_noise_level_inverts_it(name):
    kernel = make_kernel(name)
    sigma = kernel.sigma(jnp.asarray(times(kernel)))
    back = kernel.sigma(kernel.t_of_sigma(sigma))
    assert relative(back, np.asarray(sigma)) < 1e-9


@pytest.mark.parametrize("name", KERNELS)
def test_noise_level_stays_exact_in_float32_at_small_t(name):
    kernel = make_kernel(name)
    t = max(kernel.t_min, 1e-5)
    exact = float(kernel.sigma(jnp.asarray(t, jnp.float64)))
    single = float(kernel.sigma(jnp.asarray(t, jnp.float32)))
    assert abs(single / exact - 1) < 1e-5


def test_forward_sde_moments_follow_the_marginals():
    """d mean/dt = f mean and d var/dt = 2 f var + g^2, by central differences of the marginals.

    Not of DDPM's levels, which have corners.
    """
    for name in CLOSED:
        kernel = make_kernel(name)
        t = np.linspace(0.1, 0.9, 50) * kernel.t_max
        h = 1e-5 * kernel.t_max
        (mean, sd), f, g = kernel.marginal(jnp.asarray(t)), kernel.drift(t), kernel.diffusion(t)
        up, down = kernel.marginal(jnp.asarray(t + h)), kernel.marginal(jnp.asarray(t - h))
        np.testing.assert_allclose((up[0] - down[0]) / (2 * h), f * mean, rtol=1e-6, atol=1e-9)
        slope = (up[1] ** 2 - down[1] ** 2) / (2 * h)
        np.testing.assert_allclose(slope, 2 * f * sd**2 + g**2, rtol=1e-6, atol=1e-9)


def test_ddpms_levels_are_the_products_of_its_betas():
    kernel = make_kernel("ddpm")
    alpha_bar = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))
    t = np.arange(1000) / 999
    mean, deviation = kernel.marginal(jnp.asarray(t))
    np.testing.assert_allclose(mean, np.sqrt(alpha_bar), rtol=1e-10)
    np.testing.assert_allclose(deviation, np.sqrt(1 - alpha_bar), rtol=1e-10)
    steps = 999 * kernel.t_of_sigma(kernel.sigma(jnp.asarray(t)))
    np.testing.assert_allclose(steps, np.arange(1000), atol=1e-9)


def test_ddpms_levels_approach_continuous_vp():
    t = jnp.linspace(0.05, 1.0, 30)
    ratio = make_kernel("ddpm").sigma(t) / make_kernel("vp").sigma(t)
    np.testing.assert_allclose(ratio, 1.0, atol=0.06)


def test_an_unknown_kernel_is_named_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'subvp'"):
        make_kernel("sub_vp")
