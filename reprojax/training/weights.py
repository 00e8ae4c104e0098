"""Writes and reads weights as safetensors, which other frameworks read and nothing executes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from reprojax.errors import InputError
from reprojax.runtime.files import write_bytes
from reprojax.runtime.job import fetch

METADATA_KEY = "reprojax"


def save_weights(path: str | Path, params: Any, metadata: dict) -> None:
    """Writes parameters, named by their path ("enc0_0/conv0/kernel"), with JSON metadata.

    Args:
        path: The file to write, whole or not at all.
        params: The parameters, a nested dict of float arrays.
        metadata: JSON values to store under `METADATA_KEY` in the header.
    """
    flat = {k: np.ascontiguousarray(v) for k, v in flatten_dict(params, sep="/").items()}
    header = {METADATA_KEY: json.dumps(metadata, sort_keys=True)}
    write_bytes(path, save(flat, metadata=header))


def load_weights(path: str | Path, like: Any, field: str = "weights") -> Any:
    """Reads the parameters of a network.

    Args:
        path: A file that `save_weights` wrote.
        like: The network's parameters, a nested dict of arrays or shape structs.
        field: The option or config field that errors name.

    Returns:
        A nested dict of float32 numpy arrays.

    Raises:
        InputError: The file cannot be read, or has missing tensors, leftover tensors or tensors
            of another shape, which the message names.
    """
    try:
        with safe_open(str(path), framework="numpy") as file:
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        requirement = f"must be a readable safetensors file ({error})"
        raise InputError(field, str(path), requirement) from error
    expected = {k: tuple(v.shape) for k, v in flatten_dict(like, sep="/").items()}
    problems = {
        "missing": sorted(expected.keys() - flat.keys()),
        "leftover": sorted(flat.keys() - expected.keys()),
        "of another shape": sorted(
            k for k in expected.keys() & flat.keys() if flat[k].shape != expected[k]
        ),
    }
    if any(problems.values()):
        names = "; ".join(f"{k}: {', '.join(v[:4])}" for k, v in problems.items() if v)
        requirement = f"must hold the weights of exactly this network ({names})"
        raise InputError(field, str(path), requirement)
    return unflatten_dict({k: v.astype(np.float32) for k, v in flat.items()}, sep="/")


def weights_metadata(path: str | Path) -> dict[str, Any]:
    """Returns the metadata that `save_weights` stored; empty for a file of another program."""
    with safe_open(str(path), framework="numpy") as file:
        header = file.metadata() or {}
    return json.loads(header.get(METADATA_KEY, "{}"))


def to_host(params: Any) -> Any:
    """Copies a tree of device arrays to numpy. Every process of a job must call it."""
    return jax.tree.map(np.asarray, fetch(params))
