"""Consistency and progressive distillation against Gaussian data, whose flow is known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.special import erf

from reprojax.diffusion.grids import GridSpec
from reprojax.diffusion.karras import karras_level, karras_place
from reprojax.diffusion.kernels import make_kernel
from reprojax.diffusion.losses.consistency import (
    ConsistencyDistillation,
    ConsistencyTraining,
    ImprovedConsistencyTraining,
    pseudo_huber,
)
from reprojax.diffusion.losses.distillation import ProgressiveDistillation, _two_steps
from reprojax.diffusion.losses.table import OBJECTIVES, make_objective, objective_options
from reprojax.diffusion.preconditioning import Preconditioning
from reprojax.errors import InputError
from reprojax.rng import normal, root_key
from reprojax.sampling.flow import run_table
from reprojax.sampling.solvers.coefficients import SolverTable
from reprojax.sampling.solvers.table import get_solver
from reprojax.types import Companions

SHAPE = (4096, 2, 2, 1)
DEVIATION, LOW, HIGH = 0.7, 0.002, 80.0
EDM = make_kernel("edm")


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def denoiser(x, sigma, cond=None):
    """Exact for N(0, .7^2)."""
    shrink = DEVIATION**2 / (DEVIATION**2 + sigma**2)
    return x * shrink[:, None, None, None]


def flow_map(x, sigma, cond=None):
    """Exact end point at sigma_min of the flow of N(0, .7^2)."""
    ratio = (DEVIATION**2 + LOW**2) / (DEVIATION**2 + sigma**2)
    return x * jnp.sqrt(ratio)[:, None, None, None]


def images():
    return DEVIATION * normal(root_key(5), SHAPE).astype(jnp.float64)


def companions(step=0, teacher=denoiser, ema=flow_map):
    return Companions(ema, teacher, jnp.asarray(step))


def test_a_flow_map_is_the_identity_at_the_smallest_level():
    c = Preconditioning("consistency", EDM, 0.5)(jnp.asarray([LOW, 1.0]))
    np.testing.assert_allclose([c.c_skip[0], c.c_out[0]], [1.0, 0.0], atol=1e-12)
    assert float(c.c_out[1]) > 0.4 and float(c.c_skip[1]) < 0.3


def test_levels_are_those_of_the_samplers_grid():
    grid = GridSpec(num_steps=8, end="sigma_min").sigmas(EDM)
    levels = karras_level(jnp.arange(9) / 8, LOW, HIGH, 7.0)
    np.testing.assert_allclose(levels, grid, rtol=1e-12)
    np.testing.assert_allclose(karras_place(levels, LOW, HIGH, 7.0), np.arange(9) / 8, atol=1e-12)


def test_pseudo_huber_is_the_published_metric():
    error = np.random.default_rng(0).normal(size=(3, 4, 5, 2))
    c = 0.00054 * math.sqrt(40)
    want = np.sqrt((error**2).sum((1, 2, 3)) + c**2) - c
    np.testing.assert_allclose(pseudo_huber(jnp.asarray(error)), want)


@pytest.mark.parametrize("levels, most", [(18, 0.15), (160, 0.002)])
def test_distillation_of_the_exact_teacher_leaves_only_a_heun_steps_error(levels, most):
    """The exact flow map is what distillation converges to; another is far from it."""
    loss = ConsistencyDistillation(EDM, 0.5, 100, levels, levels)
    run = lambda f: float(loss.loss(f, images(), root_key(1), None, companions()))  # noqa: E731
    assert run(flow_map) < most
    assert run(lambda x, s, c=None: 0.8 * flow_map(x, s)) > 0.1


def test_distillations_lower_point_is_on_the_teachers_path():
    loss = ConsistencyDistillation()
    x = 3.0 * images()
    high, low = jnp.full(len(x), 1.0), jnp.full(len(x), 0.99)
    lower = loss.lower_point(None, None, x, low, high, None, companions())
    exact = x * math.sqrt((DEVIATION**2 + 0.99**2) / (DEVIATION**2 + 1.0))
    np.testing.assert_allclose(lower, exact, atol=1e-6)


def test_training_needs_no_teacher_and_prefers_the_exact_map():
    """E[x_lo | x_hi] is a step of the flow, so that the exact map is stationary: in the limit."""
    loss = ConsistencyTraining(EDM, 0.5, 100, 2, 150)
    at = lambda a: float(  # noqa: E731
        loss.loss(
            lambda x, s, c=None: x * ((1 - a) + a * flow_map(jnp.ones_like(x), s)),
            images(),
            root_key(2),
            None,
            companions(100, teacher=None),
        )
    )
    assert at(1.0) < at(0.9) and at(1.0) < at(1.1)


def test_no_gradient_reaches_the_target():
    loss = ImprovedConsistencyTraining(EDM, 0.5, 100)
    both = lambda w, v: loss.loss(  # noqa: E731
        lambda x, s, c=None: w * x, images(), root_key(0), None, companions()
    )
    got = jax.grad(both)(0.5, 0.5)
    h = 1e-6
    numeric = (both(0.5 + h, 0.5) - both(0.5 - h, 0.5)) / (2 * h)
    assert abs(got - numeric) > 1e-2 * abs(got)  # the numeric one moves the target too


def test_schedules_are_the_published_ones():
    ct = ConsistencyTraining(EDM, 0.5, 1000, 2, 150)
    assert float(ct.intervals(0)) == 1 and float(ct.intervals(1000)) == 150
    half = math.ceil(math.sqrt(0.5 * (151**2 - 4) + 4) - 1)
    assert float(ct.intervals(500)) == half
    ict = ImprovedConsistencyTraining(EDM, 0.5, 800, 10, 1280)
    grown = [float(ict.intervals(jnp.asarray(k))) for k in (0, 99, 100, 350, 700, 799)]
    assert grown == [10, 10, 20, 80, 1280, 1280]
    assert float(ConsistencyDistillation().intervals(7)) == 18


def test_icts_levels_have_the_mass_of_a_log_normal():
    loss = ImprovedConsistencyTraining(EDM, 0.5, 800, 10, 1280)
    low, high = loss.levels(root_key(0), 200_000, jnp.asarray(0))
    edges = np.asarray(karras_level(jnp.arange(11) / 10, LOW, HIGH, 7.0))
    z = erf((np.log(edges) + 1.1) / (2.0 * math.sqrt(2)))
    mass = (z[:-1] - z[1:]) / (z[0] - z[-1])
    place = np.round(10 * np.asarray(karras_place(high, LOW, HIGH, 7.0))).astype(int)
    np.testing.assert_allclose(np.bincount(place, minlength=10) / 200_000, mass, atol=4e-3)
    np.testing.assert_allclose(low, edges[place + 1], rtol=1e-5)
    np.testing.assert_allclose(loss.weight(low, high), 1 / (high - low))


def test_consistency_training_counts_levels_from_zero_to_the_end():
    loss = ConsistencyTraining(EDM, 0.5, 10, 4, 4)
    low, high = loss.levels(root_key(0), 10_000, jnp.asarray(10))
    assert float(high.max()) == pytest.approx(HIGH) and float(low.min()) == pytest.approx(LOW)
    assert (low < high).all() and len(np.unique(np.round(high, 6))) == 4


def test_one_step_of_the_student_is_two_of_the_teacher():
    x = 5.0 * images()
    levels = [jnp.full(len(x), s) for s in (4.0, 2.5, 1.0)]
    goal = _two_steps(denoiser, x, *levels, None)
    step = lambda x, d, a, b: (b / a) * x + (1 - b / a) * d  # noqa: E731
    half = step(x, denoiser(x, levels[0]), 4.0, 2.5)
    end = step(half, denoiser(half, levels[1]), 2.5, 1.0)
    np.testing.assert_allclose(step(x, goal, 4.0, 1.0), end, atol=1e-12)


def test_progressive_stages_halve_the_steps():
    loss = ProgressiveDistillation(EDM, 0.5, 100, 16, 4)
    steps = jnp.arange(100)
    assert [int(n) for n in loss.student_steps(steps)[jnp.asarray([0, 32, 33, 66, 99])]] == (
        [16, 16, 8, 4, 4]
    )
    assert np.flatnonzero(loss.new_teacher(steps)).tolist() == [33, 66]


def test_the_student_that_is_told_its_goal_has_no_loss():
    """On one level of one step the goal is a function of x alone, and it is met exactly."""
    loss = ProgressiveDistillation(EDM, 0.5, 10, 1, 1)
    x = lambda s: karras_level(jnp.asarray(s), LOW, HIGH, 7.0)  # noqa: E731

    def student(y, sigma, cond=None):
        now, mid, low = (jnp.broadcast_to(x(s), sigma.shape) for s in (0.0, 0.5, 1.0))
        return _two_steps(denoiser, y, now, mid, low, None)

    exact = float(loss.loss(student, images(), root_key(0), None, companions()))
    assert exact < 1e-10
    other = float(loss.loss(denoiser, images(), root_key(0), None, companions()))
    assert other > 1e-3


def test_the_few_step_sampler_puts_the_stated_noise_back():
    sigmas = GridSpec(num_steps=3, end="sigma_min").sigmas(EDM)
    table = get_solver("consistency").table(sigmas)
    np.testing.assert_allclose(table.sigma, sigmas[:3])
    want = [0.0, *np.sqrt(sigmas[1:3] ** 2 - LOW**2), 0.0]
    np.testing.assert_allclose(table.noise, want)
    keys = jax.vmap(lambda i: jax.random.fold_in(root_key(9), i))(jnp.arange(SHAPE[0]))
    z = HIGH * normal(root_key(3), SHAPE)
    table = SolverTable(*(jnp.asarray(a) for a in table))
    run = lambda: np.asarray(run_table(Partial(flow_map), z, table, None, keys))  # noqa: E731
    out = run()
    assert abs(out.std() - DEVIATION) < 0.02  # the exact map keeps the data's spread at any step
    np.testing.assert_array_equal(out, run())


def test_options_are_checked_by_name():
    assert objective_options("edm") == {} and objective_options("cd")["first_levels"] == 18
    assert {"ct", "ict", "cd", "progressive"} < set(OBJECTIVES)
    for name, options, field in (
        ("ict", {"levels": 3}, "options.levels"),
        ("ict", {"first_levels": 9, "last_levels": 3}, "options.last_levels"),
        ("cd", {"first_levels": 18, "last_levels": 20}, "options.last_levels"),
        ("progressive", {"first_steps": 12, "last_steps": 4}, "options.first_steps"),
        ("edm", {"first_levels": 1}, "options.first_levels"),
        ("consistency", {}, "objective"),
    ):
        with pytest.raises(InputError, match=field):
            make_objective(name, EDM, 0.5, 10, options)
    with pytest.raises(InputError, match="kernel"):
        make_objective("ct", make_kernel("vp"), 0.5, 10, {})
