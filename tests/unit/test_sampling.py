"""Sampling a bank: padding, batches, dtypes, no recompilation, refusals."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reprojax.denoisers.base import Denoiser
from reprojax.denoisers.gaussian import gaussian_denoiser
from reprojax.diffusion.grids import GridSpec
from reprojax.errors import InputError
from reprojax.runtime.mesh import make_mesh
from reprojax.sampling import flow
from reprojax.sampling.conditions import ConditionBank
from reprojax.sampling.flow import SamplerSpec, encode, sample, sample_batches
from reprojax.sampling.noise import NoiseBank

BANK = NoiseBank(0, 20, (4, 4, 1))
SPEC = SamplerSpec("heun", GridSpec(num_steps=6), batch_size=8)


@pytest.fixture(scope="module")
def denoise():
    rng = np.random.default_rng(0)
    return gaussian_denoiser([rng.normal(0.1, 0.4, (50, 4, 4, 1))])


@pytest.mark.parametrize("batch_size", [1, 7, 20, 64])
@pytest.mark.parametrize("solver", ["heun", "tsit5"])
def test_the_batch_size_does_not_matter(denoise, batch_size, solver):
    spec = replace(SPEC, solver=solver)
    whole = sample(denoise, BANK, replace(spec, batch_size=20))
    batches = sample(denoise, BANK, replace(spec, batch_size=batch_size))
    assert batches.images.shape == (20, 4, 4, 1) and batches.images.dtype == np.float32
    np.testing.assert_allclose(batches.images, whole.images, atol=1e-5)
    assert batches.nfe == whole.nfe


def test_it_can_start_in_the_middle(denoise):
    whole = sample(denoise, BANK, SPEC).images
    tail = np.concatenate([b for b, _ in sample_batches(denoise, BANK, SPEC, start=8)])
    np.testing.assert_array_equal(tail, whole[8:])


def test_another_solver_or_grid_of_equal_nfe_does_not_recompile(denoise):
    mesh = make_mesh(jax.devices()[:1])

    def call(**change):
        sample(denoise, BANK, replace(SPEC, **change), mesh=mesh)

    call(solver="ddim", grid=GridSpec(num_steps=11))
    before = flow.run_table._cache_size()
    call(solver="dpmpp_2m", grid=GridSpec("log_sigma", num_steps=11))
    call()  # Heun with 6 steps: 11 evaluations
    call(solver="ddim", grid=GridSpec(num_steps=11, sigma_max=100.0, end="sigma_min"))
    other = jax.tree.map(lambda a: a + 0.01, denoise)
    sample(other, BANK, SPEC, mesh=mesh)
    assert flow.run_table._cache_size() == before


def test_float64_state_agrees_and_nfe_is_counted(denoise):
    single, double = (
        sample(denoise, BANK, SPEC),
        sample(denoise, BANK, replace(SPEC, dtype="float64")),
    )
    np.testing.assert_allclose(single.images, double.images, atol=1e-4)
    assert single.nfe == double.nfe == 11
    calls = []

    class Counting(Denoiser):
        def __call__(self, x, sigma, cond=None):
            jax.debug.callback(lambda: calls.append(1))
            return 0.5 * x

    jax.tree_util.register_pytree_node(Counting, lambda c: ((), None), lambda *_: Counting())
    result = sample(Counting(), NoiseBank(0, 8, (4, 4, 1)), SPEC)
    jax.effects_barrier()
    assert len(calls) == result.nfe == 11


def test_adaptive_end_at_zero_is_one_more_evaluation(denoise):
    spec = replace(SPEC, solver="tsit5")
    at_zero = sample(denoise, BANK, spec)
    at_min = sample(denoise, BANK, replace(spec, grid=GridSpec(num_steps=6, end="sigma_min")))
    assert at_zero.nfe == at_min.nfe + 1
    assert 0 < np.abs(at_zero.images - at_min.images).max() < 0.02


def test_labels_follow_their_noises():
    class ByLabel(Denoiser):
        def __call__(self, x, sigma, cond=None):
            return jnp.broadcast_to(cond.astype(x.dtype)[:, None, None, None], x.shape)

    jax.tree_util.register_pytree_node(ByLabel, lambda c: ((), None), lambda *_: ByLabel())
    labels = np.arange(20, dtype=np.int32) % 3
    for solver in ("heun", "tsit5"):
        images = sample(
            ByLabel(), BANK, replace(SPEC, solver=solver), conditions=ConditionBank(labels, 3)
        ).images
        np.testing.assert_allclose(images[:, 0, 0, 0], labels, atol=1e-3)


def test_the_identity_holds_what_decides_the_images_and_no_more():
    same = SPEC.identity()
    assert replace(SPEC, batch_size=3, rtol=0.1, atol=0.1).identity() == same
    ddim = replace(SPEC, solver="ddim").identity()
    assert replace(SPEC, solver="euler").identity() == ddim != same
    for grid in (GridSpec(num_steps=7), GridSpec(num_steps=6, rho=5.0), GridSpec("log_sigma", 6)):
        assert replace(SPEC, grid=grid).identity() != same
    adaptive = replace(SPEC, solver="tsit5")
    assert replace(adaptive, grid=GridSpec(num_steps=99)).identity() == adaptive.identity()
    assert replace(adaptive, rtol=1e-6).identity() != adaptive.identity()
    assert replace(SPEC, dtype="float64").identity() != same


def test_sampling_leaves_the_precision_of_others_alone(denoise):
    for dtype in ("float32", "float64"):
        for _ in sample_batches(denoise, BANK, replace(SPEC, dtype=dtype)):
            assert not jax.config.jax_enable_x64
            with jax.enable_x64(True):
                assert jnp.zeros(1).dtype == jnp.float64


@pytest.mark.parametrize("solver", ["ddpm", "edm_churn"])
def test_fresh_noise_belongs_to_the_image_not_to_the_batch(denoise, solver):
    spec = replace(SPEC, solver=solver)
    whole = sample(denoise, BANK, spec).images
    for batch_size in (1, 7, 64):
        images = sample(denoise, BANK, replace(spec, batch_size=batch_size)).images
        np.testing.assert_allclose(images, whole, atol=2e-5)
    tail = np.concatenate([b for b, _ in sample_batches(denoise, BANK, spec, start=8)])
    np.testing.assert_array_equal(tail, whole[8:])
    other = sample(denoise, BANK, replace(spec, noise_seed=1)).images
    assert np.abs(other - whole).max() > 0.3
    assert replace(spec, noise_seed=1).identity() != spec.identity()
    assert replace(SPEC, noise_seed=1).identity() == SPEC.identity()  # Heun draws none


@pytest.mark.parametrize("solver", ["ddpm", "edm_churn"])
def test_stochastic_samples_have_the_distribution_of_the_data(solver):
    """Of N(.2, .5^2), 32,000 draws; with fewer steps DDPM's smaller variance is too small."""
    point = gaussian_denoiser([np.array([-0.3, 0.7]).reshape(2, 1, 1, 1)])  # mean .2, deviation .5
    spec = replace(SPEC, solver=solver, grid=GridSpec(num_steps=800), batch_size=2000)
    images = sample(point, NoiseBank(3, 32_000, (1, 1, 1)), spec).images
    assert abs(images.mean() - 0.2) < 0.01 and abs(images.std() - 0.5) < 0.01


def test_ancestral_noise_forgets_the_start(denoise):
    """A deterministic solver's image is a function of its noise; ancestral sampling's hardly."""
    limit = sample(denoise, BANK, replace(SPEC, grid=GridSpec(num_steps=100))).images
    ancestral = replace(SPEC, solver="ddpm", grid=GridSpec(num_steps=200))
    images = sample(denoise, BANK, ancestral).images

    def correlation(a):
        return np.corrcoef((a - a.mean(0)).ravel(), (limit - limit.mean(0)).ravel())[0, 1]

    assert correlation(sample(denoise, BANK, replace(SPEC, solver="unipc_2")).images) > 0.99
    assert abs(correlation(images)) < 0.4


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpm_solver_3", "unipc_2", "ipndm", "tsit5"])
def test_encoding_is_the_way_back(denoise, solver):
    grid = GridSpec(num_steps=100, end="sigma_min")
    spec = replace(SPEC, solver=solver, grid=grid, dtype="float64", rtol=1e-6, atol=1e-6)
    images = sample(denoise, BANK, spec).images
    back = encode(denoise, images, spec)
    limit = {"ddim": 0.3, "unipc_2": 3e-3}.get(solver, 1e-3)
    np.testing.assert_allclose(back.images, BANK.all(), atol=limit)
    assert back.images.dtype == np.float32 and back.nfe >= 100
    batches = encode(denoise, images, replace(spec, batch_size=7)).images
    np.testing.assert_allclose(batches, back.images, atol=1e-6)


def test_a_stochastic_solver_does_not_encode(denoise):
    with pytest.raises(InputError, match="'ddpm': must be deterministic, to encode"):
        encode(denoise, np.zeros((2, 4, 4, 1), np.float32), replace(SPEC, solver="ddpm"))


def test_a_flow_map_is_refused():
    class Consistency:
        is_flow_map = True

    with pytest.raises(InputError, match="must be 'consistency' for a flow map"):
        sample(Consistency(), BANK, SPEC)


@pytest.mark.parametrize(
    "change, field",
    [
        (dict(solver="huen"), "did you mean 'heun'"),
        (dict(dtype="float16"), "sampling.dtype"),
        (dict(batch_size=0), "sampling.batch_size"),
        (dict(rtol=0.0), "sampling.rtol"),
    ],
)
def test_bad_specs_are_named(change, field):
    with pytest.raises(InputError, match=field):
        SamplerSpec(**change)
