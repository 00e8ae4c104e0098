"""EDM's pickles (arXiv 2206.00364): DDPM++ and NCSN++ under EDM, VP or VE preconditioning.

Names, layouts and the architecture's keywords were checked against the original code's pickles by
running both networks on the same input (`tests/numerics/test_network_parity.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reprojax.errors import choices
from reprojax.interop.checks import refuse, require_stated
from reprojax.interop.facts import ForeignModel, ModelFacts
from reprojax.interop.machine import Inert
from reprojax.interop.mapping import Rule, paths
from reprojax.interop.unpickle import read_pickle
from reprojax.models.layers import num_groups


class _Use(NamedTuple):
    """How the networks of a preconditioning class are used; ``constants`` are what they must be."""

    kernel: str
    preconditioning: str
    objective: str
    constants: Mapping[str, float]


USES = {
    "EDMPrecond": _Use("edm", "edm", "edm", {}),
    "VPPrecond": _Use("vp", "vp_eps", "eps", {"beta_d": 19.9, "beta_min": 0.1, "M": 1000.0}),
    "VEPrecond": _Use("ve", "ve", "eps", {"sigma_min": 0.02, "sigma_max": 100.0}),
}
# The original's defaults: a pickle states only what was asked for.
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
# What each family is in the original's keywords.
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
# How the kernels are stored, by the last module of our path; all others are 3 x 3 convolutions.
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
    """Reads a pickle with a network under "ema".

    Raises:
        InputError: another kind of file, or a network that ours cannot express; the field is named.
    """
    value = read_pickle(path)
    net = value.get("ema") if isinstance(value, dict) else None
    if not isinstance(net, Inert) or net.kind not in USES:
        kind = net.kind if isinstance(net, Inert) else type(net).__name__
        raise refuse(path, f"a network under 'ema' of {choices(USES)}; not {kind}")
    use, state = USES[net.kind], net.state
    for name, wanted in use.constants.items():
        require_stated(path, name, state.get(name), (wanted,))
    model = _modules(net).get("model")
    if not isinstance(model, Inert) or model.kind != "SongUNet":
        kind = getattr(model, "kind", "none")
        raise refuse(path, f"a SongUNet (DDPM++, NCSN++); not {kind}")
    keywords = _keywords(path, model)
    family = "ncsnpp" if keywords["encoder_type"] == "residual" else "unet"
    for name, wanted in FAMILIES[family].items():
        require_stated(path, name, keywords[name], (wanted,))
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
    dropped = tuple(_dropped(path, tensors, keywords["resample_filter"]))
    return ForeignModel(facts, tensors, tuple(_rules(facts)), dropped)


def _modules(module: Inert) -> dict:
    children = module.state.get("_modules") if isinstance(module.state, dict) else None
    return children if isinstance(children, dict) else {}


def _keywords(path: Path, model: Inert) -> dict[str, Any]:
    """What the network was made with, defaults included."""
    stated = model.state.get("_init_kwargs")
    if not isinstance(stated, dict) or model.state.get("_init_args") != ():
        raise refuse(path, "a network that states its keywords")
    keywords = dict(DEFAULTS)
    for name, default in DEFAULTS.items():
        value = stated.get(name, default)
        value = list(value) if type(value) is tuple else value
        if not _is_like(value, default):
            raise refuse(path, f"a network with a {name} such as {default!r}")
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
    """Every module under ``root`` with its dotted name."""
    seen, waiting = set(), [("", root)]
    while waiting:
        prefix, module = waiting.pop()
        if id(module) in seen or not isinstance(module.state, dict):
            raise refuse(path, f"modules that form a tree, not {prefix!r}")
        seen.add(id(module))
        yield prefix, module
        for name, child in _modules(module).items():
            if isinstance(child, Inert):
                waiting.append((f"{prefix}{name}.", child))


def _check_layer(path: Path, name: str, layer: Inert, tensors: dict[str, np.ndarray]) -> None:
    """Raises InputError where a layer computes something else than ours does."""
    wanted = {}
    if layer.kind == "UNetBlock":
        wanted = {"num_heads": (0, 1), "adaptive_scale": (False,), "skip_scale": (math.sqrt(0.5),)}
    elif layer.kind == "GroupNorm":
        groups = num_groups(tensors[f"{name}weight"].size) if f"{name}weight" in tensors else 0
        wanted = {"num_groups": (groups,), "eps": (1e-6,)}
    for key, allowed in wanted.items():
        require_stated(path, f"{name}{key}", layer.state.get(key), allowed)


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


def _dropped(
    path: Path, tensors: dict[str, np.ndarray], resample: list[int]
) -> Iterator[tuple[str, str]]:
    """Foreign tensors that our network has no place for, and why."""
    smooth = np.outer(resample, resample) / np.sum(resample) ** 2
    for name, value in tensors.items():
        if name == AUGMENT:
            yield name, "reads the labels of augmentation, which are zero in sampling"
        elif name.endswith(".resample_filter"):
            if value.shape != (1, 1, *smooth.shape) or not np.allclose(value, smooth, 0, 1e-6):
                raise refuse(path, f"the filter {resample} as {name}")
            yield name, "the filter is part of our network"


def _rules(facts: ModelFacts) -> Iterator[Rule]:
    side, levels = facts.image_shape[0], len(dict(facts.network)["multipliers"])
    grid = [f"{side >> level}x{side >> level}" for level in range(levels)]
    fixed = {
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
            theirs = fixed[module]
        yield _rule(ours, theirs, rest, bool(dict(facts.network)["num_classes"]))


def _step(grid: list[str], kind: str, level: int) -> str:
    """A step between resolutions; the original's way up names it by the finer one."""
    if kind == "up":
        return f"model.dec.{grid[level - 1]}_up"
    return f"model.enc.{grid[level]}_" + ("down" if kind == "down" else "aux_residual")


def _rule(ours: str, theirs: str, rest: list[str], labels: bool) -> Rule:
    """The rule of one parameter: ``theirs`` is its module, ``rest`` what follows our module."""
    if ours == "fourier/frequencies":
        return Rule(ours, (f"{theirs}.freqs",))
    if ours == "embed0/bias" and labels:
        names = ("model.map_layer0.bias", "model.map_layer0.weight", "model.map_label.bias")
        return Rule(ours, names, "label bias added")
    layer, leaf = ".".join([theirs, *rest[:-1]]), rest[-1]
    whole, last = f"{layer}.{'bias' if leaf == 'bias' else 'weight'}", ours.split("/")[-2]
    if leaf != "kernel":
        how = "qkv regrouped" if last == "qkv" else "copied"
    else:
        how = KERNELS.get(last, "OIHW to HWIO")
    return Rule(ours, (whole,), how)
