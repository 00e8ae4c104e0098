"""Coefficients against what each parametrisation means, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reprojax.diffusion.kernels import make_kernel
from reprojax.diffusion.losses.denoising import DENOISING_OBJECTIVES, DenoisingObjective
from reprojax.diffusion.preconditioning import PRECONDITIONINGS, Preconditioning
from reprojax.errors import InputError
from reprojax.rng import root_key

KERNEL_OF = {"edm": "edm", "vp_eps": "vp", "vp_v": "vp", "subvp_eps": "subvp", "ve": "ve"}
KERNEL_OF |= {"rf": "rf"}


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def point():
    rng = np.random.default_rng(0)
    return rng.normal(size=50), rng.normal(size=50), np.geomspace(0.03, 60, 50)


@pytest.mark.parametrize("name", KERNEL_OF)
def test_the_perfect_prediction_gives_back_x0(name, point):
    """Feeding the quantity that a network should predict returns x0 exactly."""
    x0, z, sigma = point
    kernel = make_kernel(KERNEL_OF[name])
    c_skip, c_out, _, _ = Preconditioning(name, kernel)(jnp.asarray(sigma))
    alpha, noise = 1 / np.sqrt(1 + sigma**2), sigma / np.sqrt(1 + sigma**2)
    target = {
        "vp_eps": z,
        "subvp_eps": z,
        "vp_v": alpha * z - noise * x0,
        "ve": -z,
        "rf": z - x0,
        "edm": (x0 * sigma - 0.25 * z) / np.sqrt(sigma**2 + 0.25) / 0.5,
    }[name]
    denoised = c_skip * (x0 + sigma * z) + c_out * target
    np.testing.assert_allclose(denoised, x0, atol=1e-10)


@pytest.mark.parametrize(
    "name, kernel",
    [("vp_eps", "vp"), ("vp_v", "vp"), ("subvp_eps", "subvp"), ("vp_v", "cosine"), ("rf", "rf")],
)
def test_the_network_sees_x_t_of_its_kernel(name, kernel, point):
    """c_in undoes the unscaled coordinates: the input is s(t) (x0 + sigma z)."""
    _, _, sigma = point
    kernel = make_kernel(kernel)
    t = kernel.t_of_sigma(jnp.asarray(sigma))
    c_in = Preconditioning(name, kernel)(jnp.asarray(sigma)).c_in
    np.testing.assert_allclose(c_in, kernel.scale(t), rtol=1e-9)


def test_networks_read_time_of_their_own_kernel(point):
    _, _, sigma = point
    for name, kernel in (("vp_v", "cosine"), ("vp_v", "vp"), ("rf", "rf")):
        kernel = make_kernel(kernel)
        c_noise = Preconditioning(name, kernel)(jnp.asarray(sigma)).c_noise
        want = 999 * np.asarray(kernel.t_of_sigma(jnp.asarray(sigma)))
        np.testing.assert_allclose(c_noise, want, rtol=1e-8)


def test_edm_has_unit_variance_in_and_out():
    sigma = jnp.geomspace(0.002, 80.0, 40)
    c_skip, c_out, c_in, _ = Preconditioning("edm", make_kernel("edm"), 0.5)(sigma)
    np.testing.assert_allclose(c_in**2 * (sigma**2 + 0.25), 1.0, rtol=1e-12)
    residual = (1 - c_skip) ** 2 * 0.25 + c_skip**2 * sigma**2  # variance of x0 - c_skip x
    np.testing.assert_allclose(residual / c_out**2, 1.0, rtol=1e-9)
    weight = DenoisingObjective("edm", make_kernel("edm"), 0.5).weight(sigma)
    np.testing.assert_allclose(weight * c_out**2, 1.0, rtol=1e-12)


@pytest.mark.parametrize(
    "objective, preconditioning", [("eps", "vp_eps"), ("v", "vp_v"), ("velocity", "rf")]
)
def test_weights_turn_the_x0_error_into_the_error_of_the_prediction(objective, preconditioning):
    sigma = jnp.geomspace(0.01, 70.0, 40)
    kernel = make_kernel(KERNEL_OF[preconditioning])
    c_out = Preconditioning(preconditioning, kernel)(sigma).c_out
    weight = DenoisingObjective(objective, kernel).weight(sigma)
    np.testing.assert_allclose(weight * c_out**2, 1.0, rtol=1e-12)


def test_training_noise_levels_have_the_stated_distribution():
    key = root_key(0)
    edm = np.log(DenoisingObjective("edm", make_kernel("edm")).sample_sigma(key, 200_000))
    assert abs(edm.mean() + 1.2) < 0.01 and abs(edm.std() - 1.2) < 0.01
    ve = np.log(DenoisingObjective("eps", make_kernel("ve")).sample_sigma(key, 200_000))
    low, high = np.log(0.02), np.log(100.0)
    assert low <= ve.min() and ve.max() <= high and abs(ve.mean() - (low + high) / 2) < 0.03


def test_the_loss_of_a_known_denoiser_is_its_expectation():
    """D = 0 on data of variance v has weighted loss v E[weight]; here with weight 1 / sigma^2."""
    objective = DenoisingObjective("eps", make_kernel("ve"))
    x0 = jnp.full((100_000, 1, 1, 1), 0.7)
    loss = objective.loss(lambda x, sigma, cond: jnp.zeros_like(x), x0, root_key(3))
    ratio = np.log(100.0 / 0.02)
    expected = 0.49 * (0.02**-2 - 100.0**-2) / (2 * ratio)
    assert abs(float(loss) / expected - 1) < 0.03


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="preconditioning"):
        Preconditioning("edn")
    with pytest.raises(InputError, match="objective"):
        DenoisingObjective("epsilon")
    discrete = {"eps_discrete", "v_discrete"}
    assert set(DENOISING_OBJECTIVES) == {"edm", "eps", "v", "velocity"} | discrete
    assert set(PRECONDITIONINGS) == {*KERNEL_OF, "consistency"}


@pytest.mark.parametrize("kernel", ["ddpm", "vp", "ve"])
def test_discrete_objectives_visit_1000_times_evenly(kernel):
    kernel = make_kernel(kernel)
    sigma = DenoisingObjective("eps_discrete", kernel).sample_sigma(root_key(0), 100_000)
    span = kernel.t_max - kernel.t_min
    steps = 999 * (np.asarray(kernel.t_of_sigma(sigma)) - kernel.t_min) / span
    assert np.abs(steps - np.round(steps)).max() < 2e-2
    counts = np.bincount(np.round(steps).astype(int), minlength=1000)
    assert len(counts) == 1000 and counts.min() > 50 and counts.max() < 170
