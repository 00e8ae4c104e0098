"""Reads U-ViT's own checkpoints (arXiv 2209.12152): the state dict of a network on pixels.

The published networks on pixels predict noise under VP and read 999 t. The state dict does not
state the number of heads, which the publication lists for each width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from reprojax.errors import InputError
from reprojax.interop.checks import file_error, require_axes
from reprojax.interop.facts import ForeignModel, ModelFacts
from reprojax.interop.mapping import Rule, paths

OLDEST_TORCH = (2, 6)  # a hostile file could make weights_only run code before (CVE-2025-32434)
HEADS = {512: 8, 768: 12, 1024: 16, 1152: 16}  # small, mid, large, huge
# Foreign names of the parameters outside of all blocks, and of the layers of a block.
PARAMETERS = {
    "positions": "pos_embed",
    "patches/kernel": "patch_embed.proj.weight",
    "patches/bias": "patch_embed.proj.bias",
    "label/embedding": "label_emb.weight",
    "norm/scale": "norm.weight",
    "norm/bias": "norm.bias",
    "decode/kernel": "decoder_pred.weight",
    "decode/bias": "decoder_pred.bias",
    "conv_out/kernel": "final_layer.weight",
    "conv_out/bias": "final_layer.bias",
}
LAYERS = {
    "norm1": "norm1",
    "qkv": "attn.qkv",
    "proj": "attn.proj",
    "norm2": "norm2",
    "mlp0": "mlp.fc1",
    "mlp1": "mlp.fc2",
    "skip": "skip_linear",
}

_shape = partial(require_axes, what="a state dict of U-ViT on pixels")


def read_uvit(path: Path, heads: int | None = None) -> ForeignModel:
    """Reads a .pth file with PyTorch, weights only.

    Args:
        path: The file to read.
        heads: The number of attention heads, needed if the width is not a published one.

    Raises:
        InputError: PyTorch is absent or too old to read safely, the file is of another kind, or it
            holds a network that ours cannot express.
    """
    tensors = _load(path)
    facts = _facts(path, tensors, heads)
    rules = tuple(_rule(ours) for ours in paths(facts.shapes()))
    return ForeignModel(facts, tensors, rules)


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        requirement = "needs PyTorch; install it with pip install -e '.[interop]'"
        raise InputError("--from", "uvit", requirement) from error
    version = tuple(int(n) for n in re.findall(r"\d+", torch.__version__)[:2])
    if version < OLDEST_TORCH:
        requirement = f"needs PyTorch 2.6 or newer; {torch.__version__} cannot read the file safely"
        raise InputError("--from", "uvit", requirement)
    try:
        # PyTorch's weights_only refuses a file that needs more than tensors.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise file_error(path, f"must be a readable file ({error.strerror})") from error
    except Exception as error:  # a damaged or hostile file can raise anything
        reason = f"({type(error).__name__}; torch.load, weights_only)"
        requirement = f"must be a file that holds tensors and nothing else {reason}"
        raise file_error(path, requirement) from error
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    ):
        raise file_error(path, "must be a state dict, tensors by name")
    wider = {torch.float16: torch.float32, torch.bfloat16: torch.float32}  # without rounding
    return {k: v.detach().to(wider.get(v.dtype, v.dtype)).numpy() for k, v in state.items()}


def _facts(path: Path, tensors: Mapping[str, np.ndarray], heads: int | None) -> ModelFacts:
    """Returns the description of the network, from the shapes of its tensors."""
    patches = _shape(path, tensors, "patch_embed.proj.weight", 4)
    tokens = _shape(path, tensors, "pos_embed", 3)[1]
    hidden = _shape(path, tensors, "in_blocks.0.mlp.fc1.weight", 2)[0]
    _shape(path, tensors, "final_layer.weight", 4)  # networks on latents have none
    width, channels, patch = patches[:3]
    if any(name.startswith("time_embed.") for name in tensors):
        requirement = "must hold a network without an MLP on its time token (mlp_time_embed False)"
        raise file_error(path, requirement)
    if channels not in (1, 3):
        requirement = f"must hold a network on images of 1 or 3 channels, not latents of {channels}"
        raise file_error(path, requirement)
    if heads is None and width not in HEADS:
        requirement = f"must be the number of heads, which is not published for width {width}"
        raise InputError("--heads", None, requirement)
    labels = tensors.get("label_emb.weight")
    classes = 0 if labels is None else len(labels)
    side = math.isqrt(max(tokens - (2 if classes else 1), 0))
    pairs = {name.split(".")[1] for name in tensors if name.startswith("in_blocks.")}
    network = {
        "width": width,
        "patch": patch,
        "depth": 2 * len(pairs),
        "num_heads": HEADS[width] if heads is None else heads,
        "mlp_ratio": hidden / width,
        "noise_scale": 1.0,
        "num_classes": classes,
    }
    return ModelFacts(
        family="uvit",
        network=tuple(network.items()),
        image_shape=(side * patch, side * patch, channels),
        kernel="vp",
        preconditioning="vp_eps",
        objective="eps",
        source={"format": "uvit", "file": path.name},
    )


def _rule(ours: str) -> Rule:
    leaf = ours.split("/")[-1]
    if ours in PARAMETERS:
        kernels = {"patches": "OIHW to HWIO", "conv_out": "OIHW to HWIO", "decode": "transposed"}
        how = kernels.get(ours.split("/")[0], "copied") if leaf == "kernel" else "copied"
        return Rule(ours, (PARAMETERS[ours],), how)
    block, layer, leaf = ours.split("/")
    where = {"in": "in_blocks.", "out": "out_blocks.", "mid": "mid_block"}
    kind, index = re.fullmatch(r"(in|out|mid)(\d*)", block).groups()
    name = f"{where[kind]}{index}.{LAYERS[layer]}.{'bias' if leaf == 'bias' else 'weight'}"
    return Rule(ours, (name,), "transposed" if leaf == "kernel" else "copied")
