"""The mixture's denoiser against dense covariances and scipy, and the images it is made with."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import multivariate_normal

from reprojax.data.mixture import CHUNK, MixtureSpec, make_mixture
from reprojax.denoisers.gaussian import GaussianDenoiser
from reprojax.denoisers.mixture import mixture_denoiser, population_denoiser
from reprojax.errors import InputError

SHAPE = (2, 3, 2)
D = 12
SIGMAS = [1e-2, 0.1, 0.5, 2.0, 20.0, 150.0]
RANKS_AND_FLOORS = [(12, 0.0), (12, 0.02), (3, 0.0), (3, 0.02)]


@jax.jit
def run(denoise, x, sigma):
    """Through jit as in a sampler: parameters and sigma, one or `[b]`, are arguments."""
    return denoise(x, jnp.broadcast_to(jnp.asarray(sigma, x.dtype), x.shape[:1]))


def parameters(k, r, floor):
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.5, 1.5, k)
    return dict(
        weights=weights / weights.sum(),
        means=0.3 * rng.normal(size=(k, D)),
        bases=np.stack([np.linalg.qr(rng.normal(size=(D, r)))[0] for _ in range(k)]),
        variances=rng.uniform(0.02, 0.6, (k, r)),
        floors=floor * np.arange(1, k + 1),
    )


def covariances(p):
    low = np.einsum("kdr,kr,ker->kde", p["bases"], p["variances"], p["bases"])
    return low + p["floors"][:, None, None] * np.eye(D)


def draws(p, n):
    """Images of the mixture, float64 `[n, *SHAPE]`."""
    rng = np.random.default_rng(1)
    labels = rng.choice(len(p["weights"]), n, p=p["weights"])
    cov = covariances(p)
    x0 = [rng.multivariate_normal(p["means"][k], cov[k], method="eigh") for k in labels]
    return np.reshape(x0, (n, *SHAPE))


def noisy(p, sigma, n=40):
    x0 = draws(p, n)
    return x0 + sigma * np.random.default_rng(2).normal(size=x0.shape)


def direct(p, x, sigma):
    """The posterior mean by full covariances, float64."""
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    noise = sigma**2 * np.eye(D)
    logs, means = [], []
    for weight, mean, cov in zip(p["weights"], p["means"], covariances(p)):
        density = multivariate_normal(mean, cov + noise).logpdf(flat)
        logs.append(np.log(weight) + np.atleast_1d(density))
        means.append(mean + (flat - mean) @ np.linalg.solve(cov + noise, cov))
    return np.einsum("kb,kbd->bd", softmax(logs, axis=0), means).reshape(x.shape)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize(("r", "floor"), RANKS_AND_FLOORS)
@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-10), ("float32", 4e-6)])
def test_the_denoiser_is_the_posterior_mean(dtype, limit, r, floor, sigma):
    p = parameters(4, r, floor)
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray(noisy(p, sigma), dtype)
        got = run(mixture_denoiser(**p), x, sigma)
        assert got.dtype == dtype and got.shape == x.shape
        np.testing.assert_allclose(got, direct(p, x, sigma), rtol=0, atol=limit)


def test_the_oracle_itself_mixes_components():
    """Otherwise the test above would say nothing of the posterior over components."""
    p = parameters(4, 12, 0.0)
    x = noisy(p, 0.5)
    alone = parameters(4, 12, 0.0) | {"weights": np.array([1 - 3e-9, 1e-9, 1e-9, 1e-9])}
    assert np.abs(direct(p, x, 0.5) - direct(alone, x, 0.5)).max() > 0.05


def test_each_image_has_its_own_sigma():
    p = parameters(4, 3, 0.02)
    x = noisy(p, 0.5, n=len(SIGMAS))
    with jax.enable_x64(True):
        got = run(mixture_denoiser(**p), jnp.asarray(x), np.array(SIGMAS))
    want = [direct(p, row[None], sigma)[0] for row, sigma in zip(x, SIGMAS)]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("r", [3, 12])
def test_one_component_is_the_gaussian(r, sigma):
    p = parameters(1, r, 0.0)
    basis, _, _ = np.linalg.svd(p["bases"][0])  # the first r columns span the same space
    inside = basis[:, :r].T @ covariances(p)[0] @ basis[:, :r]
    variances, rotation = np.linalg.eigh(inside)
    basis[:, :r] = basis[:, :r] @ rotation
    with jax.enable_x64(True):
        gaussian = GaussianDenoiser(
            jnp.asarray(p["means"][0]),
            jnp.asarray(basis),
            jnp.asarray(np.pad(variances, (0, D - r))),
        )
        x = jnp.asarray(noisy(p, sigma))
        got, want = run(mixture_denoiser(**p), x, sigma), run(gaussian, x, sigma)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("r", "floor"), RANKS_AND_FLOORS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_limits_of_sigma(dtype, r, floor):
    p = parameters(4, r, floor)
    mean = (p["weights"] @ p["means"]).reshape(SHAPE)
    x0 = draws(p, 40)
    with jax.enable_x64(dtype == "float64"):
        denoise = mixture_denoiser(**p)
        far = run(denoise, jnp.asarray(x0, dtype), 1e4)
        near = run(denoise, jnp.asarray(x0, dtype), 1e-3)
    np.testing.assert_allclose(far, np.broadcast_to(mean, x0.shape), rtol=0, atol=1e-5)
    # Off by sigma^2 / (v + sigma^2) of a deviation, with v >= 0.02.
    np.testing.assert_allclose(near, x0, rtol=0, atol=5e-4)


@jax.jit
def score(weights, means, cov, x):
    """The gradient of log p_sigma, written with dense covariances `[k, d, d]`; x `[b, d]`."""

    def log_density(x):
        logs = jax.vmap(jax.scipy.stats.multivariate_normal.logpdf, (None, 0, 0))(x, means, cov)
        return jax.scipy.special.logsumexp(logs + jnp.log(weights))

    return jax.vmap(jax.grad(log_density))(x)


@pytest.mark.parametrize("sigma", [0.03, 0.5, 10.0])
@pytest.mark.parametrize(("r", "floor"), RANKS_AND_FLOORS)
def test_tweedie(r, floor, sigma):
    """D = x + sigma^2 grad log p_sigma(x)."""
    p = parameters(4, r, floor)
    x = noisy(p, sigma)
    with jax.enable_x64(True):
        cov = covariances(p) + sigma**2 * np.eye(D)
        want = x + sigma**2 * score(p["weights"], p["means"], cov, x.reshape(-1, D)).reshape(
            x.shape
        )
        got = run(mixture_denoiser(**p), jnp.asarray(x), sigma)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-9)


@jax.jit
def derivatives(denoise, x, sigma, step):
    """The Jacobian `[d, d]` at one image, by reverse mode, and its product with a step, forward."""

    def flat_fn(flat):
        return run(denoise, flat.reshape(1, *SHAPE), sigma).ravel()

    return jax.jacrev(flat_fn)(x.ravel()), jax.jvp(flat_fn, (x.ravel(),), (step,))[1]


@pytest.mark.parametrize("sigma", [1e-3, 1.0, 200.0])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_jacobian_is_finite_symmetric_and_right(dtype, sigma):
    """It is the posterior covariance / sigma^2."""
    p = parameters(4, 3, 0.0)
    x = noisy(p, sigma, n=3)
    x[2] = np.random.default_rng(5).normal(size=SHAPE)  # far from every component's support
    step = np.random.default_rng(6).normal(size=D).astype(dtype)
    tolerance = 1e-9 if dtype == "float64" else 1e-3
    for row in x.astype(dtype):
        with jax.enable_x64(dtype == "float64"):
            results = derivatives(mixture_denoiser(**p), row, sigma, step)
            jacobian, moved = map(np.asarray, results)
        assert np.isfinite(jacobian).all() and np.linalg.eigvalsh(jacobian).min() > -tolerance
        np.testing.assert_allclose(jacobian, jacobian.T, rtol=0, atol=tolerance)
        np.testing.assert_allclose(moved, jacobian @ step, rtol=0, atol=10 * tolerance)


def test_float32_tells_components_apart_where_their_supports_cross():
    """The Jacobian shows it: the denoised image is the same on either support.

    Taken as |r|^2 - |U^T r|^2, the squared distances would be off by about 1e-7 |r|^2, which is
    not small beside sigma^2.
    """
    p, sigma = parameters(2, 3, 0.0), 1e-3
    p["bases"][1] = np.linalg.qr(np.c_[p["bases"][0, :, :1], p["bases"][1, :, 1:]])[0]
    p["means"][1], p["variances"][1] = p["means"][0], p["variances"][0]
    rng = np.random.default_rng(7)
    shared = np.linspace(-2, 2, 8)[:, None] * p["bases"][0, :, 0]
    x = (p["means"][0] + shared + sigma * rng.normal(size=(8, D))).astype(np.float32)
    step = rng.normal(size=D).astype(np.float32)
    single = [derivatives(mixture_denoiser(**p), row, sigma, step)[0] for row in x]
    with jax.enable_x64(True):
        x, step = x.astype(np.float64), step.astype(np.float64)
        double = [derivatives(mixture_denoiser(**p), row, sigma, step)[0] for row in x]
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def large():
    return make_mixture(MixtureSpec(5, 16, size=28))


@pytest.mark.parametrize("sigma", [1e-3, 1e-2, 0.1, 1.0, 10.0, 200.0])
def test_float32_holds_at_the_size_of_real_images(large, sigma):
    """784 pixels: log densities in the hundreds must not cost the softmax its digits."""
    x0 = large.sample(16)
    x = (x0 + sigma * np.random.default_rng(0).normal(size=x0.shape)).astype(np.float32)
    single = run(population_denoiser(large), jnp.asarray(x), sigma)
    with jax.enable_x64(True):
        double = run(population_denoiser(large), jnp.asarray(x, jnp.float64), sigma)
        np.testing.assert_allclose(single, double, rtol=0, atol=5e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weights", np.array([0.5, 0.5, 0.0])),
        ("weights", np.array([0.5, 0.5, 0.5])),
        ("weights", np.array([0.5, np.nan, 0.5])),
        ("weights", np.array([0.5, 0.5])),
        ("means", np.zeros((3, D + 1))),
        ("means", np.full((3, D), np.inf)),
        ("bases", np.zeros((3, D))),
        ("bases", np.zeros((3, D, D + 1))),
        ("bases", np.tile(1.01 * np.eye(D)[:, :2], (3, 1, 1))),
        ("bases", np.full((3, D, 2), np.nan)),
        ("variances", np.ones((3, 3))),
        ("variances", np.array([[1.0, 1.0], [1.0, -1e-9], [1.0, 1.0]])),
        ("floors", np.array([0.0, 0.0, -1e-9])),
        ("floors", 0.0),
    ],
)
def test_bad_parameters_are_named(name, value):
    good = parameters(3, 2, 0.01)
    mixture_denoiser(**good)
    with pytest.raises(InputError) as caught:
        mixture_denoiser(**good | {name: value})
    assert caught.value.field == f"mixture.{name}"


def test_sample_has_the_moments_of_the_mixture():
    mixture = make_mixture(MixtureSpec(3, 2, size=4, channels=3))
    mixture = replace(mixture, floors=np.array([0.0, 0.01, 0.02]))
    images, labels = mixture.sample(30_000), mixture.components(30_000)
    assert images.shape == (30_000, 4, 4, 3) and images.dtype == np.float64
    assert labels.dtype == np.int32
    np.testing.assert_allclose(np.bincount(labels) / 30_000, mixture.weights, atol=0.01)
    for k in range(3):
        flat = images[labels == k].reshape(-1, 48)
        low = mixture.bases[k] * mixture.variances[k] @ mixture.bases[k].T
        cov = low + mixture.floors[k] * np.eye(48)
        error = 5 * np.sqrt(np.diag(cov).max() / len(flat))
        np.testing.assert_allclose(flat.mean(0), mixture.means[k], rtol=0, atol=error)
        error = 7 * np.diag(cov).max() / np.sqrt(len(flat))
        np.testing.assert_allclose(np.cov(flat.T), cov, rtol=0, atol=error)


def test_the_population_denoiser_beats_every_neighbour_of_it():
    """On draws of `sample`, the loss is least at the right parameters: they belong together."""
    mixture, sigma = make_mixture(MixtureSpec(4, 3)), 0.3
    x0 = mixture.sample(4000)
    z = np.random.default_rng(0).normal(size=x0.shape)
    x = jnp.asarray(x0 + sigma * z, jnp.float32)
    right = dict(
        weights=mixture.weights,
        means=mixture.means,
        bases=mixture.bases,
        variances=mixture.variances,
        floors=mixture.floors,
    )
    wrong = [
        {"means": 0.9 * mixture.means},
        {"variances": 0.7 * mixture.variances},
        {"variances": 1.4 * mixture.variances},
        {"bases": np.roll(mixture.bases, 1, axis=0)},
        {"floors": np.full(4, 0.005)},
        {"weights": np.array([0.7, 0.1, 0.1, 0.1])},
    ]

    def loss(p):
        return np.mean((np.asarray(run(mixture_denoiser(**p), x, sigma)) - x0) ** 2)

    assert all(loss(right) < loss(right | change) for change in wrong)


@pytest.mark.parametrize("r", [1, 4])
def test_image_i_depends_on_the_seed_and_i_alone(r):
    mixture = make_mixture(MixtureSpec(3, r, size=4))
    whole = mixture.sample(2 * CHUNK + 10)
    labels = mixture.components(2 * CHUNK + 10)
    for n, start in [(0, 0), (7, 0), (CHUNK, 0), (20, CHUNK - 10), (CHUNK + 5, 3), (10, 2 * CHUNK)]:
        np.testing.assert_array_equal(mixture.sample(n, start), whole[start : start + n])
        np.testing.assert_array_equal(mixture.components(n, start), labels[start : start + n])
    assert len(np.unique(whole.reshape(len(whole), -1), axis=0)) == len(whole)
    other = make_mixture(MixtureSpec(3, r, size=4, seed=1))
    assert np.abs(other.means - mixture.means).max() > 0.1
    assert not np.any(other.sample(5) == whole[:5])


def test_a_floor_adds_noise_and_moves_no_other_draw():
    mixture = make_mixture(MixtureSpec(3, 4))
    added = replace(mixture, floors=np.full(3, 0.01)).sample(500) - mixture.sample(500)
    assert abs(added.std() - 0.1) < 0.002 and abs(added.mean()) < 0.002


@pytest.mark.parametrize("spec", [MixtureSpec(), MixtureSpec(4, 16, size=16, channels=3)])
def test_make_mixture_is_image_like(spec):
    mixture = make_mixture(spec)
    gram = np.einsum("kdr,kds->krs", mixture.bases, mixture.bases)
    np.testing.assert_allclose(
        gram, np.tile(np.eye(spec.rank), (spec.components, 1, 1)), atol=1e-12
    )
    assert np.all(np.diff(mixture.variances, axis=1) < 0) and not mixture.floors.any()
    # Clearly distinct: further apart than three deviations along any direction.
    gaps = np.linalg.norm(mixture.means[:, None] - mixture.means[None], axis=-1)
    gaps = gaps[~np.eye(spec.components, dtype=bool)]
    assert gaps.min() > 3 * np.sqrt(mixture.variances.max())
    # Smooth: neighbouring pixels differ by much less than pixels of white noise would.
    shape = (spec.components, spec.size, spec.size, spec.channels, spec.rank)
    bases = mixture.bases.reshape(shape)
    assert np.mean(np.diff(bases, axis=1) ** 2) < 0.3 * 2 * np.mean(bases**2)
    images = mixture.sample(5000).reshape(5000, -1)
    assert np.mean(np.abs(images).max(1) > 1) < 1e-3
    assert images.std() > 0.1  # and it is not by being all grey


@pytest.mark.parametrize(
    ("field", "numbers"),
    [
        ("components", dict(components=0)),
        ("components", dict(components=65)),
        ("rank", dict(rank=0)),
        ("rank", dict(rank=65)),
        ("size", dict(size=0)),
        ("channels", dict(channels=0)),
        ("seed", dict(seed=-1)),
    ],
)
def test_bad_specs_are_named(field, numbers):
    with pytest.raises(InputError) as caught:
        MixtureSpec(**numbers)
    assert caught.value.field == f"mixture.{field}"
