"""Solvers on data with a closed-form flow: observed order, agreement, invariances. Float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from reprojax.denoisers.gaussian import GaussianDenoiser
from reprojax.diffusion.grids import GridSpec
from reprojax.diffusion.kernels import make_kernel
from reprojax.errors import InputError
from reprojax.sampling.adaptive import ADAPTIVE, solve_adaptive
from reprojax.sampling.flow import SamplerSpec, run_table
from reprojax.sampling.noise import NoiseBank
from reprojax.sampling.solvers import SOLVERS, SolverTable, get_solver

SHAPE = (2, 2, 1)
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
STEPS = (160, 320, 640, 1280)


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


def solve(gaussian, z, solver, num_steps, grid="karras", end="sigma_min", kernel="edm"):
    spec = SamplerSpec(
        solver,
        GridSpec(grid, num_steps, SIGMA_MIN, SIGMA_MAX, end=end),
        kernel=make_kernel(kernel),
        dtype="float64",
    )
    table = SolverTable(*(jnp.asarray(a) for a in spec.table()))
    return np.asarray(run_table(gaussian, z, table, jnp.asarray(SIGMA_MAX), None))


def test_the_closed_form_flow_is_right(gaussian, z):
    """The oracle itself against scipy's adaptive integrator."""

    def slope(sigma, x):
        denoised = gaussian(jnp.asarray(x.reshape(1, *SHAPE)), jnp.asarray([sigma]))
        return (x - np.asarray(denoised).ravel()) / sigma

    start = SIGMA_MAX * np.asarray(z[0]).ravel()
    got = solve_ivp(slope, (SIGMA_MAX, SIGMA_MIN), start, rtol=1e-10, atol=1e-12).y[:, -1]
    np.testing.assert_allclose(got, exact_flow(gaussian, z)[0].ravel(), atol=1e-7)


@pytest.mark.parametrize("grid", ["karras", "log_sigma"])
@pytest.mark.parametrize("name", SOLVERS)
def test_observed_order_is_the_stated_one(name, grid, gaussian, z):
    truth = exact_flow(gaussian, z)
    errors = [np.abs(solve(gaussian, z, name, n, grid) - truth).max() for n in STEPS[1:]]
    slope = -np.polyfit(np.log(STEPS[1:]), np.log(errors), 1)[0]
    assert abs(slope - SOLVERS[name].order) < 0.15, (name, slope, errors)
    assert errors[-1] < 5e-3


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_error_falls_with_the_tolerance(name, gaussian, z):
    truth = exact_flow(gaussian, z)
    ends = jnp.asarray([SIGMA_MAX, SIGMA_MIN])
    errors, cost = [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        rates = jnp.asarray([tolerance, tolerance])
        x, nfe = solve_adaptive(gaussian, z, ends, rates, None, solver=name)
        errors.append(np.abs(np.asarray(x) - truth).max())
        cost.append(float(np.mean(nfe)))
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-5 and cost[0] < cost[1] < cost[2]


@pytest.mark.parametrize("name", ADAPTIVE)
def test_an_adaptive_sample_does_not_depend_on_its_neighbours(name, gaussian, z):
    ends, rates = jnp.asarray([SIGMA_MAX, SIGMA_MIN]), jnp.asarray([1e-4, 1e-4])
    together, _ = solve_adaptive(gaussian, z, ends, rates, None, solver=name)
    alone, _ = solve_adaptive(gaussian, z[3:4], ends, rates, None, solver=name)
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


@pytest.mark.parametrize("name", SOLVERS)
def test_tables_count_their_evaluations(name):
    solver = SOLVERS[name]
    kernel = make_kernel("edm")
    inner = solver.table(GridSpec(num_steps=9, end="sigma_min").sigmas(kernel))
    assert len(inner.sigma) == 9 * solver.evaluations
    to_zero = solver.table(GridSpec(num_steps=9).sigmas(kernel))
    assert len(to_zero.sigma) == 9 * solver.evaluations - (solver.evaluations - 1)
    assert all(np.isfinite(part).all() for part in to_zero)
    np.testing.assert_allclose(to_zero.x.sum(1)[-1], 1.0)  # constants are fixed points


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
