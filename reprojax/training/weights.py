"""EMA weights out and in as safetensors: what other frameworks read, and nothing executes."""

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
        path: of the file; it appears whole or not at all.
        params: a nested dict of float arrays.
        metadata: JSON-able; stored under `METADATA_KEY` in the header.
    """
    flat = {k: np.ascontiguousarray(v) for k, v in flatten_dict(params, sep="/").items()}
    header = {METADATA_KEY: json.dumps(metadata, sort_keys=True)}
    write_bytes(path, save(flat, metadata=header))


def load_weights(path: str | Path, like: Any, field: str = "weights") -> Any:
    """Reads parameters of a known structure.

    Args:
        path: a file that `save_weights` wrote.
        like: nested dict of arrays or shape structs that the file must match.
        field: named in errors.

    Returns:
        A nested dict of float32 numpy arrays.

    Raises:
        InputError: unreadable file, missing or leftover tensors, or another shape, named.
    """
    try:
        with safe_open(str(path), framework="numpy") as file:
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(field, str(path), f"a readable safetensors file ({error})") from error
    wanted = {k: tuple(v.shape) for k, v in flatten_dict(like, sep="/").items()}
    odd = {
        "missing": sorted(wanted.keys() - flat.keys()),
        "leftover": sorted(flat.keys() - wanted.keys()),
        "of another shape": sorted(
            k for k in wanted.keys() & flat.keys() if flat[k].shape != wanted[k]
        ),
    }
    if any(odd.values()):
        said = "; ".join(f"{k}: {', '.join(v[:4])}" for k, v in odd.items() if v)
        raise InputError(field, str(path), f"weights of this very network ({said})")
    return unflatten_dict({k: v.astype(np.float32) for k, v in flat.items()}, sep="/")


def weights_metadata(path: str | Path) -> dict[str, Any]:
    """What `save_weights` stored beside the parameters; empty for a file made elsewhere."""
    with safe_open(str(path), framework="numpy") as file:
        header = file.metadata() or {}
    return json.loads(header.get(METADATA_KEY, "{}"))


def to_host(params: Any) -> Any:
    """Copies a tree of device arrays to numpy, whole; every process of a job must call it."""
    return jax.tree.map(np.asarray, fetch(params))
