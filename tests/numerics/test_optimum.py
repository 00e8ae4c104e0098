"""The empirical optimum against Theorem 1 in float64: near ties, odd sets, blocks, devices."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reprojax.data.transform import to_float
from reprojax.denoisers.optimum import empirical_optimum

SHAPE = (32, 32, 3)
SIGMAS = np.array([0.002, 0.01, 0.1, 1.0, 5.0, 20.0, 80.0], np.float32)
denoise = jax.jit(lambda closed_form, x, sigma: closed_form(x, sigma))


def noise(rng, n):
    return rng.integers(0, 256, (n, *SHAPE)).astype(np.uint8)


def smooth(rng, n):
    """Random images of low frequency, as of a photograph out of focus."""
    images = rng.normal(size=(n, 4, 4, 3)).astype(np.float32).repeat(8, 1).repeat(8, 2)
    for axis in (1, 2, 1, 2):
        images = (np.roll(images, 3, axis) + 2 * images + np.roll(images, -3, axis)) / 4
    return np.clip(127 + 60 * images / images.std(), 0, 255).astype(np.uint8)


def one_level_off(rng, images):
    """Each image with one grey level changed in three of its numbers."""
    flat = images.reshape(len(images), -1).copy()
    rows, columns = np.arange(len(flat))[:, None], rng.integers(0, flat.shape[1], (len(flat), 3))
    flat[rows, columns] += np.where(flat[rows, columns] < 255, 1, -1).astype(np.uint8)
    return flat.reshape(images.shape)


def pairs(rng, n):
    images = smooth(rng, n // 2)
    return np.concatenate([images, one_level_off(rng, images)])


def one_cluster(rng, n):
    return one_level_off(rng, smooth(rng, 1).repeat(n, 0))


SETS = {"noise": noise, "smooth": smooth, "pairs": pairs, "one cluster": one_cluster}


def theorem_1(images, x, sigma):
    """The softmax by its definition, float64 `[b, h, w, c]`; ``sigma`` `[b]`."""
    y = images.reshape(len(images), -1).astype(np.float64)
    out = np.empty(x.shape, np.float64)
    for i, row in enumerate(np.asarray(x, np.float64).reshape(len(x), -1)):
        logits = -((row - y) ** 2).sum(1) / (2 * np.float64(sigma[i]) ** 2)
        weights = np.exp(logits - logits.max())
        out[i] = (weights / weights.sum() @ y).reshape(x.shape[1:])
    return out


def relative_error(got, want):
    axes = (1, 2, 3)
    return (np.abs(np.asarray(got) - want).max(axes) / np.abs(want).max(axes)).max()


def near_points(rng, images, sigma):
    z = rng.normal(size=(len(sigma), *images.shape[1:]))
    chosen = images[rng.integers(0, len(images), len(sigma))]
    return (chosen + sigma[:, None, None, None] * z).astype(np.float32)


def midpoints(rng, images, number):
    first = rng.integers(0, len(images), number)
    other = (first + rng.integers(1, len(images), number)) % len(images)
    return (images[first] + images[other]) / 2


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("n", [64, 4096])
def test_it_is_theorem_1_at_noised_images_and_between_two(n, kind):
    rng = np.random.default_rng(0)
    images = to_float(SETS[kind](rng, n))
    closed_form = empirical_optimum(images)
    for x in (near_points(rng, images, SIGMAS), midpoints(rng, images, len(SIGMAS))):
        assert x.dtype == np.float32
        got = denoise(closed_form, x, SIGMAS)
        assert relative_error(got, theorem_1(images, x, SIGMAS)) <= 1e-5


def test_it_is_theorem_1_anywhere_on_the_plane_between_two_images():
    """A weight of one half is then a difference of terms that are 10^5 times as large."""
    rng = np.random.default_rng(1)
    images = to_float(noise(rng, 64))
    sigma = np.array([0.002, 0.002, 0.01, 0.01, 0.1, 0.1], np.float32)
    gap = (images[:6] - images[6:12]).astype(np.float64)
    z = rng.normal(size=gap.shape)
    inner = lambda a, b: (a * b).sum((1, 2, 3), keepdims=True)  # noqa: E731
    z -= gap * inner(z, gap) / inner(gap, gap)
    middle = (images[:6].astype(np.float64) + images[6:12]) / 2
    x = (middle + sigma[:, None, None, None] * z).astype(np.float32)
    want = theorem_1(images, x, sigma)
    assert (np.abs(want - middle).max((1, 2, 3)) < 0.2).all()  # no image has won
    assert relative_error(denoise(empirical_optimum(images), x, sigma), want) <= 1e-5


def test_an_image_that_only_seemed_closest_loses_all_its_weight():
    """float32 logits are off by thousands here: too much for exp of their correction."""
    rng = np.random.default_rng(9)
    images = to_float(noise(rng, 64))
    sigma = np.full(16, 2e-4, np.float32)
    x = midpoints(rng, images, len(sigma))
    x[:, 0, 0, 0] += 1e-4  # decides for one of the two
    got = denoise(empirical_optimum(images), x, sigma)
    assert relative_error(got, theorem_1(images, x, sigma)) <= 1e-5


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(2)
    return np.clip(rng.normal(0, 0.5, (300, 4, 4, 3)), -1, 1).astype(np.float32)


@pytest.mark.parametrize("block", [7, 64, 300, 1000])
def test_it_is_theorem_1_for_any_block(small, block):
    sigma = np.tile(SIGMAS, 4)
    x = near_points(np.random.default_rng(3), small, sigma)
    got = denoise(empirical_optimum(small, block=block), x, sigma)
    assert relative_error(got, theorem_1(small, x, sigma)) <= 1e-5


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("block", [2, 2048])
def test_few_images_and_padding(small, n, block):
    images = small[:n]
    x = np.concatenate([near_points(np.random.default_rng(4), images, SIGMAS), small[-3:] * 50])
    sigma = np.concatenate([SIGMAS, SIGMAS[:3]])
    got = denoise(empirical_optimum(images, block=block), x, sigma)
    assert relative_error(got, theorem_1(images, x, sigma)) <= 1e-5


def test_equal_images_share_their_weight(small):
    rng = np.random.default_rng(5)
    twice = small[rng.integers(0, 4, 50)]  # each about a dozen times
    x = np.concatenate([near_points(rng, twice, SIGMAS), (small[:3] + small[1:4]) / 2])
    sigma = np.concatenate([SIGMAS, SIGMAS[1:4]])
    got = denoise(empirical_optimum(twice, block=16), x, sigma)
    assert relative_error(got[:7], theorem_1(twice, x, sigma)[:7]) <= 1e-5
    assert np.isfinite(got).all()
    same = small[:1].repeat(50, 0)
    np.testing.assert_array_equal(
        denoise(empirical_optimum(same, block=16), x, sigma), same[:1].repeat(len(x), 0)
    )


def test_float64_is_float64(small):
    with jax.enable_x64(True):
        rng = np.random.default_rng(6)
        x = np.concatenate([near_points(rng, small, SIGMAS), midpoints(rng, small, len(SIGMAS))])
        sigma = np.tile(SIGMAS, 2).astype(np.float64)
        got = denoise(empirical_optimum(small, block=64), x.astype(np.float64), sigma)
        assert got.dtype == jnp.float64
        assert relative_error(got, theorem_1(small, x, sigma)) <= 1e-9


def test_one_sample_under_vmap_is_the_same_sample(small):
    x = near_points(np.random.default_rng(7), small, SIGMAS)
    closed_form = empirical_optimum(small, block=64)
    one = jax.jit(jax.vmap(lambda x, sigma: closed_form(x[None], sigma[None])[0]))
    np.testing.assert_allclose(one(x, SIGMAS), denoise(closed_form, x, SIGMAS), atol=2e-6)


def test_its_derivative_is_the_posterior_covariance(small):
    """dD/dx = Cov[x0 | x] / sigma^2, also where the closest images tie."""
    sigma = np.array([0.05, 0.05, 0.3, 0.3, 2.0, 2.0], np.float32)
    x, (v, g) = (small[:6] + small[6:12]) / 2, np.random.default_rng(8).normal(size=(2, 6, 4, 4, 3))
    v, g = v.astype(np.float32), g.astype(np.float32)
    at = lambda x: denoise(empirical_optimum(small, block=64), x, sigma)  # noqa: E731
    forward, backward = jax.jvp(at, (x,), (v,))[1], jax.vjp(at, x)[1](g)[0]
    y = small.reshape(len(small), -1).astype(np.float64)
    for i in range(len(x)):
        logits = -((x[i].ravel() - y) ** 2).sum(1) / (2 * np.float64(sigma[i]) ** 2)
        weights = np.exp(logits - logits.max())
        weights /= weights.sum()
        centred = y - weights @ y
        slope = (centred.T * weights) @ centred / np.float64(sigma[i]) ** 2
        for got, by in ((forward, v), (backward, g)):
            error = np.abs(np.asarray(got)[i].ravel() - slope @ by[i].ravel()).max()
            assert error <= 1e-5 * np.abs(slope @ by[i].ravel()).max()


def test_memory_does_not_grow_with_the_training_set():
    def temporary(n):
        closed_form = empirical_optimum(np.zeros((n, 8, 8, 3), np.float32), block=256)
        arguments = closed_form, jnp.zeros((16, 8, 8, 3)), jnp.ones(16)
        memory = denoise.lower(*arguments).compile().memory_analysis()
        assert memory.argument_size_in_bytes > 4 * n * 192
        return memory.temp_size_in_bytes

    assert temporary(16384) <= temporary(4096) + 1024


SCRIPT = """
import json
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from reprojax.denoisers.optimum import empirical_optimum
from reprojax.runtime.mesh import batch_sharding, make_mesh
jax.config.update("jax_numpy_rank_promotion", "raise")

mesh = make_mesh()
assert mesh.size == 8
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (300, 4, 4, 3)).astype(np.float32) / np.float32(127.5) - 1
images = images.astype(np.float32)
sigma = jnp.asarray([.002, .002, .01, .1, .1, 1, 5, 80] * 2, jnp.float32)
z = rng.normal(size=(16, 4, 4, 3)).astype(np.float32)
ties = (images[:16] + images[150:166]) / 2
split = lambda a: jax.device_put(a, batch_sharding(mesh))
run = jax.jit(lambda d, x, s: d(x, s))
slope = jax.jit(lambda d, x, s, v: jax.vjp(lambda x: d(x, s), x)[1](v)[0])
gap = lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max())
found = {}
for n, block in ((300, 5), (11, 1), (3, 2048)):
    one = empirical_optimum(images[:n])
    eight = empirical_optimum(images[:n], block=block, mesh=mesh)
    rows = eight.images.addressable_shards[0].data.shape
    assert len(eight.images) == 8 * rows[0] and np.prod(rows[:2]) < n / 8 + block + 1
    moved = jax.device_put(eight, eight.placement(mesh))
    assert jax.tree.structure(moved) == jax.tree.structure(eight)
    for name, x in (("near", images[np.arange(16) % n] + sigma[:, None, None, None] * z),
                    ("ties", ties)):
        want = run(one, x, sigma)
        found[f"{n} {block} {name}"] = gap(run(moved, split(x), split(sigma)), want)
one, eight = empirical_optimum(images), empirical_optimum(images, mesh=mesh)
want = slope(one, ties, sigma, z)
found["vjp"] = gap(slope(eight, split(ties), sigma, z), want) / float(jnp.abs(want).max())
whole = jax.device_put(one, one.placement(mesh))
assert all(isinstance(a, NamedSharding) for a in jax.tree.leaves(one.placement(mesh)))
assert whole.images.sharding.is_fully_replicated
found["replicated"] = gap(run(whole, split(ties), split(sigma)), run(one, ties, sigma))
# As sampling/adaptive.py calls it: each device has samples of its own.
data, every = PartitionSpec("data"), PartitionSpec()
own = jax.shard_map(lambda d, x, s: d(x, s), mesh=mesh, in_specs=(every, data, data),
                    out_specs=data, check_vma=False)
found["own samples"] = gap(jax.jit(own)(eight, split(ties), split(sigma)), run(one, ties, sigma))
print(json.dumps(found))
"""


def test_eight_devices_share_the_blocks_and_agree(tmp_path, repo_root):
    flags = "--xla_force_host_platform_device_count=8"
    env = {**os.environ, "PYTHONPATH": str(repo_root), "XLA_FLAGS": flags}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert {k: v for k, v in found.items() if not v <= 2e-5} == {}
