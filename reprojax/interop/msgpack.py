"""Reads Flax checkpoints of NCSN++ and DDPM++: score_sde's, and CIFAR-10 consistency models.

Such a file holds a training state (msgpack, no code), of which we take the averaged parameters. It
names neither the preconditioning nor the size of the images, so the caller does. What the shapes
leave open comes from the published configurations: the filter [1, 3, 3, 1] where there is an input
pyramid and none where there is not, and attention at resolution 16.
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
from reprojax.interop.checks import file_error, require_axes
from reprojax.interop.facts import ForeignModel, ModelFacts
from reprojax.interop.mapping import Rule, paths

ATTENTION = 16
BLOCK, ATTEND = "ResnetBlockBigGANpp", "AttnBlockpp"


class _Use(NamedTuple):
    """How a checkpoint's network is used, and the code base that it comes from."""

    kernel: str
    kind: str
    objective: str
    optimiser: str  # the state's name for the optimiser, by which the code bases differ
    families: tuple[str, ...]


USES = {
    "edm": _Use("edm", "network", "edm", "opt_state", ("unet", "ncsnpp")),
    "consistency": _Use("edm", "flow_map", "", "opt_state", ("unet", "ncsnpp")),
    "ve": _Use("ve", "network", "eps", "optimizer", ("ncsnpp",)),
    "vp_eps": _Use("vp", "network", "eps", "optimizer", ("unet",)),
    "subvp_eps": _Use("subvp", "network", "eps", "optimizer", ("unet",)),
}
# Foreign names of the layers of a block, and of the modules that stand outside of all blocks.
LAYERS = {
    "norm0": "GroupNorm_0",
    "conv0": "Conv_0",
    "affine": "Dense_0",
    "norm1": "GroupNorm_1",
    "conv1": "Conv_1",
    "skip": "Conv_2",
}
MODULES = {
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
        path: The file to read.
        preconditioning: The network's preconditioning, a key of `USES`.
        size: The height and width of the images, in pixels.

    Raises:
        InputError: There is no preconditioning, the file is of another kind, or it holds a network
            that ours cannot express.
    """
    if preconditioning is None:
        requirement = f"{choices(USES)}; the file does not say how its network is used"
        raise InputError("--preconditioning", None, requirement)
    require_choice("--preconditioning", preconditioning, USES)
    use = USES[preconditioning]
    state = _restore(path)
    if use.optimiser not in state:
        requirement = f"must be a checkpoint with {use.optimiser!r}, for --preconditioning"
        raise file_error(path, f"{requirement} {preconditioning}")
    tensors = _tensors(path, state.get("params_ema"))
    family, network, channels = _architecture(path, tensors, size)
    if family not in use.families:
        requirement = f"must hold a network of family {' or '.join(use.families)}, not {family}"
        raise file_error(path, f"{requirement}, for --preconditioning {preconditioning}")
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
        raise file_error(path, f"must be a readable file ({error.strerror})") from error
    except Exception as error:  # msgpack and Flax raise many kinds for a damaged file
        raise file_error(path, f"must be a Flax checkpoint ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise file_error(path, "must be a Flax checkpoint of a training state")
    return state


def _tensors(path: Path, params: Any) -> dict[str, np.ndarray]:
    """Returns the averaged parameters by path."""
    try:
        flat = flatten_dict(params, sep="/")
    except (AttributeError, TypeError, AssertionError, RecursionError) as error:
        requirement = "must be a checkpoint with averaged parameters, 'params_ema'"
        raise file_error(path, requirement) from error
    if not all(isinstance(value, np.ndarray) for value in flat.values()):
        raise file_error(path, "must be a checkpoint whose parameters are arrays")
    return flat


def _architecture(
    path: Path, tensors: Mapping[str, np.ndarray], size: int
) -> tuple[str, dict[str, Any], int]:
    """Returns the family, its keywords and the number of image channels, from the shapes."""
    first, last = (_shape(path, tensors, f"Conv_{i}/kernel", 4) for i in (0, 1))
    channels, width = first[2:]
    if last[3] != channels:
        raise file_error(
            path, f"must hold a network with {channels} output channels, not {last[3]}"
        )
    fourier = "GaussianFourierProjection_0/W" in tensors
    pyramid = any(name.startswith("Downsample_") for name in tensors)
    if fourier != pyramid:
        requirement = "must be NCSN++ (Fourier features and an input pyramid) or DDPM++ (neither)"
        raise file_error(path, f"{requirement}, not one without the other")
    blocks = _count(tensors, BLOCK)
    shapes = [_shape(path, tensors, f"{BLOCK}_{i}/Conv_0/kernel", 4) for i in range(blocks)]
    num_resamplings = sum(
        f"{BLOCK}_{i}/Conv_2/kernel" in tensors and shape[2] == shape[3]
        for i, shape in enumerate(shapes)
    )
    levels = num_resamplings // 2 + 1
    num_blocks, rest = divmod(blocks - 3 * levels, 2 * levels)
    if num_resamplings % 2 or rest or num_blocks < 1:
        requirement = f"must have as many blocks at one resolution as at another; has {blocks}"
        raise file_error(path, requirement)
    widths = [shapes[level * (num_blocks + 1)][3] for level in range(levels)]
    if any(w % width for w in widths):
        raise file_error(path, f"must have widths that are multiples of {width}, not {widths}")
    num_attention = _count(tensors, ATTEND) - 1  # without that of the middle, which all have
    at_resolution = [level for level in range(levels) if size >> level == ATTENTION]
    if num_attention != len(at_resolution) * (num_blocks + 1) and num_attention:
        requirement = f"must have attention at resolution {ATTENTION} of {size}, or none"
        raise file_error(path, requirement)
    network = {
        "width": width,
        "multipliers": tuple(w // width for w in widths),
        "num_blocks": num_blocks,
        "attention": (ATTENTION,) if num_attention else (),
    }
    return "ncsnpp" if fourier else "unet", network, channels


def _count(tensors: Mapping[str, np.ndarray], kind: str) -> int:
    return len({name.split("/")[0] for name in tensors if name.startswith(f"{kind}_")})


def _order(facts: ModelFacts) -> tuple[dict[str, int], dict[str, int]]:
    """Numbers our blocks, and those of them with attention, in the order of evaluation."""
    network = dict(facts.network)
    levels, num_blocks = len(network["multipliers"]), network["num_blocks"]
    blocks, with_attention = [], []

    def add(name: str, attends: bool) -> None:
        blocks.append(name)
        with_attention.extend([name] if attends else [])

    def attends_at(level: int) -> bool:
        return facts.image_shape[0] >> level in network["attention"]

    for level in range(levels):
        blocks.extend([f"down{level}"] if level else [])
        for i in range(num_blocks):
            add(f"enc{level}_{i}", attends_at(level))
    add("mid0", True)
    add("mid1", False)
    for level in reversed(range(levels)):
        for i in range(num_blocks + 1):
            add(f"dec{level}_{i}", i == num_blocks and attends_at(level))
        blocks.extend([f"up{level}"] if level else [])
    return tuple({name: i for i, name in enumerate(order)} for order in (blocks, with_attention))


def _rules(facts: ModelFacts) -> Iterator[Rule]:
    block_index, attention_index = _order(facts)
    for ours in paths(facts.shapes()):
        module, *rest = ours.split("/")
        leaf = rest[-1]
        if module == "fourier":
            yield Rule(ours, ("GaussianFourierProjection_0/W",))
        elif module in MODULES:
            reads_features = module == "embed0" and leaf == "kernel"
            how = "sin/cos swapped" if reads_features else "copied"
            yield Rule(ours, (f"{MODULES[module]}/{leaf}",), how)
        elif match := re.fullmatch(r"input(\d+)", module):
            name = "weight" if leaf == "kernel" else leaf
            yield Rule(ours, (f"Downsample_{int(match[1]) - 1}/Conv2d_0/{name}",))
        elif rest[0] in LAYERS:
            is_matrix = rest[0] == "skip" and leaf == "kernel"
            how = "1x1 HWIO to matrix" if is_matrix else "copied"
            yield Rule(ours, (f"{BLOCK}_{block_index[module]}/{LAYERS[rest[0]]}/{leaf}",), how)
        else:
            yield _attention_rule(ours, f"{ATTEND}_{attention_index[module]}", rest[0], leaf)


def _attention_rule(ours: str, where: str, layer: str, leaf: str) -> Rule:
    if layer == "norm2":
        return Rule(ours, (f"{where}/GroupNorm_0/{leaf}",))
    name = "W" if leaf == "kernel" else "b"
    if layer == "proj":
        return Rule(ours, (f"{where}/NIN_3/{name}",))
    return Rule(ours, tuple(f"{where}/NIN_{i}/{name}" for i in range(3)), "qkv joined")
