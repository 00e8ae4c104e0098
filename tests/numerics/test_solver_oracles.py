"""Fixed-step solvers against diffusers and k-diffusion: same denoiser, same levels, same start.

The denoiser is ours on both sides and in float64, so that only the steps themselves are compared.
REPROJAX_ORACLES=1 makes a missing library a failure instead of a skip.
"""

import importlib
import importlib.util
import os
import sys
import types
from unittest.mock import MagicMock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reprojax.denoisers.gaussian import GaussianDenoiser
from reprojax.denoisers.mixture import mixture_denoiser
from reprojax.diffusion.grids import GridSpec
from reprojax.sampling.flow import run_table
from reprojax.sampling.noise import NoiseBank
from reprojax.sampling.solvers.coefficients import SolverTable
from reprojax.sampling.solvers.table import SOLVERS, get_solver

SHAPE = (2, 2, 1)
NUM_STEPS = 10  # below the 15 under which diffusers lowers orders at the end unless told not to
BOUND = 1e-10  # largest difference of a pixel; seen: 1e-14
FLOAT32_BOUND = 5e-6  # the same where a scheduler rounds its state to float32; seen: 6e-7
ABSENT = {
    "torch": "pip install -e '.[interop]'",
    "diffusers": "pip install -e '.[interop]'",
    # With its dependencies come CUDA and numpy 1; the samplers need none of them.
    "k_diffusion.sampling": "pip install --no-deps k-diffusion",
}


def required(name):
    if os.environ.get("REPROJAX_ORACLES") == "1":
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"no {name.split('.')[0]}: {ABSENT[name]}")


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def torch():
    torch = required("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(before)


@pytest.fixture
def diffusers(torch):
    return required("diffusers")


@pytest.fixture
def k_sampling(torch, monkeypatch):
    """k_diffusion.sampling alone: the package itself imports CLIP, wandb and more.

    What stands in for three libraries is used by none of the samplers below.
    """
    spec = importlib.util.find_spec("k_diffusion")
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations) if spec else []
    monkeypatch.setitem(sys.modules, "k_diffusion", package)
    for name in ("torchdiffeq", "torchsde", "torchvision", "torchvision.transforms"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    return required("k_diffusion.sampling")


def gaussian():
    """Anisotropic Gaussian data with a mean, in rotated axes."""
    rng = np.random.default_rng(1)
    basis, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    mean, variances = np.array([0.3, -0.2, 0.1, 0.5]), np.array([0.01, 0.25, 1.0, 0.09])
    return GaussianDenoiser(jnp.asarray(mean), jnp.asarray(basis), jnp.asarray(variances))


def mixture():
    """Three anisotropic components that overlap."""
    rng = np.random.default_rng(0)
    bases = np.stack([np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(3)])
    means, variances = 0.6 * rng.normal(size=(3, 4)), rng.uniform(0.02, 0.3, (3, 4))
    return mixture_denoiser(np.array([0.5, 0.3, 0.2]), means, bases, variances, np.zeros(3))


@pytest.fixture(params=[gaussian, mixture], ids=lambda make: make.__name__)
def denoise(request):
    return request.param()


@pytest.fixture
def start():
    """x0 + sigma z, as a function of sigma; unscaled coordinates."""
    x0 = np.random.default_rng(2).uniform(-1, 1, (16, *SHAPE))
    z = np.asarray(NoiseBank(0, 16, SHAPE).all(), np.float64)
    return lambda sigma: x0 + sigma * z


@jax.jit
def denoised_at(denoise, x, sigma):
    return denoise(x, jnp.full(x.shape[:1], sigma))


def ours(name, denoise, x, sigmas):
    table = SolverTable(*(jnp.asarray(a) for a in get_solver(name).table(sigmas)))
    return np.asarray(run_table(denoise, jnp.asarray(x), table, None))


def diffuse(torch, scheduler, denoise, x, sigmas, *, change=None, **options):
    """The sampling loop of diffusers.

    Args:
        torch: the module.
        scheduler: after its set_timesteps.
        denoise: a DenoiseFn.
        x: numpy, unscaled coordinates, at the first level.
        sigmas: levels of the scheduler, the last one included.
        change: from the index of a step to options of the scheduler that hold from then on.
        options: of the scheduler's step.
    """
    scale = 1.0 / np.sqrt(1.0 + sigmas**2)  # sqrt(abar)
    x_t = torch.from_numpy(scale[0] * x)
    for k, t in enumerate(scheduler.timesteps):
        if change is not None:
            scheduler.register_to_config(**change(k))
        unscaled = x_t.numpy() / scale[k]
        noise = (unscaled - np.asarray(denoised_at(denoise, unscaled, sigmas[k]))) / sigmas[k]
        x_t = scheduler.step(torch.from_numpy(noise), t, x_t, **options).prev_sample
    return x_t.numpy() / scale[-1]


def vp_sigmas(scheduler):
    abar = scheduler.alphas_cumprod.double().numpy()
    return np.sqrt((1.0 - abar) / abar)


VP = dict(
    num_train_timesteps=1000,
    beta_start=1e-4,
    beta_end=0.02,
    beta_schedule="linear",
    prediction_type="epsilon",
    thresholding=False,
)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("to_zero", [True, False])
def test_ddim_is_that_of_diffusers(spacing, to_zero, diffusers, torch, denoise, start):
    scheduler = diffusers.DDIMScheduler(
        **VP,
        clip_sample=False,
        set_alpha_to_one=to_zero,
        steps_offset=1,  # read only by "leading": without it the last step from t = 0 is empty
        timestep_spacing=spacing,
        rescale_betas_zero_snr=False,
    )
    scheduler.set_timesteps(NUM_STEPS)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    levels = vp_sigmas(scheduler)
    sigmas = np.append(levels[scheduler.timesteps], 0.0 if to_zero else levels[0])
    x = start(sigmas[0])
    got = ours("ddim", denoise, x, sigmas)
    want = diffuse(torch, scheduler, denoise, x, sigmas, eta=0.0)
    np.testing.assert_allclose(got, want, rtol=0, atol=BOUND)


def multistep(diffusers, torch, name, grid, end):
    """A multistep scheduler, its levels in float64, and what `diffuse` has to change on the way."""
    pinned = dict(
        **VP,
        solver_order={"ddim": 1, "dpmpp_2m": 2, "dpmpp_3m": 3, "unipc_2": 2, "unipc_3": 3}[name],
        lower_order_final=False,
        use_karras_sigmas=grid == "karras",
        use_exponential_sigmas=False,
        use_beta_sigmas=False,
        use_flow_sigmas=False,
        timestep_spacing="linspace" if grid == "karras" else grid,
        steps_offset=0,
        final_sigmas_type=end,
        rescale_betas_zero_snr=False,
    )
    change = None
    if name.startswith("unipc"):
        pinned.update(solver_type="bh2", predict_x0=True, disable_corrector=[], solver_p=None)
        scheduler = diffusers.UniPCMultistepScheduler(**pinned)
        if end == "zero":  # a step of higher order to 0 is not a number
            change = lambda k: dict(lower_order_final=k == NUM_STEPS - 1)  # noqa: E731
    else:
        pinned.update(
            algorithm_type="dpmsolver++",
            solver_type="midpoint",
            euler_at_final=False,
            use_lu_lambdas=False,
            lambda_min_clipped=-float("inf"),
            variance_type=None,
        )
        scheduler = diffusers.DPMSolverMultistepScheduler(**pinned)
    scheduler.set_timesteps(NUM_STEPS)
    scheduler.sigmas = scheduler.sigmas.double()  # the same levels; its weights in float64
    return scheduler, change


MULTISTEP = ["ddim", "dpmpp_2m", "dpmpp_3m", "unipc_2", "unipc_3"]


@pytest.mark.parametrize(
    "grid, end",
    [
        ("linspace", "zero"),
        ("linspace", "sigma_min"),
        ("leading", "sigma_min"),
        ("trailing", "zero"),
        ("karras", "zero"),
    ],
)
@pytest.mark.parametrize("name", MULTISTEP)
def test_multistep_solvers_are_those_of_diffusers(
    name, grid, end, diffusers, torch, denoise, start
):
    scheduler, change = multistep(diffusers, torch, name, grid, end)
    sigmas, levels = scheduler.sigmas.numpy(), vp_sigmas(scheduler)
    last = 0.0 if end == "zero" else levels[0]
    if grid == "karras":
        own = GridSpec("karras", NUM_STEPS, levels[0], levels[-1], rho=7.0, end="zero").sigmas(None)
    else:
        own = np.append(levels[scheduler.timesteps], last)
    np.testing.assert_allclose(sigmas, own, rtol=1e-6)
    x = start(sigmas[0])
    got = ours(name, denoise, x, sigmas)
    want = diffuse(torch, scheduler, denoise, x, sigmas, change=change)
    # DPMSolverMultistepScheduler rounds x_t before each step.
    bound = BOUND if name.startswith("unipc") else FLOAT32_BOUND
    np.testing.assert_allclose(got, want, rtol=0, atol=bound)


@pytest.mark.filterwarnings("ignore:.*algorithm_type.*:FutureWarning")
@pytest.mark.parametrize("grid", ["log_sigma", "karras"])
@pytest.mark.parametrize("name", ["dpm_solver_2", "dpm_solver_3"])
def test_single_step_solvers_are_those_of_diffusers(name, grid, diffusers, torch, denoise, start):
    """The scheduler's inner stages are neighbours in its list of levels: it gets those we visit.

    Of the third order's algorithm 2 (arXiv 2206.00927) solver_type "heun" has the second stage and
    "midpoint" the step itself, so each is asked for where it is the paper's.
    """
    order = get_solver(name).evaluations
    sigmas = GridSpec(grid, NUM_STEPS, 0.01, 157.0, end="sigma_min").sigmas(None)
    visited = np.append(get_solver(name).table(sigmas).sigma, sigmas[-1])
    scheduler = diffusers.DPMSolverSinglestepScheduler(
        **VP,
        solver_order=order,
        algorithm_type="dpmsolver",
        solver_type="midpoint",
        lower_order_final=False,
        use_karras_sigmas=False,
        use_exponential_sigmas=False,
        use_beta_sigmas=False,
        use_flow_sigmas=False,
        final_sigmas_type="sigma_min",
        lambda_min_clipped=-float("inf"),
        variance_type=None,
    )
    scheduler.set_timesteps(order * NUM_STEPS)
    assert scheduler.order_list == list(range(1, order + 1)) * NUM_STEPS
    scheduler.sigmas = torch.from_numpy(visited)
    heun = lambda k: order == 3 and k % 3 == 1  # noqa: E731
    change = lambda k: dict(solver_type="heun" if heun(k) else "midpoint")  # noqa: E731
    x = start(sigmas[0])
    got = ours(name, denoise, x, sigmas)
    want = diffuse(torch, scheduler, denoise, x, visited, change=change)
    np.testing.assert_allclose(got, want, rtol=0, atol=BOUND)


@pytest.mark.parametrize(
    "name, sampler",
    [
        ("ddim", "sample_euler"),
        ("heun", "sample_heun"),
        ("dpm_solver_2", "sample_dpm_2"),
        ("dpmpp_2m", "sample_dpmpp_2m"),
    ],
)
def test_solvers_are_those_of_k_diffusion(name, sampler, k_sampling, torch, denoise, start):
    levels = k_sampling.get_sigmas_karras(18, 0.002, 80, 7.0)
    sigmas = GridSpec("karras", 18, 0.002, 80.0, rho=7.0, end="zero").sigmas(None)
    np.testing.assert_allclose(levels.numpy(), sigmas, rtol=1e-12)

    def model(x, sigma):
        return torch.from_numpy(np.array(denoised_at(denoise, x.numpy(), float(sigma[0]))))

    x = start(sigmas[0])
    got = ours(name, denoise, x, sigmas)
    want = getattr(k_sampling, sampler)(model, torch.from_numpy(x), levels, disable=True).numpy()
    np.testing.assert_allclose(got, want, rtol=0, atol=BOUND)


def test_the_grids_of_k_diffusion_are_ours(k_sampling):
    for grid, make in (("karras", "karras"), ("log_sigma", "exponential")):
        want = getattr(k_sampling, f"get_sigmas_{make}")(18, 0.002, 80.0).numpy()
        got = GridSpec(grid, 18, 0.002, 80.0, rho=7.0, end="zero").sigmas(None)
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_no_two_solvers_agree_on_these_grids(denoise, start):
    """So the bounds tell each from all others."""
    names = [name for name, solver in SOLVERS.items() if not solver.stochastic]
    sigmas = GridSpec("karras", NUM_STEPS, 0.01, 157.0, end="sigma_min").sigmas(None)
    images = [ours(name, denoise, start(157.0), sigmas) for name in names]
    for i, one in enumerate(images):
        for j in range(i):
            assert np.abs(one - images[j]).max() > 1e-3, (names[i], names[j])
