"""All kernels share one equation: their native time steps lead to the same images. Float64."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reprojax.data.mixture import MixtureSpec, make_mixture
from reprojax.denoisers.gaussian import GaussianDenoiser
from reprojax.denoisers.mixture import population_denoiser
from reprojax.diffusion.grids import GridSpec
from reprojax.diffusion.kernels import KERNELS, make_kernel
from reprojax.sampling.flow import SamplerSpec, encode, sample
from reprojax.sampling.noise import NoiseBank

LOW, HIGH = 0.02, 80.0  # the levels that every kernel has
NATIVE = {"edm": 80.0, "ve": 100.0, "vp": 152.0, "subvp": 152.0}
BANK = NoiseBank(0, 32, (8, 8, 1))


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["gaussian", "mixture"])
def denoise(request):
    mixture = make_mixture(MixtureSpec(components=8, rank=4))
    if request.param == "mixture":
        # full rank, so that its Jacobian is bounded at every level
        return population_denoiser(replace(mixture, floors=np.full(8, 1e-3)))
    images = mixture.sample(500).reshape(500, -1)
    variances, basis = np.linalg.eigh(np.cov(images.T))
    parts = (images.mean(0), basis, np.maximum(variances, 0))
    return GaussianDenoiser(*(jnp.asarray(part) for part in parts))


def spec(kernel, num_steps, high=HIGH):
    # EDM's steps are its own grid; in its time, sigma itself, the small levels would be rushed
    name = "karras" if kernel == "edm" else "uniform_t"
    grid = GridSpec(name, num_steps, LOW, high, end="sigma_min")
    return SamplerSpec("unipc_3", grid, make_kernel(kernel), "float64", batch_size=32)


def test_native_time_steps_lead_to_the_same_images(denoise):
    """Each kernel's own time, run until more steps change nothing, over one range of noise."""
    images = {}
    for kernel in KERNELS:
        images[kernel] = sample(denoise, BANK, spec(kernel, 2000)).images
        coarser = sample(denoise, BANK, spec(kernel, 1000)).images
        assert np.abs(coarser - images[kernel]).max() < 1e-4, kernel
    for kernel, found in images.items():
        np.testing.assert_allclose(found, images["vp"], atol=1e-4, err_msg=kernel)


def test_native_ranges_differ_as_the_closed_form_says():
    """x = sigma_max z is not quite the law at sigma_max; the gap is known for a Gaussian."""
    variances = np.array([4.0, 0.25, 0.01])
    mean = np.array([0.5, -0.2, 0.1])
    gaussian = GaussianDenoiser(*(jnp.asarray(a) for a in (mean, np.eye(3), variances)))
    bank = NoiseBank(0, 16, (3, 1, 1))
    z = bank.all().reshape(16, 3).astype(np.float64)

    def exact(high):
        factor = np.sqrt((variances + LOW**2) / (variances + high**2))
        return mean + (high * z - mean) * factor

    images = {}
    for kernel, high in NATIVE.items():
        images[kernel] = sample(gaussian, bank, spec(kernel, 2000, high * (1 - 1e-6))).images
        want = exact(high * (1 - 1e-6)).reshape(16, 3, 1, 1)
        np.testing.assert_allclose(images[kernel], want, atol=1e-4)
    gap = np.abs(images["vp"] - images["edm"]).max()
    assert 1e-3 < gap == pytest.approx(np.abs(exact(152.0) - exact(80.0)).max(), rel=0.05)


@pytest.mark.parametrize("solver", ["heun", "unipc_2"])
def test_the_round_trip_returns(denoise, solver):
    """Image to noise and back, and noise to image and back, within 1e-3 at 200 steps."""
    grid = GridSpec("karras", 200, 0.002, 80.0, end="sigma_min")
    sampler = SamplerSpec(solver, grid, dtype="float64", batch_size=32)
    images = sample(denoise, BANK, sampler).images
    noise = encode(denoise, images, sampler).images
    np.testing.assert_allclose(noise, BANK.all(), atol=1e-3)
    again = sample(denoise, replace(BANK, array=noise), sampler).images
    np.testing.assert_allclose(again, images, atol=1e-3)
    real = make_mixture(MixtureSpec(components=8, rank=4)).sample(16, start=5000)
    encoded = encode(denoise, real, sampler).images
    bank = NoiseBank(-1, 16, (8, 8, 1), encoded)
    np.testing.assert_allclose(sample(denoise, bank, sampler).images, real, atol=1e-3)
