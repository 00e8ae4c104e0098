"""The U-Nets that are built on `UNet`: what each does otherwise, against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.signal import convolve2d

from reprojax.errors import InputError
from reprojax.models.ddpm import DDPM
from reprojax.models.families import build_network, count_params, init_params, network_defaults
from reprojax.models.layers import fir_downsample, fir_upsample
from reprojax.models.ncsnpp import NCSNpp

TINY = dict(width=8, multipliers=(1, 2), num_blocks=1, attention=(4,))
FLAT = dict(width=8, multipliers=(1,), num_blocks=1, attention=())
SHAPE = (8, 8, 1)


def param_shapes(module, shape=SHAPE):
    return jax.eval_shape(lambda: init_params(module, shape, jax.random.key(0)))


def drawn_params(module, shape=SHAPE):
    """Any values: initial ones, near zero in some layers, would hide what reaches these."""
    rng = np.random.default_rng(0)

    def draw(p):
        return jnp.asarray(0.2 * rng.normal(size=p.shape), jnp.float32)

    return jax.tree.map(draw, param_shapes(module, shape))


def images(n, shape=SHAPE):
    return jax.random.normal(jax.random.key(1), (n, *shape))


def captured(module, params, *args):
    """The outputs of a module's top-level layers by name."""
    _, state = module.apply({"params": params}, *args, capture_intermediates=True)
    outputs = state["intermediates"]
    return {k: v["__call__"][0] for k, v in outputs.items() if isinstance(v, dict)}


def per_channel(x, f):
    return np.stack([f(np.asarray(a, np.float64)) for a in np.moveaxis(np.asarray(x), -1, 0)], -1)


# The filter along both axes, of sum 1.
FIR = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


@pytest.mark.parametrize(
    "family, parameters",
    [
        ("unet", 55_732_739),
        ("ddpm", 35_746_307),  # google/ddpm-cifar10-32
        ("ncsnpp", 56_395_523 + 128),  # EDM's NCSN++, and the frequencies that it keeps fixed
    ],
)
def test_paper_scale_sizes_are_exact(family, parameters):
    assert count_params(build_network(family, (32, 32, 3), {}), (32, 32, 3)) == parameters


def test_the_u_net_is_as_stored_cells_know_it():
    """Its keywords are part of a cell's identity; names and values, of every stored weight."""
    keywords = "width multipliers num_blocks attention dropout skip_scale embedding num_classes"
    for family in ("unet", "conv_unet", "ddpm", "ncsnpp"):
        assert list(network_defaults(family)) == keywords.split()
    module = build_network("unet", SHAPE, TINY)
    params = jax.jit(lambda: init_params(module, SHAPE, jax.random.key(0)))()
    names = "conv_in conv_out dec0_0 dec0_1 dec1_0 dec1_1 down1 embed0 embed1 enc0_0 enc1_0 "
    assert sorted(params) == (names + "mid0 mid1 norm_out up1").split()
    got = [params[name]["conv0"]["kernel"][1, 1, 0, 0] for name in ("down1", "mid0", "dec0_1")]
    np.testing.assert_allclose(got, [-0.07352673, -0.00275106, -0.07011127], rtol=1e-5)


@pytest.mark.parametrize("pad, first, size", [(1, 2, 4), (0, 3, 3)])
def test_fir_downsample_is_the_strided_convolution(pad, first, size):
    x = np.random.default_rng(0).normal(size=(8, 8, 3))
    whole = per_channel(x, lambda a: convolve2d(a, FIR))  # of 11 x 11 pixels
    want = whole[first : first + 2 * size : 2, first : first + 2 * size : 2]
    got = fir_downsample(jnp.asarray(x, jnp.float32)[None], pad=pad)[0]
    assert got.shape == (size, size, 3)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_fir_upsample_is_the_convolution_of_the_spread_image():
    x = np.random.default_rng(0).normal(size=(4, 6, 3))
    spread = np.zeros((8, 12, 3))
    spread[::2, ::2] = x
    want = per_channel(spread, lambda a: convolve2d(a, 4 * FIR))[1:9, 1:13]
    got = fir_upsample(jnp.asarray(x, jnp.float32)[None])[0]
    np.testing.assert_allclose(got, want, atol=1e-6)


class Steps(DDPM):
    """DDPM's steps to the coarser and to the finer level."""

    @nn.compact
    def __call__(self, x, c_noise, cond=None):
        return self._down(1, x, x, None, train=False), self._up(1, x, None, train=False)


def test_ddpm_resamples_by_convolutions():
    module = Steps(out_channels=2)
    params = drawn_params(module, (8, 8, 2))
    x = images(1, (8, 8, 2))
    wider = np.pad(x[0], ((0, 1), (0, 1), (0, 0)))  # zeros below and on the right alone
    twice = np.pad(np.kron(x[0], np.ones((2, 2, 1))), ((1, 1), (1, 1), (0, 0)))
    steps = zip(("down1", "up1"), module.apply({"params": params}, x, None), strict=True)
    for (name, got), padded, stride in zip(steps, (wider, twice), (2, 1), strict=True):
        kernel, bias = (np.asarray(params[name][k]) for k in ("kernel", "bias"))
        places = range(0, len(padded) - 2, stride)
        patches = [[padded[i : i + 3, j : j + 3] for j in places] for i in places]
        want = np.einsum("ijhwc,hwcd->ijd", patches, kernel) + bias
        np.testing.assert_allclose(got[0], want, atol=1e-5)


def test_ddpm_attends_after_every_block_of_a_resolution():
    attending = {}
    for family in ("ddpm", "unet"):
        params = param_shapes(build_network(family, SHAPE, TINY))
        attending[family] = sorted(name for name in params if "qkv" in params[name])
    assert attending["ddpm"] == ["dec1_0", "dec1_1", "enc1_0", "mid0"]
    assert attending["unet"] == ["dec1_1", "enc1_0", "mid0"]


class WayDown(NCSNpp):
    """The skips of NCSN++."""

    @nn.compact
    def __call__(self, x, c_noise, cond=None):
        return self._encode(x, self._embed(c_noise, None), train=False)[1]


def test_ncsnpp_adds_the_input_to_every_resolution():
    module = WayDown(out_channels=1, **{**TINY, "multipliers": (1, 2, 2)})
    x = images(1)
    params = drawn_params(module)
    assert params["input1"]["kernel"].shape == (3, 3, 1, 8)  # from the image
    assert params["input2"]["kernel"].shape == (3, 3, 8, 16)  # from what the first step made
    out = captured(module, params, x, jnp.ones(1))
    skips = module.apply({"params": params}, x, jnp.ones(1))
    start = x
    for level, skip in ((1, skips[2]), (2, skips[4])):
        conv = jax.lax.conv_general_dilated(
            start,
            params[f"input{level}"]["kernel"],
            (1, 1),
            ((2, 2), (2, 2)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )[0]
        size = skip.shape[1]
        inside = slice(3, 2 * size + 3, 2)  # where the filter lies within the convolution
        halved = per_channel(conv, lambda a, s=inside: convolve2d(a, FIR)[s, s])
        halved = halved + np.asarray(params[f"input{level}"]["bias"])
        np.testing.assert_allclose(skip[0], (out[f"down{level}"][0] + halved) / 2**0.5, atol=1e-4)
        start = skip


def test_ncsnpp_reads_noise_by_twice_as_many_features():
    params = param_shapes(build_network("ncsnpp", SHAPE, {**TINY, "num_classes": 3}))
    assert params["fourier"]["frequencies"].shape == (8,)  # a cosine and a sine of each
    assert params["embed0"]["kernel"].shape == (16, 32)
    assert params["label"]["kernel"].shape == (3, 16)


NOISE = jnp.asarray([-1.0, 0.0, 0.25, 0.5, 3.0])
LABELS = jnp.asarray([0, 1, 2, 0, 1])
STAGE = [0, 1, 1, 2, 2]  # of NOISE, for boundaries at 0 and .5: a boundary belongs to the upper one


@pytest.fixture(scope="module", params=["encoder", "none"])
def multistage(request):
    keywords = dict(boundaries=(0.0, 0.5), shared=request.param, num_classes=3)
    module = build_network("multistage", SHAPE, {**FLAT, **keywords})
    return module, drawn_params(module)


def test_each_image_takes_its_own_interval_s_answer(multistage):
    module, params = multistage
    got = module.apply({"params": params}, images(5), NOISE, LABELS)
    unet = build_network("unet", SHAPE, {**FLAT, "num_classes": 3})
    common = {name: value for name, value in params.items() if not name.startswith("stage")}
    answers = [
        unet.apply({"params": {**common, **params[f"stage{k}"]}}, images(5), NOISE, LABELS)
        for k in range(3)
    ]
    for i, k in enumerate(STAGE):
        np.testing.assert_allclose(got[i], answers[k][i], atol=1e-5)
        assert all(np.abs(got[i] - answers[j][i]).max() > 1e-3 for j in range(3) if j != k)


def test_other_intervals_decoders_learn_nothing_from_an_image(multistage):
    module, params = multistage
    # Whatever a decoder learns passes through its last layer.
    last = {k: params[k]["conv_out"] for k in ("stage0", "stage1", "stage2")}

    def loss(last):
        stages = {k: {**params[k], "conv_out": v} for k, v in last.items()}
        out = module.apply({"params": {**params, **stages}}, images(5), NOISE, LABELS)
        return (out[1:3] ** 2).sum()

    sizes = {k: max(np.abs(g).max() for g in v.values()) for k, v in jax.grad(loss)(last).items()}
    assert sizes["stage1"] > 0 and sizes["stage0"] == sizes["stage2"] == 0


def test_what_the_intervals_share():
    def count(family, **more):
        return count_params(build_network(family, SHAPE, {**TINY, **more}), SHAPE)

    assert count("multistage", shared="none") == 3 * count("unet")
    module = build_network("multistage", SHAPE, TINY)
    shapes = param_shapes(module)
    way_down = "conv_in down1 embed0 embed1 enc0_0 enc1_0 mid0 mid1 stage0 stage1 stage2"
    assert sorted(shapes) == way_down.split()
    way_up = "conv_out dec0_0 dec0_1 dec1_0 dec1_1 norm_out up1"
    assert sorted(shapes["stage1"]) == way_up.split()


@pytest.mark.parametrize(
    "family, network, field",
    [
        ("multistage", dict(boundaries=()), r"network\.boundaries"),
        ("multistage", dict(boundaries=(0.5, 0.5)), r"network\.boundaries"),
        ("multistage", dict(boundaries=(0.5, 0.1)), r"network\.boundaries"),
        ("multistage", dict(boundaries=(0.5, float("inf"))), r"network\.boundaries"),
        ("multistage", dict(shared="decoder"), r"network\.shared"),
        ("multistage", dict(width=6), r"network\.width"),
        ("ddpm", dict(multipliers=(1, 1, 1, 1, 1)), r"data\.size"),
        ("ncsnpp", dict(embedding="sine"), r"network\.embedding"),
        ("unet", dict(boundaries=(0.5,)), r"network\.boundaries"),
    ],
)
def test_what_does_not_fit_is_named(family, network, field):
    with pytest.raises(InputError, match=field):
        build_network(family, SHAPE, {**TINY, **network})
