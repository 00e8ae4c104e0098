"""Reads diffusers' `UNet2DModel` where it is DDPM's network, as google/ddpm-cifar10-32 is.

The network is a folder with config.json and diffusion_pytorch_model.safetensors, either on its own
or as the part "unet" of a pipeline, whose scheduler is checked too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from reprojax.interop.checks import file_error, require_value
from reprojax.interop.facts import ForeignModel, ModelFacts
from reprojax.interop.mapping import Rule, paths
from reprojax.models.layers import num_groups

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
# For each key of config.json: the values that our network can express, and diffusers' default,
# which holds where a file omits the key.
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
# Names of the attention layers up to diffusers 0.16, and their names since.
ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def read_diffusers(path: Path) -> ForeignModel:
    """Reads a folder that diffusers wrote.

    Raises:
        InputError: There is no such folder, or it holds a network that ours cannot express; the
            message names the field.
    """
    folder = path if (path / CONFIG).exists() else path / "unet"
    config = _json(path, folder / CONFIG)
    for name, (choices, default) in EXPECTED.items():
        require_value(path, name, config.get(name, default), choices)
    for file in (folder / "scheduler_config.json", path / "scheduler" / "scheduler_config.json"):
        if file.exists():
            scheduler = _json(path, file)
            for name, (choices, default) in SCHEDULER.items():
                require_value(path, f"scheduler {name}", scheduler.get(name, default), choices)
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
        raise file_error(path, f"must be a folder with a readable {file.name}") from error
    if not isinstance(value, dict):
        raise file_error(path, f"must be a folder whose {file.name} is a JSON object")
    return value


def _facts(path: Path, config: Mapping[str, Any]) -> ModelFacts:
    side, widths = config.get("sample_size"), config.get("block_out_channels")
    side = side[0] if isinstance(side, list) and len(set(map(str, side))) == 1 else side
    if type(side) is not int or side < 1:
        raise file_error(path, f"must have one number as its sample_size, not {side!r}")
    if not _are_numbers(widths) or any(w % widths[0] for w in widths):
        requirement = f"must have multiples of the first as its block_out_channels, not {widths!r}"
        raise file_error(path, requirement)
    down = _has_attention(path, config, "down", DOWN)
    up = _has_attention(path, config, "up", UP)
    if len(down) != len(widths) or up[::-1] != down:
        raise file_error(path, "must have up_block_types that mirror its down_block_types")
    one_head = {widths[-1], *(w for w, attends in zip(widths, down, strict=True) if attends)}
    choices = (None, *one_head) if len(one_head) == 1 else (None,)
    require_value(path, "attention_head_dim", config.get("attention_head_dim", 8), choices)
    channels = config.get("in_channels", 3)
    require_value(path, "out_channels", config.get("out_channels", 3), (channels,))
    network = {
        "width": widths[0],
        "multipliers": tuple(w // widths[0] for w in widths),
        "num_blocks": config.get("layers_per_block", 2),
        "attention": tuple(side >> level for level, attends in enumerate(down) if attends),
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


def _has_attention(
    path: Path, config: Mapping[str, Any], way: str, kinds: dict[str, bool]
) -> list[bool]:
    """Returns whether each block has attention, in the file's order; ``way`` is "down" or "up"."""
    types = config.get(f"{way}_block_types")
    if not isinstance(types, list) or not all(isinstance(t, str) and t in kinds for t in types):
        requirement = f"must have {way}_block_types of {' or '.join(kinds)}, not {types!r}"
        raise file_error(path, requirement)
    return [kinds[t] for t in types]


def _tensors(path: Path, file: Path) -> dict[str, np.ndarray]:
    """Returns the file's tensors by name, with the attention layers' names of diffusers today."""
    try:
        with safe_open(str(file), framework="numpy") as reader:
            tensors = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, TypeError) as error:
        raise file_error(path, f"must be a folder with a readable {WEIGHTS}") from error
    by_new_name = {}
    for name, value in tensors.items():
        *module, layer, leaf = name.split(".")
        is_attention = len(module) >= 2 and module[-2] == "attentions"
        new = ATTENTION_NAMES.get(layer, layer) if is_attention else layer
        by_new_name[".".join([*module, new, leaf])] = value
    return by_new_name


def _check_groups(path: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Raises InputError unless every GroupNorm has as many groups as ours would have."""
    groups = config.get("norm_num_groups", 32)
    require_value(path, "attn_norm_num_groups", config.get("attn_norm_num_groups"), (None, groups))
    for name, value in tensors.items():
        if (
            "norm" in "".join(name.split(".")[-2:])
            and value.ndim == 1
            and num_groups(len(value)) != groups
        ):
            requirement = f"must have norm_num_groups {num_groups(len(value))} for {name}"
            raise file_error(path, f"{requirement}, not {groups!r}")


# Foreign names of the layers of a block.
LAYERS = {
    "norm0": "norm1",
    "conv0": "conv1",
    "affine": "time_emb_proj",
    "norm1": "norm2",
    "conv1": "conv2",
    "skip": "conv_shortcut",
}
# Foreign names of the modules that stand outside of all blocks.
MODULES = {
    "conv_in": "conv_in",
    "norm_out": "conv_norm_out",
    "conv_out": "conv_out",
    "embed0": "time_embedding.linear_1",
    "embed1": "time_embedding.linear_2",
}
# How the kernels are stored; those of all other layers are 3 x 3 convolutions.
KERNELS = {
    "affine": "transposed",
    "embed0": "transposed",
    "embed1": "transposed",
    "proj": "transposed",
    "qkv": "transposed, qkv joined",
    "skip": "1x1 to matrix",
}


def _rule(ours: str, levels: int, sin_first: bool) -> Rule:
    """Returns the rule of the parameter with the path ``ours``."""
    module, *rest = ours.split("/")
    leaf, layer = rest[-1], rest[0] if len(rest) > 1 else module
    kind = "bias" if leaf == "bias" else "weight"
    how = KERNELS.get(layer, "OIHW to HWIO") if leaf == "kernel" else "copied"
    if module == "embed0" and leaf == "kernel" and sin_first:
        how = "transposed, sin/cos swapped"
    if module in MODULES:
        return Rule(ours, (f"{MODULES[module]}.{kind}",), how)
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
    """Returns the foreign block, and the index in it, of one of our modules."""
    if module in ("mid0", "mid1"):
        return "mid_block", int(module[-1])
    kind, level, index = re.fullmatch(r"(enc|dec|down|up)(\d+)(?:_(\d+))?", module).groups()
    level = int(level)
    if kind == "enc":
        return f"down_blocks.{level}", int(index)
    if kind == "dec":
        return f"up_blocks.{levels - 1 - level}", int(index)
    if kind == "down":  # diffusers puts it at the end of the level above
        return f"down_blocks.{level - 1}.downsamplers.0", 0
    return f"up_blocks.{levels - 1 - level}.upsamplers.0", 0
