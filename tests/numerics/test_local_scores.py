"""Local score machines against a literal sum over patches, in float64 unless said otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reprojax.denoisers import local
from reprojax.denoisers.local import MAX_IMAGES, calibrate_radii, local_score_machine
from reprojax.denoisers.optimum import empirical_optimum
from reprojax.errors import InputError
from reprojax.rng import root_key

SIGMAS = (0.05, 0.2, 0.7, 2.0, 20.0)
apply = jax.jit(lambda denoise, x, sigma: denoise(x, sigma))


def draw(seed, *shape):
    return np.clip(np.random.default_rng(seed).normal(0, 0.5, shape), -1, 1).astype(np.float32)


def noisy(images, sigmas, seed=1):
    """One noisy image per sigma, float64, near a training image at small sigma."""
    z = np.random.default_rng(seed).normal(size=(len(sigmas), *images.shape[1:]))
    return images[: len(sigmas)] + np.asarray(sigmas)[:, None, None, None] * z


def run(denoise, x, sigmas):
    with jax.enable_x64(True):
        out = apply(denoise, jnp.asarray(x, jnp.float64), jnp.asarray(sigmas, jnp.float64))
        assert out.dtype == jnp.float64
        return np.asarray(out)


def cuts(position, shape, radius):
    """How many rows and columns the border cuts from the patch: top, bottom, left, right."""
    return [
        max(0, over)
        for at, size in zip(position, shape)
        for over in (radius - at, at + radius - (size - 1))
    ]


def patch(image, position, radius):
    """The pixels of a zero-padded patch, and which of them lie inside the image."""
    size = 2 * radius + 1
    values, inside = np.zeros((size, size, image.shape[2])), np.zeros((size, size, 1))
    for i in range(size):
        for j in range(size):
            row, column = position[0] - radius + i, position[1] - radius + j
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                values[i, j], inside[i, j] = image[row, column], 1.0
    return values, inside


def literal(images, x, sigma, radius, equivariant):
    """The posterior mean of each pixel of one noisy image, by loops."""
    shape, out = x.shape[:2], np.zeros(x.shape)
    patches = {q: [patch(y, q, radius) for y in images] for q in np.ndindex(shape)}
    for p in np.ndindex(shape):
        mine, _ = patch(x, p, radius)
        logits, values = [], []
        for q in np.ndindex(shape):
            alike = cuts(p, shape, radius) == cuts(q, shape, radius)
            if alike if equivariant else p == q:
                for y, (theirs, inside) in zip(images, patches[q]):
                    logits.append(-np.sum(inside * (mine - theirs) ** 2) / (2 * sigma**2))
                    values.append(y[q])
        weights = np.exp(np.asarray(logits) - max(logits))
        out[p] = weights @ np.asarray(values, np.float64) / weights.sum()
    return out


@pytest.mark.parametrize(
    ("height", "width", "channels", "radius", "equivariant"),
    [
        (5, 5, 1, 0, True),
        (5, 5, 2, 1, True),
        (6, 6, 1, 2, True),
        (6, 6, 2, 3, True),  # each position alone in its class
        (4, 7, 1, 2, True),  # each row alone, three columns alike
        (5, 5, 2, 5, True),  # more than the image
        (5, 6, 1, 0, False),
        (5, 6, 2, 2, False),
    ],
)
def test_a_machine_is_the_literal_sum_over_patches(height, width, channels, radius, equivariant):
    images = draw(0, 7, height, width, channels)
    x = noisy(images, SIGMAS)
    got = run(local_score_machine(images, [radius], [], equivariant, block=2), x, SIGMAS)
    want = [literal(images, *pair, radius, equivariant) for pair in zip(x, SIGMAS)]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("radius", [4, 9])
def test_a_patch_that_covers_the_image_gives_the_empirical_optimum(radius):
    images = draw(2, 12, 5, 4, 2)
    x = noisy(images, SIGMAS)
    got = run(local_score_machine(images, [radius], []), x, SIGMAS)
    # The optimum keeps float32 norms.
    np.testing.assert_allclose(got, run(empirical_optimum(images), x, SIGMAS), atol=2e-5)


def test_radius_zero_is_the_posterior_of_one_pixel():
    images = draw(3, 9, 4, 4, 1)
    x = noisy(images, SIGMAS)
    got = run(local_score_machine(images, [0], []), x, SIGMAS)
    values = images.reshape(-1).astype(np.float64)
    logits = -((x.reshape(5, -1, 1) - values) ** 2) / (2 * np.asarray(SIGMAS)[:, None, None] ** 2)
    weights = np.exp(logits)
    want = (weights @ values) / weights.sum(2)
    np.testing.assert_allclose(got.reshape(5, -1), want, atol=1e-12)


def test_the_interior_moves_with_the_image_and_the_border_does_not():
    radius, sigmas = 1, (0.3, 0.3, 1.0)
    images = draw(4, 10, 6, 6, 1)
    x = noisy(images, sigmas)
    moved = np.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
    machine = local_score_machine(images, [radius], [])
    here, there = run(machine, x, sigmas), run(machine, moved, sigmas)
    np.testing.assert_allclose(there[:, :, 2:-1], here[:, :, 1:-2], atol=1e-13)
    # Padded with the zeros that shifting put there, both patches are the same: the cut is not.
    assert np.abs(there[:, :, 1] - here[:, :, 0]).max() > 0.05
    fixed = local_score_machine(images, [radius], [], equivariant=False)
    here, there = run(fixed, x, sigmas), run(fixed, moved, sigmas)
    assert np.abs(there[:, :, 2:-1] - here[:, :, 1:-2]).max() > 0.05


def test_each_sample_has_the_radius_of_its_own_sigma():
    radii, edges = (0, 2, 1, 2), (0.3, 0.7, 4.0)
    # float32(.7) < .7: yet in float64 sigma = .7 is on the edge too, and not above it.
    sigmas = (0.1, 0.3, 0.31, 0.7, 0.71, 4.0, 4.1, 50.0)
    expected = (0, 0, 2, 2, 1, 1, 2, 2)
    images = draw(5, 8, 5, 5, 1)
    x = noisy(images, sigmas)
    machine = local_score_machine(images, radii, edges, equivariant=False)
    got = run(machine, x, sigmas)
    alone = {r: run(local_score_machine(images, [r], [], False), x, sigmas) for r in set(radii)}
    want = [alone[r][i] for i, r in enumerate(expected)]
    np.testing.assert_allclose(got, want, atol=1e-13)
    one_by_one = [run(machine, x[i : i + 1], sigmas[i : i + 1])[0] for i in range(len(sigmas))]
    np.testing.assert_allclose(got, one_by_one, atol=1e-13)


@pytest.mark.parametrize(("block", "queries"), [(1, 256), (3, 7), (8, 1)])
def test_blocks_of_images_and_of_queries_change_nothing(block, queries, monkeypatch):
    images = draw(6, 7, 4, 4, 2)
    x = noisy(images, SIGMAS)
    want = run(local_score_machine(images, [0], [], block=100), x, SIGMAS)
    monkeypatch.setattr(local, "QUERIES", queries)
    got = run(local_score_machine(images, [0], [], block=block), x, SIGMAS)
    np.testing.assert_allclose(got, want, atol=1e-13)


def test_float32_stays_finite_inside_a_compiled_loop():
    """Also far from the data, where every weight but one underflows."""
    images = draw(7, 6, 4, 4, 1)
    machine = local_score_machine(images, (1, 2), (0.5,))
    z = jnp.asarray(np.random.default_rng(8).normal(size=(4, 4, 4, 1)), jnp.float32)

    @jax.jit
    def evaluate(machine, levels, x):
        return jax.lax.scan(lambda x, s: (x, machine(x, jnp.full(4, s))), x, levels)[1]

    levels = jnp.asarray([0.002, 80.0], jnp.float32)
    for x in (jnp.asarray(images[:4]) + 0.002 * z, 80 * z):
        for out, sigma, radius in zip(evaluate(machine, levels, x), levels, (1, 2)):
            assert out.dtype == jnp.float32
            want = [literal(images, np.asarray(v, np.float64), sigma, radius, True) for v in x]
            np.testing.assert_allclose(out, want, atol=1e-4)


def test_calibration_recovers_the_radii_of_a_machine():
    images, real = draw(9, 10, 7, 7, 1), draw(10, 6, 7, 7, 1)
    network = local_score_machine(images, (1, 3), (0.5,), equivariant=False)
    found = calibrate_radii(network, images, real, (0.3, 1.2), (1, 2, 3), root_key(0), False)
    assert found.radii == (1, 3)
    assert found.edges == pytest.approx((0.6,))
    assert found.errors.shape == found.r2.shape == (2, 3)
    right = [[True, False, False], [False, False, True]]
    np.testing.assert_array_equal(found.errors < 1e-10, right)
    np.testing.assert_array_equal(found.r2 > 1 - 1e-6, right)
    assert found.r2.max() <= 1 + 1e-12
    rebuilt = local_score_machine(images, found.radii, found.edges)
    assert rebuilt.radii == network.radii


def test_calibration_measures_the_distance_on_noisy_images():
    """At sigma = 100 the machine is the mean of the images, give or take a hundredth."""
    images = draw(11, 40, 3, 3, 1)

    def calibrate(network):
        network = jax.tree_util.Partial(network)
        return calibrate_radii(network, images, images, [100.0], [2], root_key(0))

    constant = calibrate(lambda x, sigma, cond: jnp.full_like(x, 0.25))
    assert constant.r2[0, 0] == 0.0
    assert constant.errors[0, 0] == pytest.approx(np.mean((images.mean(0) - 0.25) ** 2), rel=0.2)
    unchanged = calibrate(lambda x, sigma, cond: x)
    assert unchanged.errors[0, 0] == pytest.approx(100.0**2, rel=0.3)
    assert 0 < unchanged.r2[0, 0] < 0.5


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("local.n_train", dict(images=np.zeros((0, 4, 4, 1), np.float32))),
        ("local.n_train", dict(images=np.zeros((MAX_IMAGES + 1, 1, 1, 1), np.float32))),
        ("local.radii", dict(radii=(), edges=())),
        ("local.radii", dict(radii=(1, -1))),
        ("local.radii", dict(radii=(1, 1.5))),
        ("local.edges", dict(edges=())),
        ("local.edges", dict(radii=(1, 2, 3), edges=(1.0, 1.0))),
        ("local.edges", dict(edges=(0.0,))),
        ("local.block", dict(block=0)),
    ],
)
def test_a_wrong_machine_is_refused(field, wrong):
    good = dict(images=draw(0, 3, 4, 4, 1), radii=(1, 2), edges=(0.5,))
    with pytest.raises(InputError) as error:
        local_score_machine(**(good | wrong))
    assert error.value.field == field


@pytest.mark.parametrize("sigmas", [(), (1.0, 0.5), (0.0, 1.0)])
def test_calibration_refuses_noise_levels_that_do_not_increase(sigmas):
    images = draw(0, 3, 4, 4, 1)
    with pytest.raises(InputError, match=r"local\.sigmas"):
        calibrate_radii(empirical_optimum(images), images, images, sigmas, (1,), root_key(0))
