"""Reads EDM's pickles (arXiv 2206.00364): DDPM++ and NCSN++ under EDM, VP or VE preconditioning.

The test `tests/numerics/test_network_parity.py` checks names, layouts and keywords against pickles
of the original code: it runs both networks on the same input.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reprojax.interop.checks import file_error, require_value
from reprojax.interop.facts import ForeignModel, ModelFacts
from reprojax.interop.machine import Inert
from reprojax.interop.mapping import Rule, paths
from reprojax.interop.unpickle import read_pickle
from reprojax.models.layers import num_groups


class _Use(NamedTuple):
    """How networks of a preconditioning class are used, and the constants that they must have."""

    kernel: str
    preconditioning: str
    objective: str
    constants: Mapping[str, float]


USES = {
    "EDMPrecond": _Use("edm", "edm", "edm", {}),
    "VPPrecond": _Use("vp", "vp_eps", "eps", {"beta_d": 19.9, "beta_min": 0.1, "M": 1000.0}),
    "VEPrecond": _Use("ve", "ve", "eps", {"sigma_min": 0.02, "sigma_max": 100.0}),
}
# The original's defaults, which hold where a pickle omits the keyword.
DEFAULTS = {
    "model_channels": 128,
    "channel_mult": [1, 2, 2, 2],
    "channel_mult_emb": 4,
    "num_blocks": 4,
    "attn_resolutions": [16],
    "dropout": 0.1,
    "embedding_type": "positional",
    "channel_mult_noise": 1,
    "encoder_type": "standard",
    "decoder_type": "standard",
    "resample_filter": [1, 1],
}
# The original's keywords that make the network of each of our families.
COMMON = {"decoder_type": "standard", "channel_mult_emb": 4}
FAMILIES = {
    "unet": {
        **COMMON,
        "encoder_type": "standard",
        "channel_mult_noise": 1,
        "resample_filter": [1, 1],
    },
    "ncsnpp": {
        **COMMON,
        "encoder_type": "residual",
        "channel_mult_noise": 2,
        "resample_filter": [1, 3, 3, 1],
        "embedding_type": "fourier",
    },
}
# How the kernels are stored, by the last module of our path. All others are 3 x 3 convolutions.
KERNELS = {
    "affine": "transposed",
    "embed0": "transposed, sin/cos swapped",
    "embed1": "transposed",
    "label": "transposed, scaled, sin/cos swapped",
    "skip": "1x1 to matrix",
    "proj": "1x1 to matrix",
    "qkv": "1x1 to matrix, qkv regrouped",
}
AUGMENT = "model.map_augment.weight"


def read_edm(path: Path) -> ForeignModel:
    """Reads a pickle that holds a network under the key "ema".

    Raises:
        InputError: The file is of another kind, or it holds a network that ours cannot express;
            the message names the field.
    """
    value = read_pickle(path)
    net = value.get("ema") if isinstance(value, dict) else None
    if not isinstance(net, Inert) or net.kind not in USES:
        kind = net.kind if isinstance(net, Inert) else type(net).__name__
        names = ", ".join(sorted(USES))
        raise file_error(path, f"must hold a network under 'ema', one of {names}; not {kind}")
    use, state = USES[net.kind], net.state
    for name, constant in use.constants.items():
        require_value(path, name, state.get(name), (constant,))
    model = _modules(net).get("model")
    if not isinstance(model, Inert) or model.kind != "SongUNet":
        kind = getattr(model, "kind", "none")
        raise file_error(path, f"must hold a SongUNet (DDPM++ or NCSN++), not {kind}")
    keywords = _keywords(path, model)
    family = "ncsnpp" if keywords["encoder_type"] == "residual" else "unet"
    for name, value in FAMILIES[family].items():
        require_value(path, name, keywords[name], (value,))
    size, channels = state.get("img_resolution"), state.get("img_channels")
    facts = ModelFacts(
        family=family,
        network=_network(keywords, state.get("label_dim")),
        image_shape=(size, size, channels),
        kernel=use.kernel,
        preconditioning=use.preconditioning,
        sigma_data=state.get("sigma_data", 0.5),
        objective=use.objective,
        source={"format": "edm", "file": Path(path).name, "class": net.kind},
    )
    tensors = _read_tensors(path, net)
    unused = tuple(_unused(path, tensors, keywords["resample_filter"]))
    return ForeignModel(facts, tensors, tuple(_rules(facts)), unused)


def _modules(module: Inert) -> dict:
    children = module.state.get("_modules") if isinstance(module.state, dict) else None
    return children if isinstance(children, dict) else {}


def _keywords(path: Path, model: Inert) -> dict[str, Any]:
    """Returns the keywords that the network was built with, defaults included."""
    arguments = model.state.get("_init_kwargs")
    if not isinstance(arguments, dict) or model.state.get("_init_args") != ():
        raise file_error(path, "must hold a network that records the keywords it was built with")
    keywords = dict(DEFAULTS)
    for name, default in DEFAULTS.items():
        value = arguments.get(name, default)
        value = list(value) if type(value) is tuple else value
        if not _is_like(value, default):
            raise file_error(path, f"must hold a network with a {name} such as {default!r}")
        keywords[name] = value
    return keywords


def _is_like(value: Any, default: Any) -> bool:
    if isinstance(default, list):
        return type(value) is list and all(type(v) is int for v in value)
    kinds = (int, float) if isinstance(default, float) else (type(default),)
    return type(value) in kinds


def _network(keywords: dict[str, Any], label_dim: int) -> tuple[tuple[str, Any], ...]:
    return (
        ("width", keywords["model_channels"]),
        ("multipliers", tuple(keywords["channel_mult"])),
        ("num_blocks", keywords["num_blocks"]),
        ("attention", tuple(keywords["attn_resolutions"])),
        ("dropout", float(keywords["dropout"])),
        ("embedding", keywords["embedding_type"]),
        ("num_classes", label_dim),
    )


def _walk(path: Path, root: Inert) -> Iterator[tuple[str, Inert]]:
    """Yields every module under ``root`` with its dotted name.

    Raises:
        InputError: The modules do not form a tree: a hostile file can make one contain itself.
    """
    visits, queue = set(), [("", root)]
    while queue:
        prefix, module = queue.pop()
        if id(module) in visits or not isinstance(module.state, dict):
            raise file_error(path, f"must hold modules that form a tree, not {prefix!r}")
        visits.add(id(module))
        yield prefix, module
        for name, child in _modules(module).items():
            if isinstance(child, Inert):
                queue.append((f"{prefix}{name}.", child))


def _check_layer(path: Path, name: str, layer: Inert, tensors: dict[str, np.ndarray]) -> None:
    """Raises InputError where a layer computes something else than ours does."""
    choices = {}
    if layer.kind == "UNetBlock":
        choices = {"num_heads": (0, 1), "adaptive_scale": (False,), "skip_scale": (math.sqrt(0.5),)}
    elif layer.kind == "GroupNorm":
        groups = num_groups(tensors[f"{name}weight"].size) if f"{name}weight" in tensors else 0
        choices = {"num_groups": (groups,), "eps": (1e-6,)}
    for key, values in choices.items():
        require_value(path, f"{name}{key}", layer.state.get(key), values)


def _read_tensors(path: Path, net: Inert) -> dict[str, np.ndarray]:
    tensors = {}
    for prefix, module in _walk(path, net):
        for group in ("_parameters", "_buffers"):
            values = module.state.get(group)
            for name, value in values.items() if isinstance(values, dict) else ():
                if isinstance(value, np.ndarray):
                    tensors[f"{prefix}{name}"] = value
        _check_layer(path, prefix, module, tensors)
    return tensors


def _unused(
    path: Path, tensors: dict[str, np.ndarray], resample: list[int]
) -> Iterator[tuple[str, str]]:
    """Yields the name of each foreign tensor that our network has no place for, and the reason."""
    smooth = np.outer(resample, resample) / np.sum(resample) ** 2
    for name, value in tensors.items():
        if name == AUGMENT:
            yield name, "reads the labels of augmentation, which are zero in sampling"
        elif name.endswith(".resample_filter"):
            if value.shape != (1, 1, *smooth.shape) or not np.allclose(value, smooth, 0, 1e-6):
                raise file_error(path, f"must hold the filter {resample} as {name}")
            yield name, "the filter is part of our network"


def _rules(facts: ModelFacts) -> Iterator[Rule]:
    side, levels = facts.image_shape[0], len(dict(facts.network)["multipliers"])
    grid = [f"{side >> level}x{side >> level}" for level in range(levels)]
    modules = {  # foreign names of the modules that stand outside of all blocks
        "conv_in": f"model.enc.{grid[0]}_conv",
        "mid0": f"model.dec.{grid[-1]}_in0",
        "mid1": f"model.dec.{grid[-1]}_in1",
        "norm_out": f"model.dec.{grid[0]}_aux_norm",
        "conv_out": f"model.dec.{grid[0]}_aux_conv",
        "embed0": "model.map_layer0",
        "embed1": "model.map_layer1",
        "label": "model.map_label",
        "fourier": "model.map_noise",
    }
    for ours in paths(facts.shapes()):
        module, *rest = ours.split("/")
        if match := re.fullmatch(r"(enc|dec)(\d+)_(\d+)", module):
            theirs = f"model.{match[1]}.{grid[int(match[2])]}_block{match[3]}"
        elif match := re.fullmatch(r"(down|input|up)(\d+)", module):
            theirs = _step(grid, match[1], int(match[2]))
        else:
            theirs = modules[module]
        yield _rule(ours, theirs, rest, bool(dict(facts.network)["num_classes"]))


def _step(grid: list[str], kind: str, level: int) -> str:
    """Returns the foreign name of a step between resolutions.

    On the way up, the original names it by the finer resolution.
    """
    if kind == "up":
        return f"model.dec.{grid[level - 1]}_up"
    return f"model.enc.{grid[level]}_" + ("down" if kind == "down" else "aux_residual")


def _rule(ours: str, theirs: str, rest: list[str], labels: bool) -> Rule:
    """Returns the rule of one parameter.

    Args:
        ours: The path of our parameter.
        theirs: The name of the foreign module.
        rest: The parts of our path after the module.
        labels: Whether the network takes class labels.
    """
    if ours == "fourier/frequencies":
        return Rule(ours, (f"{theirs}.freqs",))
    if ours == "embed0/bias" and labels:
        names = ("model.map_layer0.bias", "model.map_layer0.weight", "model.map_label.bias")
        return Rule(ours, names, "label bias added")
    layer, leaf = ".".join([theirs, *rest[:-1]]), rest[-1]
    name, last = f"{layer}.{'bias' if leaf == 'bias' else 'weight'}", ours.split("/")[-2]
    if leaf != "kernel":
        how = "qkv regrouped" if last == "qkv" else "copied"
    else:
        how = KERNELS.get(last, "OIHW to HWIO")
    return Rule(ours, (name,), how)
