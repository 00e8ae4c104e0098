"""NCSN++ and DDPM++ in JAX: Flax checkpoints of score_sde and of consistency models on CIFAR-10.

Such a file holds a training state (msgpack; no code) of which the averaged parameters are taken. It
does not say how the network is used, nor the size of its images: the caller does. What the shapes
leave open is taken from the published configurations: the filter [1, 3, 3, 1] where there is an
input pyramid and none where there is not, and attention at resolution 16.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.serialization import msgpack_restore
from flax.traverse_util import flatten_dict

from reprojax.errors import InputError, choices, require_choice
from reprojax.interop.checks import refuse, require_axes
from reprojax.interop.facts import ForeignModel, ModelFacts
from reprojax.interop.mapping import Rule, paths

ATTENTION = 16
BLOCK, ATTEND = "ResnetBlockBigGANpp", "AttnBlockpp"


class _Use(NamedTuple):
    """How a checkpoint is used: of which code base, and with which noise input."""

    kernel: str
    kind: str
    objective: str
    optimiser: str  # the state's name for the optimiser tells the code bases apart
    families: tuple[str, ...]


USES = {
    "edm": _Use("edm", "network", "edm", "opt_state", ("unet", "ncsnpp")),
    "consistency": _Use("edm", "flow_map", "", "opt_state", ("unet", "ncsnpp")),
    "ve": _Use("ve", "network", "eps", "optimizer", ("ncsnpp",)),
    "vp_eps": _Use("vp", "network", "eps", "optimizer", ("unet",)),
    "subvp_eps": _Use("subvp", "network", "eps", "optimizer", ("unet",)),
}
LAYERS = {
    "norm0": "GroupNorm_0",
    "conv0": "Conv_0",
    "affine": "Dense_0",
    "norm1": "GroupNorm_1",
    "conv1": "Conv_1",
    "skip": "Conv_2",
}
FIXED = {
    "conv_in": "Conv_0",
    "embed0": "Dense_0",
    "embed1": "Dense_1",
    "norm_out": "GroupNorm_0",
    "conv_out": "Conv_1",
}

_shape = partial(require_axes, what="a checkpoint of NCSN++")


def read_msgpack(path: Path, preconditioning: str | None = None, size: int = 32) -> ForeignModel:
    """Reads a checkpoint.

    Args:
        path: of the file.
        preconditioning: a key of `USES`.
        size: side of its images.

    Raises:
        InputError: no preconditioning, not such a file, or a network that ours cannot express.
    """
    if preconditioning is None:
        allowed = f"how the network is used, which the file does not say ({choices(USES)})"
        raise InputError("--preconditioning", "", allowed)
    require_choice("--preconditioning", preconditioning, USES)
    use = USES[preconditioning]
    state = _restore(path)
    if use.optimiser not in state:
        allowed = f"a checkpoint with {use.optimiser!r}, as those used with {preconditioning} have"
        raise refuse(path, allowed)
    tensors = _tensors(path, state.get("params_ema"))
    family, network, channels = _architecture(path, tensors, size)
    if family not in use.families:
        allowed = f"a network of family {' or '.join(use.families)}, not {family}"
        raise refuse(path, f"{allowed}, for --preconditioning {preconditioning}")
    facts = ModelFacts(
        family=family,
        network=tuple(network.items()),
        image_shape=(size, size, channels),
        kernel=use.kernel,
        preconditioning=preconditioning,
        kind=use.kind,
        objective=use.objective,
        source={"format": "msgpack", "file": path.name},
    )
    return ForeignModel(facts, tensors, tuple(_rules(facts)))


def _restore(path: Path) -> dict[str, Any]:
    try:
        state = msgpack_restore(path.read_bytes())
    except OSError as error:
        raise refuse(path, f"a readable file ({error.strerror})") from error
    except Exception as error:  # msgpack and Flax raise many kinds for a damaged file
        raise refuse(path, f"a Flax checkpoint ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise refuse(path, "a Flax checkpoint of a training state")
    return state


def _tensors(path: Path, params: Any) -> dict[str, np.ndarray]:
    """The averaged parameters by path."""
    try:
        flat = flatten_dict(params, sep="/")
    except (AttributeError, TypeError, AssertionError, RecursionError) as error:
        raise refuse(path, "a checkpoint with averaged parameters, 'params_ema'") from error
    if not all(isinstance(value, np.ndarray) for value in flat.values()):
        raise refuse(path, "a checkpoint whose parameters are arrays")
    return flat


def _architecture(
    path: Path, tensors: Mapping[str, np.ndarray], size: int
) -> tuple[str, dict[str, Any], int]:
    """(family, its keywords, image channels), from the shapes."""
    first, last = (_shape(path, tensors, f"Conv_{i}/kernel", 4) for i in (0, 1))
    channels, width = first[2:]
    if last[3] != channels:
        raise refuse(path, f"a network with {channels} output channels, not {last[3]}")
    fourier = "GaussianFourierProjection_0/W" in tensors
    pyramid = any(name.startswith("Downsample_") for name in tensors)
    if fourier != pyramid:
        allowed = "NCSN++ (Fourier features, input pyramid) or DDPM++ (neither)"
        raise refuse(path, f"{allowed}, not one without the other")
    blocks = _count(tensors, BLOCK)
    shapes = [_shape(path, tensors, f"{BLOCK}_{i}/Conv_0/kernel", 4) for i in range(blocks)]
    resampled = sum(
        f"{BLOCK}_{i}/Conv_2/kernel" in tensors and shape[2] == shape[3]
        for i, shape in enumerate(shapes)
    )
    levels = resampled // 2 + 1
    num_blocks, rest = divmod(blocks - 3 * levels, 2 * levels)
    if resampled % 2 or rest or num_blocks < 1:
        raise refuse(path, f"as many blocks at every resolution: there are {blocks}")
    outs = [shapes[level * (num_blocks + 1)][3] for level in range(levels)]
    if any(out % width for out in outs):
        raise refuse(path, f"widths that are multiples of {width}, not {outs}")
    attended = _count(tensors, ATTEND) - 1
    here = [level for level in range(levels) if size >> level == ATTENTION]
    if attended != len(here) * (num_blocks + 1) and attended:
        raise refuse(path, f"attention at resolution {ATTENTION} of {size}, as published, or none")
    network = {
        "width": width,
        "multipliers": tuple(out // width for out in outs),
        "num_blocks": num_blocks,
        "attention": (ATTENTION,) if attended else (),
    }
    return "ncsnpp" if fourier else "unet", network, channels


def _count(tensors: Mapping[str, np.ndarray], kind: str) -> int:
    return len({name.split("/")[0] for name in tensors if name.startswith(f"{kind}_")})


def _order(facts: ModelFacts) -> tuple[dict[str, int], dict[str, int]]:
    """The number of each of our blocks, and of each that attends, in the order of evaluation."""
    network = dict(facts.network)
    levels, each = len(network["multipliers"]), network["num_blocks"]
    names, attending = [], []

    def add(name: str, attends: bool) -> None:
        names.append(name)
        attending.extend([name] if attends else [])

    def here(level: int) -> bool:
        return facts.image_shape[0] >> level in network["attention"]

    for level in range(levels):
        names.extend([f"down{level}"] if level else [])
        for i in range(each):
            add(f"enc{level}_{i}", here(level))
    add("mid0", True)
    add("mid1", False)
    for level in reversed(range(levels)):
        for i in range(each + 1):
            add(f"dec{level}_{i}", i == each and here(level))
        names.extend([f"up{level}"] if level else [])
    return tuple({name: i for i, name in enumerate(order)} for order in (names, attending))


def _rules(facts: ModelFacts) -> Iterator[Rule]:
    block, attention = _order(facts)
    for ours in paths(facts.shapes()):
        module, *rest = ours.split("/")
        leaf = rest[-1]
        if module == "fourier":
            yield Rule(ours, ("GaussianFourierProjection_0/W",))
        elif module in FIXED:
            swapped = module == "embed0" and leaf == "kernel"
            how = "sin/cos swapped" if swapped else "copied"
            yield Rule(ours, (f"{FIXED[module]}/{leaf}",), how)
        elif match := re.fullmatch(r"input(\d+)", module):
            name = "weight" if leaf == "kernel" else leaf
            yield Rule(ours, (f"Downsample_{int(match[1]) - 1}/Conv2d_0/{name}",))
        elif rest[0] in LAYERS:
            matrix = rest[0] == "skip" and leaf == "kernel"
            how = "1x1 HWIO to matrix" if matrix else "copied"
            yield Rule(ours, (f"{BLOCK}_{block[module]}/{LAYERS[rest[0]]}/{leaf}",), how)
        else:
            yield _attention_rule(ours, f"{ATTEND}_{attention[module]}", rest[0], leaf)


def _attention_rule(ours: str, where: str, layer: str, leaf: str) -> Rule:
    if layer == "norm2":
        return Rule(ours, (f"{where}/GroupNorm_0/{leaf}",))
    name = "W" if leaf == "kernel" else "b"
    if layer == "proj":
        return Rule(ours, (f"{where}/NIN_3/{name}",))
    return Rule(ours, tuple(f"{where}/NIN_{i}/{name}" for i in range(3)), "qkv joined")
