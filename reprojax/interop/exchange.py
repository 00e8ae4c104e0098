"""Reads and writes our own format: a folder with `model.safetensors` and `config.json`.

The first holds the weights, the second everything else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors import SafetensorError

from reprojax.denoisers.network import NetworkDenoiser, network_function
from reprojax.errors import InputError
from reprojax.interop.checks import IN
from reprojax.interop.facts import ForeignModel, ModelFacts
from reprojax.interop.mapping import Row, apply_rules
from reprojax.runtime.files import write_json, writer_name
from reprojax.training.weights import load_weights, save_weights, weights_metadata

SCHEMA = 1  # increased whenever the meaning of config.json changes
WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Model:
    """A network with its parameters.

    Args:
        facts: The description of the network and of how it is used.
        params: The parameters, a nested dict of float32 arrays.
    """

    facts: ModelFacts
    params: Any

    def denoiser(self) -> NetworkDenoiser:
        """Returns the model as a DenoiseFn, or as a FlowMapFn if it is a flow map."""
        bind = network_function(self.facts.kind)
        return bind(self.params, self.facts.build(), self.facts.precondition())

    def count(self) -> int:
        """Returns the number of parameters."""
        return sum(math.prod(np.shape(v)) for v in flatten_dict(self.params).values())


def convert(foreign: ForeignModel, value: str = "") -> tuple[Model, list[Row]]:
    """Converts a foreign network to ours.

    Args:
        foreign: The network as a reader returned it.
        value: The file or folder that errors name.

    Returns:
        The network with its parameters, and one row for each tensor that says what became of it.

    Raises:
        InputError: Our network cannot be built in this way, or a tensor is missing, left over or
            of another shape.
    """
    like = foreign.facts.shapes()
    params, rows = apply_rules(foreign.rules, foreign.tensors, like, foreign.unused, value=value)
    return Model(foreign.facts, params), rows


def write_model(folder: str | Path, model: Model, *, overwrite: bool = False) -> None:
    """Writes a model's folder, whole or not at all.

    Args:
        folder: The folder to write, which must not exist or be empty.
        model: The model to write.
        overwrite: Whether to replace an existing folder of this format.

    Raises:
        InputError: The folder holds files already, or cannot be written.
    """
    with _new_folder(Path(folder), overwrite) as new:
        save_weights(new / WEIGHTS, model.params, _metadata(model.facts))
        digest = hashlib.sha256((new / WEIGHTS).read_bytes()).hexdigest()
        facts = model.facts
        config = {
            "schema": SCHEMA,
            **_metadata(facts),
            "kind": facts.kind,
            "objective": facts.objective,
            "parameters": model.count(),
            "sha256": digest,
            "source": dict(facts.source),
        }
        write_json(new / CONFIG, config)


def read_model(folder: str | Path, field: str = IN) -> Model:
    """Reads a folder that `write_model` wrote.

    Args:
        folder: The folder to read.
        field: The option or config field that errors name.

    Raises:
        InputError: The folder is of another kind, its weights are not those that config.json
            describes, or they do not fit the network.
    """
    path = Path(folder)
    try:
        config = json.loads((path / CONFIG).read_text("utf-8"))
        digest = hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest()
    except (OSError, ValueError, RecursionError) as error:
        requirement = f"must be a folder with a readable {CONFIG} and {WEIGHTS}"
        raise InputError(field, str(folder), requirement) from error
    if not isinstance(config, dict) or config.get("schema") != SCHEMA:
        requirement = f"must be a folder whose {CONFIG} has schema {SCHEMA}"
        raise InputError(field, str(folder), requirement)
    if config.get("sha256") != digest:
        requirement = f"must be a folder whose {CONFIG} states the sha256 of its {WEIGHTS}"
        raise InputError(field, str(folder), requirement)
    facts = _facts(config, field, str(folder))
    return Model(facts, load_weights(path / WEIGHTS, facts.shapes(), field))


def export_model(
    weights: str | Path, image_shape: tuple[int, int, int] | None = None, field: str = "--weights"
) -> Model:
    """Returns the model in a weights file of a study, or in one of this format.

    Args:
        weights: A safetensors file whose metadata describes the network.
        image_shape: The shape (h, w, c) of the images, needed if the metadata does not state it.
        field: The option that errors name.

    Raises:
        InputError: The metadata does not describe a network, the image shape is missing or
            contradicts the metadata, or the parameters do not fit.
    """
    metadata = _read_metadata(weights, field)
    shape = list(image_shape) if image_shape else None
    if shape and metadata.get("image_shape", shape) != shape:
        requirement = f"must be {metadata['image_shape']}, as the file says"
        raise InputError("--shape", image_shape, requirement)
    metadata = {**metadata, "image_shape": metadata.get("image_shape", shape)}
    if metadata["image_shape"] is None:
        requirement = "must be the H,W,C of the images, which this file does not state"
        raise InputError("--shape", None, requirement)
    origin = {k: metadata[k] for k in ("name", "hash") if k in metadata}
    source = {"format": "reprojax", "file": Path(weights).name, **origin}
    facts = _facts({**metadata, "source": source}, field, str(weights))
    return Model(facts, load_weights(weights, facts.shapes(), field))


def _read_metadata(path: str | Path, field: str) -> dict[str, Any]:
    """Returns the metadata of a weights file."""
    try:
        metadata = weights_metadata(path)
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise InputError(field, str(path), "must be a readable safetensors file") from error
    if not isinstance(metadata, dict):
        requirement = "must be a safetensors file whose metadata describes the network"
        raise InputError(field, str(path), requirement)
    return metadata


def _metadata(facts: ModelFacts) -> dict[str, Any]:
    """Returns the metadata that a study's weights have too, and the image shape."""
    kind = {"kind": facts.kind} if facts.kind == "flow_map" else {}
    return {
        "family": facts.family,
        "kernel": facts.kernel,
        "preconditioning": facts.preconditioning,
        "sigma_data": facts.sigma_data,
        "network": dict(facts.network),
        "image_shape": list(facts.image_shape),
        **kind,
    }


def _facts(metadata: Mapping[str, Any], field: str, value: str) -> ModelFacts:
    """Returns the description of a network from JSON values."""
    names = ("family", "kernel", "preconditioning", "sigma_data", "network", "image_shape")
    missing = [name for name in names if name not in metadata]
    network, shape = metadata.get("network"), metadata.get("image_shape")
    if missing or not isinstance(network, dict) or not isinstance(shape, list):
        hint = f" (missing: {', '.join(missing)})" if missing else ""
        raise InputError(field, value, f"must describe the network{hint}")
    pairs = {k: tuple(v) if isinstance(v, list) else v for k, v in network.items()}
    return ModelFacts(
        family=metadata["family"],
        network=tuple(sorted(pairs.items())),
        image_shape=tuple(shape),
        kernel=metadata["kernel"],
        preconditioning=metadata["preconditioning"],
        sigma_data=metadata["sigma_data"],
        kind=metadata.get("kind", "network"),
        objective=metadata.get("objective", ""),
        source=metadata.get("source", {}),
    )


@contextlib.contextmanager
def _new_folder(path: Path, overwrite: bool) -> Iterator[Path]:
    """Yields a temporary folder, which becomes ``path`` if the block succeeds."""
    require_free(path, overwrite)
    temporary = path.with_name(f".{path.name}.{writer_name()}.tmp")
    old = path.with_name(f".{path.name}.{writer_name()}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
    except OSError as error:
        requirement = f"must be a writable folder ({error.strerror})"
        raise InputError("--out", str(path), requirement) from error
    finally:
        if old.exists() and not path.exists():  # an error came between the two renames
            os.replace(old, path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def require_free(folder: str | Path, overwrite: bool) -> None:
    """Raises InputError unless `write_model` may write a model to ``folder``."""
    path = Path(folder)
    if path.is_dir() and not path.is_symlink():
        names = {p.name for p in path.iterdir()}
        if names - {WEIGHTS, CONFIG}:  # other files are not ours to remove
            requirement = "must be a new folder; this one holds other files"
            raise InputError("--out", str(path), requirement)
        if names and not overwrite:
            requirement = "holds a model already; give a new folder, or --overwrite to replace it"
            raise InputError("--out", str(path), requirement)
    elif path.exists() or path.is_symlink():
        raise InputError("--out", str(path), "must be a folder, not a file or a link")
