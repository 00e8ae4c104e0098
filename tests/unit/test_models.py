"""The network families: published sizes, shapes, conditioning, keywords."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reprojax.errors import InputError
from reprojax.models.families import (
    FAMILIES,
    build_network,
    count_params,
    init_params,
    param_shapes,
)
from reprojax.models.layers import GroupNorm, attend, num_groups
from reprojax.types import NULL_LABEL

SMALL = {
    "unet": dict(width=8, multipliers=(1, 2), num_blocks=1, attention=(4,), dropout=0.3),
    "conv_unet": dict(width=8, multipliers=(1, 2), num_blocks=1, dropout=0.3),
    "ddpm": dict(width=8, multipliers=(1, 2), num_blocks=1, attention=(4,), dropout=0.3),
    "ncsnpp": dict(width=8, multipliers=(1, 2), num_blocks=1, attention=(4,), dropout=0.3),
    "multistage": dict(width=8, multipliers=(1,), num_blocks=1, dropout=0.3, boundaries=(0.0,)),
    "uvit": dict(width=16, depth=2, num_heads=2, patch=2, dropout=0.3),
}


@pytest.mark.parametrize(
    "family, network, millions",
    [
        ("unet", dict(width=64), 13.9),  # DDPM++ at three capacities (arXiv 2310.05264)
        ("unet", dict(width=128), 55.7),
        ("unet", dict(width=256), 222.7),
        ("uvit", {}, 44.0),  # U-ViT-S/2 (arXiv 2209.12152)
    ],
)
def test_paper_scale_sizes_are_the_published_ones(family, network, millions):
    count = count_params(build_network(family, (32, 32, 3), network), (32, 32, 3))
    assert abs(count / 1e6 - millions) < 0.007 * millions


@pytest.fixture(scope="module", params=FAMILIES)
def small(request):
    module = build_network(request.param, (8, 8, 1), {**SMALL[request.param], "num_classes": 3})
    params = jax.jit(lambda: init_params(module, (8, 8, 1), jax.random.key(0)))()
    rng = np.random.default_rng(0)
    noisy = jax.tree.map(  # zero-initialised layers would hide what does not reach the output
        lambda p: p + jnp.asarray(0.1 * rng.normal(size=p.shape), p.dtype), params
    )
    return module, noisy


def test_shape_dtype_and_noise_input(small):
    module, params = small
    x = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
    out = module.apply({"params": params}, x, jnp.zeros(3), jnp.zeros(3, jnp.int32))
    assert out.shape == x.shape and out.dtype == jnp.float32
    other = module.apply({"params": params}, x, jnp.ones(3), jnp.zeros(3, jnp.int32))
    assert np.abs(out - other).max() > 1e-3


def test_the_class_reaches_the_output(small):
    module, params = small
    x = jnp.ones((3, 8, 8, 1))
    out = module.apply({"params": params}, x, jnp.zeros(3), jnp.arange(3))
    assert np.abs(out[0] - out[1]).max() > 1e-3 and np.abs(out[1] - out[2]).max() > 1e-3


def test_the_convolutional_u_net_has_no_attention():
    network = dict(width=8, multipliers=(1, 2), num_blocks=1)
    for family, attends in (("conv_unet", False), ("unet", True)):
        module = build_network(family, (8, 8, 1), {**network, "attention": ()})
        params = init_params(module, (8, 8, 1), jax.random.key(0))
        names = {k for path, _ in jax.tree_util.tree_leaves_with_path(params) for k in path}
        assert any(getattr(k, "key", "") == "qkv" for k in names) == attends, family
    with pytest.raises(InputError, match=r"network\.attention"):
        build_network("conv_unet", (8, 8, 1), {**network, "attention": (4,)})


def test_dropout_acts_in_training_only(small):
    module, params = small
    x, t, c = jnp.ones((2, 8, 8, 1)), jnp.zeros(2), jnp.zeros(2, jnp.int32)

    def call(key, train):
        rngs = {"dropout": jax.random.key(key)}
        return module.apply({"params": params}, x, t, c, train=train, rngs=rngs)

    np.testing.assert_array_equal(call(0, False), call(1, False))
    assert np.abs(call(0, True) - call(1, True)).max() > 1e-4


def test_every_parameter_matters(small):
    module, params = small

    def loss(p):
        x = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
        out = module.apply({"params": p}, x, jnp.asarray([0.3, -0.7]), jnp.asarray([0, 2]))
        return (out**2).sum()

    grads = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params))
    dead = [jax.tree_util.keystr(k) for k, g in grads if not np.abs(g).max() > 0]
    fixed = ["['fourier']['frequencies']"]  # drawn once and kept
    assert dead == (fixed if "fourier" in params else [])


def test_bfloat16_computes_near_float32():
    kinds = [build_network("unet", (8, 8, 1), SMALL["unet"], d) for d in ("float32", "bfloat16")]
    params = init_params(kinds[0], (8, 8, 1), jax.random.key(0))
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(params))
    params = jax.tree.map(lambda p: p + 0.05 * jnp.sin(jnp.arange(p.size)).reshape(p.shape), params)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    full, half = (m.apply({"params": params}, x, jnp.zeros(2)) for m in kinds)
    assert half.dtype == jnp.float32 and 0 < np.abs(full - half).max() < 0.1 * np.abs(full).max()


def test_group_norm_is_group_norm():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (2, 5, 5, 16))
    norm = GroupNorm()
    got = norm.apply(norm.init(jax.random.key(1), x), x)
    groups = np.asarray(x, np.float64).reshape(2, 25, 4, 4)
    centred = groups - groups.mean((1, 3), keepdims=True)
    want = centred / np.sqrt((centred**2).mean((1, 3), keepdims=True) + 1e-6)
    np.testing.assert_allclose(got, want.reshape(x.shape), atol=1e-5)


@pytest.mark.parametrize("channels, groups", [(4, 1), (16, 4), (72, 18), (128, 32), (144, 24)])
def test_groups_always_divide(channels, groups):
    assert num_groups(channels) == groups


def test_attention_is_softmax_attention():
    qkv = np.asarray(jax.random.normal(jax.random.key(0), (2, 6, 24)), np.float64)
    q, k, v = (a.reshape(2, 6, 2, 4) for a in np.split(qkv, 3, axis=-1))
    logits = np.einsum("bqhd,bkhd->bhqk", q, k) / 2.0
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    want = np.einsum("bhqk,bkhd->bqhd", weights, v).reshape(2, 6, 8)
    np.testing.assert_allclose(attend(jnp.asarray(qkv, jnp.float32), 2), want, atol=1e-5)


@pytest.mark.parametrize(
    "family, more", [*((family, {}) for family in FAMILIES), ("multistage", {"shared": "none"})]
)
def test_a_network_gets_labels_if_and_only_if_it_is_conditional(family, more):
    x, labels = jnp.ones((2, 8, 8, 1)), jnp.zeros(2, jnp.int32)

    def call(module, cond):
        params = jax.eval_shape(lambda: init_params(module, (8, 8, 1), jax.random.key(0)))
        return jax.eval_shape(module.apply, {"params": params}, x, jnp.zeros(2), cond)

    conditional = build_network(family, (8, 8, 1), {**SMALL[family], **more, "num_classes": 3})
    unconditional = build_network(family, (8, 8, 1), {**SMALL[family], **more})
    with pytest.raises(InputError, match=r"cond: a conditional network .* needs a condition"):
        call(conditional, None)
    with pytest.raises(InputError, match="cond: must be None"):
        call(unconditional, labels)
    assert call(conditional, labels).shape == call(unconditional, None).shape == x.shape


@pytest.mark.parametrize("family", FAMILIES)
def test_only_conditional_networks_have_parameters_for_labels(family):
    def names(num_classes):
        network = {**SMALL[family], "num_classes": num_classes}
        shapes = param_shapes(build_network(family, (8, 8, 1), network), (8, 8, 1))
        leaves = jax.tree_util.tree_leaves_with_path(shapes)
        return {jax.tree_util.keystr(path[:-1]) for path, _ in leaves}

    assert names(3) - names(0) == {"['label']"} and names(0) < names(3)


@pytest.mark.parametrize(
    "family, size, network, field",
    [
        ("unet", 10, dict(multipliers=(1, 2, 2)), "data.size"),
        ("unet", 8, dict(width=6), "network.width"),
        ("unet", 8, dict(wdith=8), "did you mean 'width'"),
        ("unet", 8, dict(embedding="sine"), "network.embedding"),
        ("uvit", 9, dict(patch=2), "network.patch"),
        ("uvit", 8, dict(num_heads=7), "network.num_heads"),
        ("uvit", 8, dict(depth=3), "network.depth"),
        ("vit", 8, {}, "family"),
    ],
)
def test_what_does_not_fit_is_named(family, size, network, field):
    with pytest.raises(InputError, match=field):
        build_network(family, (size, size, 1), network)


@pytest.mark.parametrize("family", ["unet", "uvit"])
def test_the_null_label_is_no_class(family):
    module = build_network(family, (8, 8, 1), {**SMALL[family], "num_classes": 3})
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda a: jnp.asarray(0.3 * rng.standard_normal(a.shape), jnp.float32),
        init_params(module, (8, 8, 1), jax.random.key(0)),
    )
    x = jnp.asarray(rng.standard_normal((4, 8, 8, 1)), jnp.float32)
    x = jnp.broadcast_to(x[:1], x.shape)
    labels = jnp.asarray([NULL_LABEL, 0, 1, 2])
    out = np.asarray(module.apply({"params": params}, x, jnp.ones(4), labels))
    gaps = [np.abs(out[i] - out[j]).max() for i in range(4) for j in range(i)]
    assert np.isfinite(out).all() and min(gaps) > 1e-3
