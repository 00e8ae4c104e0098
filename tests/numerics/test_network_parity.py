"""Networks of other code bases, converted by the command line: the same outputs, weights random.

Every parameter is moved off its initial value, since published inits are near zero in places and
would hide what is mapped wrongly there. In float32; the largest difference over the largest output.

diffusers is installed by `pip install -e '.[interop]'`; REPROJAX_ORACLES=1 makes its absence a
failure. The other originals are no packages, and some licences do not let them stand here, so each
test takes the folder of a checkout from the environment and skips without it:

    REPROJAX_EDM_SOURCE          github.com/NVlabs/edm
    REPROJAX_UVIT_SOURCE         github.com/baofff/U-ViT (needs einops)
    REPROJAX_CONSISTENCY_SOURCE  github.com/openai/consistency_models_cifar10
"""

import importlib
import os
import pickle
import sys
from unittest.mock import MagicMock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reprojax.interop.cli import main
from reprojax.interop.exchange import read_model

BOUND = 1e-4  # seen: 5e-6 at these sizes and at the published ones
SIGMAS = np.asarray([0.03, 0.3, 2.0, 20.0], np.float32)
TIMES = np.asarray([0.0, 3.0, 400.0, 999.0], np.float32)


def required(name):
    if os.environ.get("REPROJAX_ORACLES") == "1":
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"no {name}: pip install -e '.[interop]'")


def checkout(variable, monkeypatch):
    """Puts the folder that a variable names on the import path."""
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} is not set: the folder of a checkout (see the module)")
    monkeypatch.syspath_prepend(folder)
    return required("torch") if variable != "REPROJAX_CONSISTENCY_SOURCE" else None


@pytest.fixture
def convert(tmp_path):
    """A file to our model by the command line."""

    def run(form, path, *options):
        arguments = ["--from", form, "--in", str(path), "--out", str(tmp_path / "out"), *options]
        assert main(["convert", *arguments]) == 0
        return read_model(tmp_path / "out")

    return run


def images(size, scale=None, channels=3):
    draw = np.random.default_rng(1).normal(size=(len(TIMES), size, size, channels))
    scale = np.ones(len(TIMES)) if scale is None else scale
    return (draw * scale[:, None, None, None]).astype(np.float32)


def shake(torch, net, size=0.1):
    """Moves every parameter; evaluation mode."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return net.eval().requires_grad_(False)


def by_torch(torch, net, x, *rest):
    """Calls a network on NHWC images."""
    as_torch = lambda a: torch.from_numpy(a) if isinstance(a, np.ndarray) else a  # noqa: E731
    out = net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), *map(as_torch, rest))
    return out.numpy().transpose(0, 2, 3, 1)


def assert_near(got, want):
    for one, other in zip(np.asarray(got), np.asarray(want), strict=True):
        assert np.abs(one - other).max() <= BOUND * np.abs(other).max()
    differences = np.asarray(want) - np.asarray(want)[:1]
    assert np.abs(differences[1:]).max() > 0.1 * np.abs(want).max()  # it depends on its input


def ours(model, x, c_noise, labels=None):
    apply = jax.jit(lambda p, *inputs: model.facts.build().apply({"params": p}, *inputs))
    return apply(model.params, x, jnp.asarray(c_noise, jnp.float32), labels)


def assert_same_denoiser(model, x, want, labels=None):
    """Denoised images, and the network's own part of them, which small noise levels hide."""
    denoise = jax.jit(lambda d, *inputs: d(*inputs))
    got = np.asarray(denoise(model.denoiser(), x, SIGMAS, labels))
    assert_near(got, want)
    c = model.facts.precondition()(jnp.asarray(SIGMAS))
    skip, out = (np.asarray(a)[:, None, None, None] for a in (c.c_skip, c.c_out))
    assert_near((got - skip * x) / out, (want - skip * x) / out)


# ---- diffusers

DDPM = dict(
    attention_head_dim=None,
    downsample_padding=0,
    flip_sin_to_cos=False,
    freq_shift=1,
    norm_eps=1e-6,
    norm_num_groups=32,
)
SHALLOW = dict(
    sample_size=8,
    block_out_channels=(128, 256),  # 32 groups at every width ask for 128
    layers_per_block=1,
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
)
PUBLISHED = dict(  # google/ddpm-cifar10-32
    sample_size=32,
    block_out_channels=(128, 256, 256, 256),
    layers_per_block=2,
    down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
)


@pytest.mark.parametrize(
    "structure, parameters",
    [(SHALLOW, None), ({**SHALLOW, "flip_sin_to_cos": True}, None), (PUBLISHED, 35_746_307)],
    ids=["shallow", "cos first", "published"],
)
def test_ddpm_is_that_of_diffusers(structure, parameters, convert, tmp_path):
    torch, diffusers = required("torch"), required("diffusers")
    torch.manual_seed(0)
    net = shake(torch, diffusers.UNet2DModel(**{**DDPM, **structure}), 0.05)
    net.save_pretrained(tmp_path / "net")
    model = convert("diffusers", tmp_path / "net")
    assert parameters in (None, model.count())
    x = images(structure["sample_size"])
    want = by_torch(torch, lambda *a: net(*a).sample, x, TIMES.astype(np.int64))
    assert_near(ours(model, x, TIMES), want)


# ---- U-ViT


@pytest.mark.parametrize("classes", [-1, 7])
def test_uvit_is_the_original(classes, convert, tmp_path, monkeypatch):
    torch = checkout("REPROJAX_UVIT_SOURCE", monkeypatch)
    torch.manual_seed(0)
    original = importlib.import_module("libs.uvit").UViT
    shape = dict(img_size=8, patch_size=2, embed_dim=32, depth=4, num_heads=2)
    net = shake(torch, original(in_chans=3, num_classes=classes, **shape))
    torch.save(net.state_dict(), tmp_path / "nnet_ema.pth")
    model = convert("uvit", tmp_path / "nnet_ema.pth", "--heads", "2")
    x, labels = images(8), np.asarray([0, 3, 6, 1]) if classes > 0 else None
    want = by_torch(torch, net, x, TIMES, labels)
    assert_near(ours(model, x, TIMES, labels), want)


# ---- EDM

EDM = {
    "unet": dict(
        embedding_type="positional",
        encoder_type="standard",
        channel_mult_noise=1,
        resample_filter=[1, 1],
    ),
    "ncsnpp": dict(
        embedding_type="fourier",
        encoder_type="residual",
        channel_mult_noise=2,
        resample_filter=[1, 3, 3, 1],
    ),
}
SMALL = dict(model_channels=16, channel_mult=[1, 2, 3], num_blocks=2, attn_resolutions=[8, 4])


@pytest.mark.parametrize(
    "family, precond, classes",
    [
        ("unet", "EDMPrecond", 0),
        ("unet", "EDMPrecond", 5),
        ("unet", "VPPrecond", 0),
        ("ncsnpp", "EDMPrecond", 5),
        ("ncsnpp", "VEPrecond", 0),
    ],
)
def test_a_pickle_of_edm_is_the_original(family, precond, classes, convert, tmp_path, monkeypatch):
    torch = checkout("REPROJAX_EDM_SOURCE", monkeypatch)
    torch.manual_seed(0)
    networks, loss, augment = (
        importlib.import_module(f"training.{name}") for name in ("networks", "loss", "augment")
    )
    net = getattr(networks, precond)(
        img_resolution=16,
        img_channels=3,
        label_dim=classes,
        model_type="SongUNet",
        augment_dim=9,
        **SMALL,
        **EDM[family],
    )
    data = {"ema": shake(torch, net), "loss_fn": loss.EDMLoss(), "dataset_kwargs": {"path": "x"}}
    data["augment_pipe"] = augment.AugmentPipe(p=0.12, xflip=1e8, scale=1)
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(data))
    model = convert("edm", tmp_path / "net.pkl")
    assert model.facts.family == family
    x = images(16, np.sqrt(0.25 + SIGMAS**2))
    labels = np.asarray([0, 3, 4, 1]) if classes else None
    onehot = None if labels is None else np.eye(classes, dtype=np.float32)[labels]
    assert_same_denoiser(model, x, by_torch(torch, net, x, SIGMAS, onehot), labels)
    if classes:  # no label is a vector of zeros there, and no label here
        assert_same_denoiser(model, x, by_torch(torch, net, x, SIGMAS, None))


# ---- NCSN++ and DDPM++ in JAX


@pytest.mark.parametrize(
    "config, use",
    [("cifar10_k_ve", "edm"), ("cifar10_k_vp", "edm"), ("cifar10_ve_cd", "consistency")],
)
def test_a_flax_checkpoint_is_the_original(config, use, convert, tmp_path, monkeypatch):
    checkout("REPROJAX_CONSISTENCY_SOURCE", monkeypatch)
    import flax.serialization

    # Of these the networks and the denoiser need nothing.
    for name in (
        "haiku",
        "blobfile",
        "jcm.models.lpips",
        "jcm.models.wideresnet_noise_conditional",
    ):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    utils, sde_lib = (importlib.import_module(f"jcm.{n}") for n in ("models.utils", "sde_lib"))
    importlib.import_module("jcm.models.ncsnpp")
    config = importlib.import_module(f"configs.{config}").get_config()
    config.model.update(nf=16, ch_mult=(1, 2), num_res_blocks=1)
    net = utils.get_model("ncsnpp")(config=config)
    x = images(32, np.sqrt(0.25 + SIGMAS**2))
    init = jax.jit(lambda key: net.init({"params": key}, x, jnp.asarray(SIGMAS), train=False))
    with jax.numpy_rank_promotion("allow"):
        initial = init(jax.random.key(0))["params"]
    rng = np.random.default_rng(0)
    move = lambda p: np.asarray(p) + 0.1 * rng.normal(size=p.shape).astype(np.float32)  # noqa: E731
    params = jax.tree.map(move, initial)
    state = utils.State(7, 1e-3, 0.99, {}, params, {}, {}, np.zeros(2, np.uint32))
    (tmp_path / "checkpoint_7").write_bytes(flax.serialization.to_bytes(state))
    model = convert("msgpack", tmp_path / "checkpoint_7", "--preconditioning", use)
    assert model.facts.kind == ("flow_map" if use == "consistency" else "network")
    make = utils.get_denoiser_fn if use == "edm" else utils.get_distiller_fn
    original = jax.jit(make(sde_lib.get_sde(config), net, params, {}))
    with jax.numpy_rank_promotion("allow"):
        want = np.asarray(original(x, SIGMAS))
    assert_same_denoiser(model, x, want)
