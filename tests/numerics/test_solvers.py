"""Solvers on data with a closed-form flow: observed order, agreement, invariances. Float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from reprojax.denoisers.gaussian import GaussianDenoiser
from reprojax.denoisers.mixture import mixture_denoiser
from reprojax.diffusion.grids import GridSpec
from reprojax.diffusion.kernels import make_kernel
from reprojax.errors import InputError
from reprojax.sampling.flow import SamplerSpec, run_table
from reprojax.sampling.noise import NoiseBank
from reprojax.sampling.solvers.adaptive import ADAPTIVE, solve_adaptive
from reprojax.sampling.solvers.coefficients import SolverTable
from reprojax.sampling.solvers.table import SOLVERS, get_solver

SHAPE = (2, 2, 1)
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
STEPS = (320, 640, 1280)
FIXED = [name for name, solver in SOLVERS.items() if not solver.stochastic]


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def gaussian():
    """Anisotropic Gaussian data with a mean, in rotated axes."""
    rng = np.random.default_rng(1)
    basis, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    mean, variances = np.array([0.3, -0.2, 0.1, 0.5]), np.array([0.01, 0.25, 1.0, 0.09])
    return GaussianDenoiser(jnp.asarray(mean), jnp.asarray(basis), jnp.asarray(variances))


@pytest.fixture
def z():
    return jnp.asarray(NoiseBank(0, 16, SHAPE).all(), jnp.float64)


def exact_flow(gaussian, z, sigma_min=SIGMA_MIN):
    """Each principal axis contracts by sqrt((v + sigma_min^2) / (v + sigma_max^2))."""
    mean, basis = np.asarray(gaussian.mean), np.asarray(gaussian.basis)
    v = np.asarray(gaussian.variances)
    x = SIGMA_MAX * np.asarray(z).reshape(len(z), -1) - mean
    factor = np.sqrt((v + sigma_min**2) / (v + SIGMA_MAX**2))
    return (mean + (x @ basis * factor) @ basis.T).reshape(np.shape(z))


def solve(
    denoise,
    z,
    solver,
    num_steps,
    grid="karras",
    end="sigma_min",
    kernel="edm",
    sigma_max=SIGMA_MAX,
    sigma_min=SIGMA_MIN,
):
    spec = SamplerSpec(
        solver,
        GridSpec(grid, num_steps, sigma_min, sigma_max, end=end),
        kernel=make_kernel(kernel),
        dtype="float64",
    )
    table = SolverTable(*(jnp.asarray(a) for a in spec.table()))
    return np.asarray(run_table(denoise, sigma_max * z, table, None))


def test_the_closed_form_flow_is_right(gaussian, z):
    """The oracle itself against scipy's adaptive integrator."""

    def slope(sigma, x):
        denoised = gaussian(jnp.asarray(x.reshape(1, *SHAPE)), jnp.asarray([sigma]))
        return (x - np.asarray(denoised).ravel()) / sigma

    start = SIGMA_MAX * np.asarray(z[0]).ravel()
    got = solve_ivp(slope, (SIGMA_MAX, SIGMA_MIN), start, rtol=1e-10, atol=1e-12).y[:, -1]
    np.testing.assert_allclose(got, exact_flow(gaussian, z)[0].ravel(), atol=1e-7)


@pytest.fixture
def mixture():
    """Three anisotropic components that overlap."""
    rng = np.random.default_rng(0)
    bases = np.stack([np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(3)])
    means, variances = 0.6 * rng.normal(size=(3, 4)), rng.uniform(0.02, 0.3, (3, 4))
    return mixture_denoiser(np.array([0.5, 0.3, 0.2]), means, bases, variances, np.zeros(3))


def slope_of(errors, steps):
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


def rms(a, b):
    return float(np.sqrt(np.mean((a - b) ** 2)))


@pytest.mark.parametrize("grid", ["karras", "log_sigma"])
@pytest.mark.parametrize("name", [n for n in FIXED if n != "unipc_3"])
def test_observed_order_is_the_stated_one_on_gaussian_data(name, grid, gaussian, z):
    # the third order's error passes through 0 on the Karras grid at fewer steps
    steps = [2 * n for n in STEPS] if name == "dpm_solver_3" else STEPS
    truth = exact_flow(gaussian, z)
    errors = [rms(solve(gaussian, z, name, n, grid), truth) for n in steps]
    assert abs(slope_of(errors, steps) - SOLVERS[name].order) < 0.1, errors
    assert errors[-1] < 5e-3


@pytest.mark.parametrize("grid", ["karras", "log_sigma"])
@pytest.mark.parametrize("name", [n for n in FIXED if n != "unipc_3"])
def test_observed_order_is_the_stated_one_on_a_mixture(name, grid, mixture, z):
    truth = solve(mixture, z, "unipc_3", 10_000, grid)  # itself checked against scipy below
    errors = [rms(solve(mixture, z, name, n, grid), truth) for n in STEPS]
    assert abs(slope_of(errors, STEPS) - SOLVERS[name].order) < 0.1, errors


def test_unipc_3_is_of_order_4_until_its_start_shows(mixture, z):
    """Its first step is of order 2 at best; where sigma_max is large D hardly changes there."""
    for sigma_max, steps, order in ((SIGMA_MAX, (160, 320, 640), 4), (1.0, (640, 1280, 2560), 3)):
        run = lambda n, s=sigma_max: solve(mixture, z, "unipc_3", n, "log_sigma", sigma_max=s)  # noqa: E731
        truth = solve(mixture, z, "dpm_solver_3", 20_000, "log_sigma", sigma_max=sigma_max)
        errors = [rms(run(n), truth) for n in steps]
        assert abs(slope_of(errors, steps) - order) < 0.2, (sigma_max, errors)


def test_the_flow_of_a_mixture_agrees_with_scipy(mixture, z):
    def slope(sigma, x):
        denoised = mixture(jnp.asarray(x.reshape(1, *SHAPE)), jnp.asarray([sigma]))
        return (x - np.asarray(denoised).ravel()) / sigma

    start = SIGMA_MAX * np.asarray(z[0]).ravel()
    want = solve_ivp(slope, (SIGMA_MAX, SIGMA_MIN), start, rtol=1e-10, atol=1e-12).y[:, -1]
    got = solve(mixture, z, "unipc_3", 10_000)[0].ravel()
    np.testing.assert_allclose(got, want, atol=1e-7)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_error_falls_with_the_tolerance(name, gaussian, z):
    truth = exact_flow(gaussian, z)
    ends = jnp.asarray([SIGMA_MAX, SIGMA_MIN])
    errors, cost = [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        rates = jnp.asarray([tolerance, tolerance])
        x, nfe = solve_adaptive(gaussian, SIGMA_MAX * z, ends, rates, None, solver=name)
        errors.append(np.abs(np.asarray(x) - truth).max())
        cost.append(float(np.mean(nfe)))
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-5 and cost[0] < cost[1] < cost[2]


@pytest.mark.parametrize("name", ADAPTIVE)
def test_an_adaptive_sample_does_not_depend_on_its_neighbours(name, gaussian, z):
    ends, rates = jnp.asarray([SIGMA_MAX, SIGMA_MIN]), jnp.asarray([1e-4, 1e-4])
    together, _ = solve_adaptive(gaussian, SIGMA_MAX * z, ends, rates, None, solver=name)
    alone, _ = solve_adaptive(gaussian, SIGMA_MAX * z[3:4], ends, rates, None, solver=name)
    np.testing.assert_allclose(together[3:4], alone, atol=1e-12)


def test_aliases_are_one_implementation():
    sigmas = GridSpec(num_steps=7).sigmas(make_kernel("edm"))
    for alias in ("euler", "dpm_solver_1"):
        assert get_solver(alias) is get_solver("ddim")
    table = get_solver("euler").table(sigmas)
    x, d, k = 1.3, 0.4, 3
    euler = x + (sigmas[k + 1] - sigmas[k]) * (x - d) / sigmas[k]
    assert table.x[k, 0] * x + table.x[k, 2] * d == pytest.approx(euler, abs=1e-14)


def test_heun_is_edm_algorithm_1(gaussian, z):
    """Against the algorithm written out step by step in numpy, last step to 0 included."""
    sigmas = GridSpec(num_steps=18).sigmas(make_kernel("edm"))
    x = SIGMA_MAX * np.asarray(z)
    denoise = lambda x, s: np.asarray(gaussian(jnp.asarray(x), jnp.full(len(x), s)))  # noqa: E731
    for now, then in zip(sigmas[:-1], sigmas[1:], strict=True):
        d = (x - denoise(x, now)) / now
        euler = x + (then - now) * d
        if then > 0:
            d_then = (euler - denoise(euler, then)) / then
            euler = x + (then - now) * 0.5 * (d + d_then)
        x = euler
    got = solve(gaussian, z, "heun", 18, end="zero")
    np.testing.assert_allclose(got, x, atol=1e-10)


def test_dpmpp_2m_is_its_paper(gaussian, z):
    """Against algorithm 2 of arXiv 2211.01095 in lambda = -log sigma, ends of order 1."""
    sigmas = GridSpec(num_steps=12).sigmas(make_kernel("edm"))
    x, previous, h_previous = SIGMA_MAX * np.asarray(z), None, None
    for now, then in zip(sigmas[:-1], sigmas[1:], strict=True):
        d = np.asarray(gaussian(jnp.asarray(x), jnp.full(len(x), now)))
        h = np.log(now / then) if then > 0 else np.inf
        mixed = d
        if previous is not None and np.isfinite(h):
            r = h_previous / h
            mixed = (1 + 1 / (2 * r)) * d - previous / (2 * r)
        x = (then / now) * x - np.expm1(-h) * mixed
        previous, h_previous = d, h
    np.testing.assert_allclose(solve(gaussian, z, "dpmpp_2m", 12, end="zero"), x, atol=1e-10)


def test_dpmpp_3m_would_be_of_order_3_with_the_whole_second_difference(mixture, z):
    """Its published phi_3 is half of the parabola's integral: doubled, the order is 3."""
    truth, errors, steps = solve(mixture, z, "unipc_3", 5_000, "log_sigma"), [], (80, 160, 320)
    for n in steps:
        sigmas = GridSpec("log_sigma", n, SIGMA_MIN, SIGMA_MAX, end="sigma_min").sigmas(None)
        table = get_solver("dpmpp_3m").table(sigmas)
        h = np.log(SIGMA_MAX / SIGMA_MIN) / n
        phi_2 = 1 + np.expm1(-h) / h
        bend = (0.5 - phi_2 / h) * np.array([1.0, -2.0, 1.0]) / 2  # of equal steps
        np.testing.assert_allclose(table.x[5, 2:5], slope_weights(h, phi_2) + bend, atol=1e-12)
        table.x[2:, 2:5] += bend
        table = SolverTable(*(jnp.asarray(a) for a in table))
        errors.append(rms(run_table(mixture, SIGMA_MAX * z, table, None), truth))
    assert abs(slope_of(errors, steps) - 3) < 0.15, errors


def slope_weights(h, phi_2):
    """Of D_0, D_1, D_2 without the bend: e^-h-weighted value and slope at equal steps."""
    return -np.expm1(-h) * np.array([1.0, 0.0, 0.0]) + phi_2 * np.array([1.5, -2.0, 0.5])


@pytest.mark.parametrize("name", SOLVERS)
def test_tables_count_their_evaluations(name):
    solver = SOLVERS[name]
    kernel = make_kernel("edm")
    inner = solver.table(GridSpec(num_steps=9, end="sigma_min").sigmas(kernel))
    assert len(inner.sigma) == 9 * solver.evaluations
    to_zero = solver.table(GridSpec(num_steps=9).sigmas(kernel))
    assert len(to_zero.sigma) == 9 * solver.evaluations - (solver.evaluations - 1)
    assert all(np.isfinite(part).all() for part in to_zero)
    assert all(len(part) == len(to_zero.sigma) for part in to_zero[:-1])
    assert len(to_zero.noise) == len(to_zero.sigma) + 1 and to_zero.noise[-1] == 0
    assert to_zero.noise.any() == solver.stochastic


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("end", ["zero", "sigma_min"])
def test_data_of_one_image_are_reached_exactly(name, end):
    """With D constant the flow is a straight line in sigma, which every solver must follow."""
    point = GaussianDenoiser(jnp.full(4, 0.25), jnp.eye(4), jnp.zeros(4))
    z = jnp.asarray(NoiseBank(1, 3, SHAPE).all(), jnp.float64)
    last = 0.0 if end == "zero" else SIGMA_MIN
    np.testing.assert_allclose(
        solve(point, z, name, 7, end=end), 0.25 + last * (z - 0.25 / SIGMA_MAX), atol=1e-9
    )


def test_grids_meet_their_definitions():
    kernel = make_kernel("vp")
    for name in ("karras", "log_sigma", "uniform_t"):
        sigmas = GridSpec(name, 10, SIGMA_MIN, SIGMA_MAX, end="sigma_min").sigmas(kernel)
        assert sigmas.shape == (11,) and sigmas.dtype == np.float64
        np.testing.assert_allclose(sigmas[[0, -1]], [SIGMA_MAX, SIGMA_MIN], rtol=1e-9)
        even = {
            "karras": sigmas ** (1 / 7),
            "log_sigma": np.log(sigmas),
            "uniform_t": np.asarray(kernel.t_of_sigma(jnp.asarray(sigmas))),
        }[name]
        np.testing.assert_allclose(np.diff(even), (even[-1] - even[0]) / 10, rtol=1e-8)
    # EDM's convention: num_steps levels, then 0
    edm = GridSpec(num_steps=18).sigmas(make_kernel("edm"))
    assert edm[-1] == 0 and edm[-2] == pytest.approx(0.002) and len(edm) == 19


@pytest.mark.parametrize(
    "change, field",
    [
        (dict(num_steps=0), "num_steps"),
        (dict(sigma_min=80.0), "sigma_min"),
        (dict(sigma_min=0.0), "sigma_min"),
        (dict(name="carras"), "grid"),
        (dict(end="never"), "end"),
        (dict(rho=0.0), "rho"),
    ],
)
def test_bad_grids_are_named(change, field):
    with pytest.raises(InputError, match=field):
        GridSpec(**change)
