"""The readers: what a file's names and shapes say is the network that they were made of.

Names and layouts are held against the original code in `tests/numerics/test_network_parity.py`;
here the way back is written down once more, and a file made by it has to lead to the same bits.
"""

import json
import math

import flax.serialization
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from reprojax.errors import InputError
from reprojax.interop import diffusers_unet, edm_pickle, msgpack, uvit_pth
from reprojax.interop.cli import main
from reprojax.interop.exchange import convert, read_model
from reprojax.interop.facts import ModelFacts
from reprojax.interop.machine import Inert
from reprojax.interop.mapping import TRANSFORMS, paths
from reprojax.interop.table import print_rows
from reprojax.models.layers import num_groups


def swap_halves(a, axis):
    return np.concatenate(np.split(a, 2, axis)[::-1], axis)


# From our values to theirs, written without the functions that are tested.
BACK = {
    "copied": lambda a: [a],
    "transposed": lambda a: [a.T],
    "OIHW to HWIO": lambda a: [np.einsum("hwio->oihw", a)],
    "1x1 to matrix": lambda a: [a.T[:, :, None, None]],
    "1x1 HWIO to matrix": lambda a: [a[None, None]],
    "transposed, sin/cos swapped": lambda a: [swap_halves(a, 0).T],
    "sin/cos swapped": lambda a: [swap_halves(a, 0)],
    "transposed, scaled, sin/cos swapped": lambda a: [swap_halves(a, 1).T / math.sqrt(len(a))],
    "qkv regrouped": lambda a: [np.stack(np.split(a, 3), -1).ravel()],
    "1x1 to matrix, qkv regrouped": lambda a: [
        np.stack(np.split(a.T, 3), 1).reshape(a.T.shape)[:, :, None, None]
    ],
    "qkv joined": lambda a: np.split(a, 3, -1),
    "transposed, qkv joined": lambda a: [x.T for x in np.split(a, 3, -1)],
}


def make(rules_of, family, network, shape, **use):
    """(facts, random parameters by path, the tensors that they come from)."""
    use = {"kernel": "edm", "preconditioning": "edm", **use}
    facts = ModelFacts(family, tuple(network.items()), shape, **use)
    rng = np.random.default_rng(0)
    shapes = flatten_dict(facts.shapes(), sep="/")
    params = {k: rng.normal(size=v.shape).astype(np.float32) for k, v in shapes.items()}
    tensors = {}
    for rule in rules_of(facts):
        if rule.how != "label bias added":
            tensors |= dict(zip(rule.theirs, BACK[rule.how](params[rule.ours]), strict=True))
    return facts, params, tensors


def assert_same(model, params, exact=True):
    got = flatten_dict(model.params, sep="/")
    assert got.keys() == params.keys()
    for name, value in params.items():
        np.testing.assert_allclose(got[name], value, rtol=0 if exact else 1e-6, err_msg=name)


def test_every_transform_is_written_back():
    assert BACK.keys() == TRANSFORMS.keys() - {"label bias added"}


# ---- EDM's pickles


NETWORK = dict(width=8, multipliers=(1, 2), num_blocks=1, attention=(4,), dropout=0.13)
CHOICES = {
    "unet": dict(embedding_type="positional", encoder_type="standard", channel_mult_noise=1),
    "ncsnpp": dict(embedding_type="fourier", encoder_type="residual", channel_mult_noise=2),
}
FILTERS = {"unet": [1, 1], "ncsnpp": [1, 3, 3, 1]}


def nest(tensors, kinds):
    """Modules of tensors by dotted name; ``kinds`` gives the class and attributes of a path."""
    tree = unflatten_dict({tuple(k.split(".")): v for k, v in tensors.items()})

    def module(path, tree):
        arrays = {k: v for k, v in tree.items() if not isinstance(v, dict)}
        children = {k: module((*path, k), v) for k, v in tree.items() if isinstance(v, dict)}
        kind, state = kinds(path, arrays)
        contents = {"_parameters": arrays, "_buffers": {"none": None}, "_modules": children}
        return Inert(kind, state={**contents, **state})

    return module((), tree)


def edm_net(tensors, family, precond="EDMPrecond", classes=0, keywords=None, **more):
    keywords = {
        **CHOICES[family],
        **{"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]},
        **{"resample_filter": FILTERS[family], "dropout": 0.13, "img_resolution": 8},
        **(keywords or {}),
    }
    top = {"img_resolution": 8, "img_channels": 3, "label_dim": classes, "sigma_data": 0.5}

    def kinds(path, arrays):
        if path == ():
            return precond, {**top, **more}
        if path == ("model",):
            return "SongUNet", {"_init_args": (), "_init_kwargs": keywords}
        if path[-1].endswith(("_up", "_down", "in0", "in1")) or "_block" in path[-1]:
            block = {"num_heads": 1, "adaptive_scale": False, "skip_scale": math.sqrt(0.5)}
            return "UNetBlock", {**block, **more.get("block", {})}
        if "norm" in path[-1]:
            return "GroupNorm", {"num_groups": num_groups(arrays["weight"].size), "eps": 1e-6}
        return "Layer", {}

    return {"ema": nest(tensors, kinds)}


@pytest.fixture
def read_edm(monkeypatch, tmp_path):
    def read(value):
        monkeypatch.setattr(edm_pickle, "read_pickle", lambda path: value)
        return edm_pickle.read_edm(tmp_path / "net.pkl")

    return read


def edm_tensors(family, classes=0):
    network = {**NETWORK, "num_classes": classes}
    network |= {"embedding": CHOICES[family]["embedding_type"]}
    facts, params, tensors = make(edm_pickle._rules, family, network, (8, 8, 3))
    weights = np.asarray(FILTERS[family], np.float32)
    smooth = np.outer(weights, weights)[None, None] / weights.sum() ** 2
    tensors["model.enc.4x4_down.conv0.resample_filter"] = smooth
    tensors["model.map_augment.weight"] = np.ones((8, 9), np.float32)
    return facts, params, tensors


@pytest.mark.parametrize("family", CHOICES)
def test_an_edm_pickle_is_read(family, read_edm, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # of the terminal
    facts, params, tensors = edm_tensors(family)
    foreign = read_edm(edm_net(tensors, family))
    model, rows = convert(foreign)
    assert_same(model, params)
    assert dict(model.facts.network) == dict(facts.network)
    got = model.facts
    assert (got.family, got.kernel, got.preconditioning) == (family, "edm", "edm")
    assert got.image_shape == (8, 8, 3) and got.sigma_data == 0.5 and got.kind == "network"
    print_rows(rows, verbose=False)
    output = " ".join(capsys.readouterr().out.split())
    assert (
        f"{sum(v.size for v in params.values()):,} parameters" in output and "2 dropped" in output
    )
    assert (
        "(dropped) │ model.map_augment.weight" in output and "mid0 │ model.dec.4x4_in0.*" in output
    )
    unused = {row.theirs[0]: row.how for row in rows if not row.ours}
    assert "augmentation" in unused["model.map_augment.weight"]
    assert "filter" in unused["model.enc.4x4_down.conv0.resample_filter"] and len(unused) == 2


def test_edm_names_are_the_originals(read_edm):
    names = set(edm_tensors("ncsnpp")[2])
    expected = "enc.8x8_conv enc.8x8_block0.conv0 enc.4x4_down.skip enc.4x4_aux_residual"
    expected += " enc.4x4_block0.qkv dec.4x4_in0.proj dec.4x4_in1.affine dec.4x4_block1.norm2"
    expected += " dec.8x8_up.norm0 dec.8x8_block1.skip dec.8x8_aux_norm dec.8x8_aux_conv"
    expected += " map_layer0 map_layer1"
    for name in expected.split():
        assert {f"model.{name}.weight", f"model.{name}.bias"} <= names, name
    assert "model.map_noise.freqs" in names


@pytest.mark.parametrize(
    "precond, constants, use",
    [
        ("VPPrecond", {"beta_d": 19.9, "beta_min": 0.1, "M": 1000}, ("vp", "vp_eps", "eps")),
        ("VEPrecond", {"sigma_min": 0.02, "sigma_max": 100}, ("ve", "ve", "eps")),
    ],
)
def test_edm_preconditioning_classes(precond, constants, use, read_edm):
    tensors = edm_tensors("unet")[2]
    facts = read_edm(edm_net(tensors, "unet", precond, **constants)).facts
    assert (facts.kernel, facts.preconditioning, facts.objective) == use
    name = next(iter(constants))
    with pytest.raises(InputError, match=f"a network with {name} "):
        read_edm(edm_net(tensors, "unet", precond, **{**constants, name: 0.3}))


def test_the_label_layer_of_edm_means_the_same(read_edm):
    """W0 (swap(f) + Wl (sqrt(n) onehot) + bl) + b0, of noise features f, is our first layer."""
    _, params, tensors = edm_tensors("unet", classes=3)
    rng = np.random.default_rng(1)
    for name, size in (("map_layer0.bias", 32), ("map_label.bias", 8)):
        tensors[f"model.{name}"] = rng.normal(size=size).astype(np.float32)
    model, _ = convert(read_edm(edm_net(tensors, "unet", classes=3)))
    features, onehot = rng.normal(size=8), np.eye(3)[1]

    def layer(name, x):
        return tensors[f"model.{name}.weight"] @ x + tensors[f"model.{name}.bias"]

    swapped = np.concatenate([features[4:], features[:4]])
    want = layer("map_layer0", swapped + layer("map_label", math.sqrt(3) * onehot))
    ours = model.params
    got = (features + onehot @ ours["label"]["kernel"]) @ ours["embed0"]["kernel"]
    np.testing.assert_allclose(got + ours["embed0"]["bias"], want, rtol=1e-5, atol=1e-5)
    del params["embed0/bias"]
    rest = {k: v for k, v in flatten_dict(ours, sep="/").items() if k != "embed0/bias"}
    for name, value in params.items():
        np.testing.assert_allclose(rest[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"keywords": {"decoder_type": "skip"}}, "decoder_type 'standard', not 'skip'"),
        ({"keywords": {"encoder_type": "skip"}}, "encoder_type 'standard', not 'skip'"),
        ({"keywords": {"channel_mult_emb": 2}}, "channel_mult_emb 4, not 2"),
        ({"keywords": {"channel_mult_noise": 2}}, "channel_mult_noise 1, not 2"),
        ({"keywords": {"resample_filter": [1, 3, 3, 1]}}, "resample_filter [1, 1]"),
        ({"keywords": {"model_channels": "8"}}, "a model_channels such as 128"),
        ({"keywords": {"channel_mult": [1, Inert("x")]}}, "a channel_mult such as"),
        ({"keywords": {"num_blocks": 10**9}}, "network.num_blocks"),
        ({"img_resolution": Inert("x")}, "image_shape"),
        ({"img_resolution": 9}, "data.size"),
        ({"label_dim": 2.5}, "network.num_classes"),
        ({"sigma_data": "0.5"}, "sigma_data"),
        ({"block": {"num_heads": 2}}, "num_heads 0 or 1, not 2"),
        ({"block": {"adaptive_scale": True}}, "adaptive_scale False, not True"),
        ({"block": {"skip_scale": 1.0}}, "skip_scale 0.707"),
    ],
)
def test_what_edm_has_and_we_have_not_is_named(change, expected, read_edm):
    with pytest.raises(InputError) as error:
        convert(read_edm(edm_net(edm_tensors("unet")[2], "unet", **change)))
    assert expected in str(error.value)


def test_an_edm_network_with_another_filter_is_refused(read_edm):
    tensors = edm_tensors("ncsnpp")[2]
    tensors["model.enc.4x4_down.conv0.resample_filter"] *= 1.01
    with pytest.raises(InputError, match="the filter"):
        read_edm(edm_net(tensors, "ncsnpp"))


# ---- diffusers


CONFIG = {
    "_class_name": "UNet2DModel",
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [128, 256],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 8,
    "time_embedding_type": "positional",
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}


def ddpm_rules(facts, sin_first=True):
    return [diffusers_unet._rule(ours, 2, sin_first) for ours in paths(facts.shapes())]


def diffusers_folder(folder, tensors, scheduler=None, **change):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **change}))
    if scheduler is not None:
        (folder / "scheduler_config.json").write_text(json.dumps(scheduler))
    tensors = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def ddpm():
    network = dict(width=128, multipliers=(1, 2), num_blocks=1, attention=(4,), dropout=0.0)
    return make(ddpm_rules, "ddpm", network, (8, 8, 3))


@pytest.mark.parametrize("old_names", [False, True])
def test_a_folder_of_diffusers_is_read(ddpm, old_names, tmp_path, capsys):
    facts, params, tensors = ddpm
    if old_names:
        new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for ours, theirs in new.items():
            tensors = {k.replace(f".{ours}.", f".{theirs}."): v for k, v in tensors.items()}
        assert not any("to_q" in name for name in tensors)
    folder = diffusers_folder(tmp_path / "ddpm", tensors, {"beta_schedule": "linear"})
    arguments = [
        "convert",
        "--from",
        "diffusers",
        "--in",
        str(folder),
        "--out",
        str(tmp_path / "m"),
    ]
    assert main([*arguments, "--verbose"]) == 0
    output = capsys.readouterr().out
    assert "enc1_0/qkv/kernel" in output and f"{sum(v.size for v in params.values()):,}" in output
    model = read_model(tmp_path / "m")
    assert_same(model, params)
    assert dict(model.facts.network) == dict(facts.network)
    assert (model.facts.kernel, model.facts.preconditioning) == ("ddpm", "vp_eps")


def test_diffusers_names_are_the_originals(ddpm):
    expected = "conv_in time_embedding.linear_1 time_embedding.linear_2 conv_norm_out conv_out"
    expected += " down_blocks.0.resnets.0.time_emb_proj down_blocks.0.downsamplers.0.conv"
    expected += " down_blocks.1.resnets.0.conv_shortcut down_blocks.1.attentions.0.to_q"
    expected += " mid_block.resnets.1.norm2 mid_block.attentions.0.to_out.0"
    expected += " up_blocks.0.resnets.1.conv1 up_blocks.0.attentions.1.group_norm"
    expected += " up_blocks.0.upsamplers.0.conv up_blocks.1.resnets.0.conv_shortcut"
    for name in expected.split():
        assert {f"{name}.weight", f"{name}.bias"} <= set(ddpm[2]), name


def test_a_part_of_a_pipeline_and_the_other_order_of_features(ddpm, tmp_path):
    _, params, tensors = ddpm
    (tmp_path / "pipe").mkdir()
    diffusers_folder(tmp_path / "pipe/unet", tensors, flip_sin_to_cos=True)
    model, _ = convert(diffusers_unet.read_diffusers(tmp_path / "pipe"))
    np.testing.assert_array_equal(
        model.params["embed0"]["kernel"], np.roll(params["embed0/kernel"], 64, 0)
    )


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"_class_name": "UNet2DConditionModel"}, "_class_name"),
        ({"act_fn": "gelu"}, "act_fn 'silu' or 'swish', not 'gelu'"),
        ({"attention_head_dim": 8}, "attention_head_dim None or 256, not 8"),
        ({"downsample_padding": 1}, "downsample_padding 0, not 1"),
        ({"freq_shift": 0}, "freq_shift 1, not 0"),
        ({"center_input_sample": True}, "center_input_sample"),
        ({"norm_eps": 1e-5}, "norm_eps"),
        ({"norm_num_groups": 16}, "norm_num_groups 32 for"),
        ({"mid_block_scale_factor": 2}, "mid_block_scale_factor"),
        ({"num_class_embeds": 10}, "num_class_embeds"),
        ({"out_channels": 6}, "out_channels 3, not 6"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type"),
        ({"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift"),
        ({"add_attention": False}, "add_attention"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"downsample_type": "resnet"}, "downsample_type"),
        ({"mid_block_type": None}, "mid_block_type"),
        ({"time_embedding_dim": 64}, "time_embedding_dim"),
        ({"upsample_type": "resnet"}, "upsample_type"),
        ({"attn_norm_num_groups": 8}, "attn_norm_num_groups"),
        ({"up_block_types": ["UpBlock2D", "AttnUpBlock2D"]}, "up_block_types that mirror"),
        ({"down_block_types": ["SkipDownBlock2D"] * 2}, "down_block_types"),
        ({"block_out_channels": [128, 192]}, "block_out_channels"),
        ({"block_out_channels": "128"}, "block_out_channels"),
        ({"sample_size": None}, "sample_size"),
        ({"sample_size": 8.0}, "sample_size"),
        ({"layers_per_block": [1, 2]}, "network.num_blocks"),
        ({"layers_per_block": 2}, "missing: down_blocks.0.resnets.1"),
        ({"scheduler": {"beta_schedule": "squaredcos_cap_v2"}}, "scheduler beta_schedule 'linear'"),
        ({"scheduler": {"prediction_type": "v_prediction"}}, "scheduler prediction_type"),
    ],
)
def test_what_diffusers_has_and_we_have_not_is_named(change, expected, ddpm, tmp_path):
    folder = diffusers_folder(tmp_path / "d", ddpm[2], **change)
    with pytest.raises(InputError) as error:
        convert(diffusers_unet.read_diffusers(folder))
    assert expected in str(error.value)


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        diffusers_unet.read_diffusers(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(InputError, match=r"diffusion_pytorch_model\.safetensors"):
        diffusers_unet.read_diffusers(tmp_path)


# ---- U-ViT


UVIT = dict(width=32, patch=2, depth=4, num_heads=4, mlp_ratio=2.0, noise_scale=1.0, num_classes=3)


def uvit_rules(facts):
    return [uvit_pth._rule(ours) for ours in paths(facts.shapes())]


@pytest.fixture
def read_uvit(monkeypatch, tmp_path):
    def read(tensors, heads=4):
        monkeypatch.setattr(uvit_pth, "_load", lambda path: tensors)
        return uvit_pth.read_uvit(tmp_path / "nnet_ema.pth", heads)

    return read


@pytest.mark.parametrize("classes", [0, 3])
def test_a_uvit_is_read_off_its_shapes(classes, read_uvit):
    facts, params, tensors = make(uvit_rules, "uvit", {**UVIT, "num_classes": classes}, (8, 8, 3))
    model, _ = convert(read_uvit(tensors))
    assert_same(model, params)
    assert dict(model.facts.network) == dict(facts.network)
    assert model.facts.image_shape == (8, 8, 3)
    assert (model.facts.kernel, model.facts.preconditioning) == ("vp", "vp_eps")
    for name in ("in_blocks.1.attn.qkv", "mid_block.mlp.fc1", "out_blocks.0.skip_linear"):
        assert f"{name}.weight" in tensors


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"heads": None}, "--heads"),
        ({"heads": 3}, "network.num_heads"),
        ({"drop": "final_layer.weight"}, "final_layer.weight"),
        ({"drop": "pos_embed"}, "pos_embed"),
        ({"add": "time_embed.0.weight"}, "mlp_time_embed"),
        ({"add": "in_blocks.0.attn.qkv.bias"}, "left over: in_blocks.0.attn.qkv.bias"),
        ({"drop": "mid_block.norm1.weight"}, "missing: mid_block.norm1.weight"),
        ({"channels": 4}, "latents of 4"),
    ],
)
def test_what_uvit_has_and_we_have_not_is_named(change, expected, read_uvit):
    _, _, tensors = make(uvit_rules, "uvit", UVIT, (8, 8, change.get("channels", 3)))
    tensors.pop(change.get("drop"), None)
    if "add" in change:
        tensors[change["add"]] = np.ones(4, np.float32)
    with pytest.raises(InputError) as error:
        convert(read_uvit(tensors, change.get("heads", 4)))
    assert expected in str(error.value)


def test_a_pth_is_read_as_weights_only_or_not_at_all(tmp_path, capsys):
    path = tmp_path / "x.pth"
    arguments = ["convert", "--from", "uvit", "--in", str(path), "--out", str(tmp_path / "m")]
    try:
        import torch
    except ImportError:
        path.write_bytes(b"")
        assert main(arguments) == 2
        assert "needs PyTorch" in capsys.readouterr().err
        return
    import os

    class Evil:
        def __reduce__(self):
            return os.system, (f": > '{tmp_path / 'canary'}'",)

    for value, word in ((Evil(), "holds tensors and nothing else"), ([1], "a state dict")):
        torch.save(value, path)
        assert main(arguments) == 2
        assert word in capsys.readouterr().err
    path.write_bytes(b"PK\x03\x04 not a zip")
    assert main(arguments) == 2
    assert not (tmp_path / "canary").exists() and not (tmp_path / "m").exists()


def test_an_old_pytorch_is_refused(tmp_path, monkeypatch):
    import sys
    import types

    old = types.ModuleType("torch")
    old.__version__ = "2.5.1+cu121"
    monkeypatch.setitem(sys.modules, "torch", old)
    with pytest.raises(InputError, match=r"PyTorch 2\.6 or newer; 2\.5\.1"):
        uvit_pth.read_uvit(tmp_path / "x.pth")


# ---- Flax checkpoints


def checkpoint(path, tensors, optimiser="opt_state", **more):
    params = unflatten_dict({tuple(k.split("/")): v for k, v in tensors.items()})
    state = {"step": 3, optimiser: {}, "params": {}, "params_ema": params, **more}
    path.write_bytes(flax.serialization.msgpack_serialize(state))
    return path


NETS = {
    "k_ve": ("ncsnpp", dict(width=8, multipliers=(2, 2), num_blocks=1, attention=(16,))),
    "k_vp": ("unet", dict(width=8, multipliers=(1, 2), num_blocks=2, attention=(16,))),
    "without": ("unet", dict(width=8, multipliers=(1, 2, 4), num_blocks=1, attention=())),
    "one level": ("unet", dict(width=8, multipliers=(1,), num_blocks=3, attention=())),
}


@pytest.fixture(scope="module", params=NETS)
def flax_net(request):
    family, network = NETS[request.param]
    return make(msgpack._rules, family, network, (32, 32, 3))


def test_a_flax_checkpoint_is_read_off_its_shapes(flax_net, tmp_path):
    facts, params, tensors = flax_net
    path = checkpoint(tmp_path / "checkpoint_3", tensors)
    model, rows = convert(msgpack.read_msgpack(path, "edm"))
    assert_same(model, params)
    assert model.facts.family == facts.family and all(row.ours for row in rows)
    assert dict(model.facts.network) == dict(facts.network)
    assert model.facts.image_shape == (32, 32, 3)


@pytest.fixture(scope="module")
def ncsnpp():
    family, network = NETS["k_ve"]
    return make(msgpack._rules, family, network, (32, 32, 3))[2]


def test_flax_names_are_the_originals(ncsnpp):
    expected = (
        "Conv_0/kernel Dense_1/bias GroupNorm_0/scale Conv_1/bias Downsample_0/Conv2d_0/weight"
    )
    expected += " GaussianFourierProjection_0/W ResnetBlockBigGANpp_1/Conv_2/kernel"
    expected += " ResnetBlockBigGANpp_0/GroupNorm_1/scale ResnetBlockBigGANpp_3/Dense_0/kernel"
    expected += " AttnBlockpp_0/GroupNorm_0/bias AttnBlockpp_1/NIN_0/W AttnBlockpp_2/NIN_3/b"
    assert set(expected.split()) <= set(ncsnpp)
    assert sum(name.endswith("GroupNorm_1/scale") for name in ncsnpp) == 10


@pytest.mark.parametrize(
    "use, optimiser, expected",
    [
        ("edm", "opt_state", ("edm", "edm", "network")),
        ("consistency", "opt_state", ("edm", "consistency", "flow_map")),
        ("ve", "optimizer", ("ve", "ve", "network")),
    ],
)
def test_how_a_checkpoint_is_used_is_what_the_caller_says(
    use, optimiser, expected, ncsnpp, tmp_path, capsys
):
    path = checkpoint(tmp_path / "checkpoint_3", ncsnpp, optimiser)
    arguments = ["convert", "--from", "msgpack", "--in", str(path), "--out", str(tmp_path / "m")]
    assert main([*arguments, "--preconditioning", use]) == 0
    facts = read_model(tmp_path / "m").facts
    assert (facts.kernel, facts.preconditioning, facts.kind) == expected
    if optimiser == "optimizer":  # that code base's VP checkpoints are DDPM++
        with pytest.raises(InputError, match="family unet, not ncsnpp"):
            msgpack.read_msgpack(path, "vp_eps")
    other = "ve" if optimiser == "opt_state" else "edm"
    with pytest.raises(InputError, match="a checkpoint with"):
        msgpack.read_msgpack(path, other)


@pytest.mark.parametrize(
    "change, size, expected",
    [
        ({"drop": "GaussianFourierProjection_0/W"}, 32, "not one without the other"),
        ({"drop": "Conv_0/kernel"}, 32, "Conv_0/kernel of 4 axes"),
        ({"drop": "Conv_1/kernel", "heads": 6}, 32, "3 output channels, not 6"),
        ({"drop": "AttnBlockpp_1/NIN_0/W"}, 32, "missing: AttnBlockpp_1/NIN_0/W"),
        ({"add": "Dense_9/bias"}, 32, "left over: Dense_9/bias"),
        ({"add": "ResnetBlockBigGANpp_10/Conv_0/bias"}, 32, "ResnetBlockBigGANpp_10"),
        ({}, 64, "attention at resolution 16 of 64"),
        ({}, 0, "attention at resolution 16 of 0"),
        ({}, 31, "attention at resolution 16 of 31"),
    ],
)
def test_what_a_checkpoint_has_and_we_have_not_is_named(change, size, expected, ncsnpp, tmp_path):
    tensors = {k: v for k, v in ncsnpp.items() if k != change.get("drop")}
    if "add" in change:
        tensors[change["add"]] = np.ones(4, np.float32)
    if "heads" in change:
        tensors["Conv_1/kernel"] = np.ones((3, 3, 16, change["heads"]), np.float32)
    path = checkpoint(tmp_path / "c", tensors)
    with pytest.raises(InputError) as error:
        convert(msgpack.read_msgpack(path, "edm", size))
    assert expected in str(error.value)


def test_other_files_are_no_flax_checkpoints(tmp_path):
    path = tmp_path / "c"
    with pytest.raises(InputError, match="No such file"):
        msgpack.read_msgpack(path, "edm")
    serialize = flax.serialization.msgpack_serialize
    deep = b"\x81\xa1a" * 900 + b"\xc0"
    for data in (b"", b"\x80\x04K\x01.", serialize([1]), serialize({"opt_state": 1}), deep):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"a (Flax )?checkpoint"):
            msgpack.read_msgpack(path, "edm")
    path.write_bytes(serialize({"opt_state": {}, "params_ema": {"a": {"b": 1}}}))
    with pytest.raises(InputError, match="whose parameters are arrays"):
        msgpack.read_msgpack(path, "edm")


def test_jax_is_not_asked_for_a_device_by_reading(ncsnpp, tmp_path):
    """Tensors stay numpy: a file larger than an accelerator's memory can be converted."""
    foreign = msgpack.read_msgpack(checkpoint(tmp_path / "c", ncsnpp), "edm")
    model, _ = convert(foreign)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(model.params))
