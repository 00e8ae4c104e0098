"""diffusers' `UNet2DModel` where it is DDPM's network (google/ddpm-cifar10-32 and its like).

A folder with config.json and diffusion_pytorch_model.safetensors, on its own or as the part "unet"
of a pipeline, whose scheduler is then checked too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from reprojax.interop.checks import refuse, require_stated
from reprojax.interop.facts import ForeignModel, ModelFacts
from reprojax.interop.mapping import Rule, paths
from reprojax.models.layers import num_groups

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
# What our network is, in the words of config.json, with diffusers' default where a file is silent.
EXPECTED: dict[str, tuple[tuple, Any]] = {
    "_class_name": (("UNet2DModel",), None),
    "act_fn": (("silu", "swish"), "silu"),
    "add_attention": ((True,), True),
    "center_input_sample": ((False,), False),
    "class_embed_type": ((None,), None),
    "downsample_padding": ((0,), 1),
    "downsample_type": (("conv",), "conv"),
    "freq_shift": ((1,), 0),
    "mid_block_scale_factor": ((1,), 1),
    "mid_block_type": (("UNetMidBlock2D",), "UNetMidBlock2D"),
    "norm_eps": ((1e-6,), 1e-5),
    "num_class_embeds": ((None,), None),
    "resnet_time_scale_shift": (("default",), "default"),
    "time_embedding_dim": ((None,), None),
    "time_embedding_type": (("positional",), "positional"),
    "upsample_type": (("conv",), "conv"),
}
SCHEDULER: dict[str, tuple[tuple, Any]] = {
    "num_train_timesteps": ((1000,), 1000),
    "beta_start": ((1e-4,), 1e-4),
    "beta_end": ((0.02,), 0.02),
    "beta_schedule": (("linear",), "linear"),
    "trained_betas": ((None,), None),
    "prediction_type": (("epsilon",), "epsilon"),
    "rescale_betas_zero_snr": ((False,), False),
}
DOWN = {"DownBlock2D": False, "AttnDownBlock2D": True}
UP = {"UpBlock2D": False, "AttnUpBlock2D": True}
# Of attention, up to diffusers 0.16 and since.
ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def read_diffusers(path: Path) -> ForeignModel:
    """Reads a folder of diffusers.

    Raises:
        InputError: no such folder, or a network that ours cannot express; the field is named.
    """
    folder = path if (path / CONFIG).exists() else path / "unet"
    config = _json(path, folder / CONFIG)
    for name, (allowed, default) in EXPECTED.items():
        require_stated(path, name, config.get(name, default), allowed)
    for place in (folder / "scheduler_config.json", path / "scheduler" / "scheduler_config.json"):
        if place.exists():
            scheduler = _json(path, place)
            for name, (allowed, default) in SCHEDULER.items():
                require_stated(path, f"scheduler {name}", scheduler.get(name, default), allowed)
    tensors = _tensors(path, folder / WEIGHTS)
    facts = _facts(path, config)
    _check_groups(path, config, tensors)
    sin_first = not config.get("flip_sin_to_cos", True)
    levels = len(dict(facts.network)["multipliers"])
    rules = tuple(_rule(ours, levels, sin_first) for ours in paths(facts.shapes()))
    return ForeignModel(facts, tensors, rules)


def _json(path: Path, file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise refuse(path, f"a folder with a readable {file.name}") from error
    if not isinstance(value, dict):
        raise refuse(path, f"a folder whose {file.name} is an object")
    return value


def _facts(path: Path, config: Mapping[str, Any]) -> ModelFacts:
    side, widths = config.get("sample_size"), config.get("block_out_channels")
    side = side[0] if isinstance(side, list) and len(set(map(str, side))) == 1 else side
    if type(side) is not int or side < 1:
        raise refuse(path, f"a config with one number as sample_size, not {side!r}")
    if not _are_numbers(widths) or any(w % widths[0] for w in widths):
        allowed = f"a config whose block_out_channels are multiples of the first, not {widths!r}"
        raise refuse(path, allowed)
    down, up = (_attends(path, config, *it) for it in (("down", DOWN), ("up", UP)))
    if len(down) != len(widths) or up[::-1] != down:
        allowed = "a config whose up_block_types mirror its down_block_types"
        raise refuse(path, allowed)
    one_head = {widths[-1], *(w for w, here in zip(widths, down, strict=True) if here)}
    allowed = (None, *one_head) if len(one_head) == 1 else (None,)
    require_stated(path, "attention_head_dim", config.get("attention_head_dim", 8), allowed)
    channels = config.get("in_channels", 3)
    require_stated(path, "out_channels", config.get("out_channels", 3), (channels,))
    network = {
        "width": widths[0],
        "multipliers": tuple(w // widths[0] for w in widths),
        "num_blocks": config.get("layers_per_block", 2),
        "attention": tuple(side >> level for level, here in enumerate(down) if here),
        "dropout": config.get("dropout", 0.0),
    }
    return ModelFacts(
        family="ddpm",
        network=tuple(network.items()),
        image_shape=(side, side, channels),
        kernel="ddpm",
        preconditioning="vp_eps",
        objective="eps_discrete",
        source={"format": "diffusers", "folder": path.resolve().name},
    )


def _are_numbers(values: Any) -> bool:
    return (
        isinstance(values, list) and bool(values) and all(type(v) is int and v > 0 for v in values)
    )


def _attends(path: Path, config: Mapping[str, Any], way: str, kinds: dict[str, bool]) -> list[bool]:
    """Which blocks attend, in the order of the file."""
    types = config.get(f"{way}_block_types")
    if not isinstance(types, list) or not all(isinstance(t, str) and t in kinds for t in types):
        said = " or ".join(kinds)
        raise refuse(path, f"a config with {way}_block_types {said}, not {types!r}")
    return [kinds[t] for t in types]


def _tensors(path: Path, file: Path) -> dict[str, np.ndarray]:
    """The file's tensors, by the names of attention that diffusers has now."""
    try:
        with safe_open(str(file), framework="numpy") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, TypeError) as error:
        raise refuse(path, f"a folder with a readable {WEIGHTS}") from error
    renamed = {}
    for name, value in tensors.items():
        *module, layer, leaf = name.split(".")
        inside = len(module) >= 2 and module[-2] == "attentions"
        new = ATTENTION_NAMES.get(layer, layer) if inside else layer
        renamed[".".join([*module, new, leaf])] = value
    return renamed


def _check_groups(path: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Raises InputError unless every GroupNorm has as many groups as ours would have."""
    stated = config.get("norm_num_groups", 32)
    require_stated(path, "attn_norm_num_groups", config.get("attn_norm_num_groups"), (None, stated))
    for name, value in tensors.items():
        if (
            "norm" in "".join(name.split(".")[-2:])
            and value.ndim == 1
            and num_groups(len(value)) != stated
        ):
            allowed = f"a config with norm_num_groups {num_groups(len(value))} for {name}"
            raise refuse(path, f"{allowed}, not {stated!r}")


LAYERS = {
    "norm0": "norm1",
    "conv0": "conv1",
    "affine": "time_emb_proj",
    "norm1": "norm2",
    "conv1": "conv2",
    "skip": "conv_shortcut",
}
FIXED = {
    "conv_in": "conv_in",
    "norm_out": "conv_norm_out",
    "conv_out": "conv_out",
    "embed0": "time_embedding.linear_1",
    "embed1": "time_embedding.linear_2",
}
KERNELS = {
    "affine": "transposed",
    "embed0": "transposed",
    "embed1": "transposed",
    "proj": "transposed",
    "qkv": "transposed, qkv joined",
    "skip": "1x1 to matrix",
}


def _rule(ours: str, levels: int, sin_first: bool) -> Rule:
    module, *rest = ours.split("/")
    leaf, layer = rest[-1], rest[0] if len(rest) > 1 else module
    kind = "bias" if leaf == "bias" else "weight"
    how = KERNELS.get(layer, "OIHW to HWIO") if leaf == "kernel" else "copied"
    if module == "embed0" and leaf == "kernel" and sin_first:
        how = "transposed, sin/cos swapped"
    if module in FIXED:
        return Rule(ours, (f"{FIXED[module]}.{kind}",), how)
    where, index = _place(module, levels)
    if len(rest) == 1:  # a step between resolutions, which is a convolution
        return Rule(ours, (f"{where}.conv.{kind}",), how)
    if layer in LAYERS:
        return Rule(ours, (f"{where}.resnets.{index}.{LAYERS[layer]}.{kind}",), how)
    attention = f"{where}.attentions.{index}"
    if layer == "qkv":
        names = tuple(f"{attention}.to_{c}.{kind}" for c in "qkv")
        return Rule(ours, names, how if leaf == "kernel" else "qkv joined")
    name = {"norm2": "group_norm", "proj": "to_out.0"}[layer]
    return Rule(ours, (f"{attention}.{name}.{kind}",), how)


def _place(module: str, levels: int) -> tuple[str, int]:
    """Where a block or step of ours stands: a foreign block and the index in it."""
    if module in ("mid0", "mid1"):
        return "mid_block", int(module[-1])
    kind, level, index = re.fullmatch(r"(enc|dec|down|up)(\d+)(?:_(\d+))?", module).groups()
    level = int(level)
    if kind == "enc":
        return f"down_blocks.{level}", int(index)
    if kind == "dec":
        return f"up_blocks.{levels - 1 - level}", int(index)
    if kind == "down":  # the original's stands at the end of the level above
        return f"down_blocks.{level - 1}.downsamplers.0", 0
    return f"up_blocks.{levels - 1 - level}.upsamplers.0", 0
