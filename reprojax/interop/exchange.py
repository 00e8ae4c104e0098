"""Our own format: a folder with `model.safetensors`, the weights, and `config.json`, the rest."""

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
from reprojax.interop.mapping import Row, carry
from reprojax.runtime.files import write_json, writer_name
from reprojax.training.weights import load_weights, save_weights, weights_metadata

SCHEMA = 1  # raised when the meaning of config.json changes
WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Model:
    """A network with its parameters.

    Args:
        facts: what it is and how it is used.
        params: nested dict of float32 arrays.
    """

    facts: ModelFacts
    params: Any

    def denoiser(self) -> NetworkDenoiser:
        """It as a DenoiseFn, or as a FlowMapFn where that is its kind."""
        bind = network_function(self.facts.kind)
        return bind(self.params, self.facts.build(), self.facts.precondition())

    def count(self) -> int:
        """Number of parameters."""
        return sum(math.prod(np.shape(v)) for v in flatten_dict(self.params).values())


def convert(foreign: ForeignModel, value: str = "") -> tuple[Model, list[Row]]:
    """A foreign network as ours, and what became of each of its tensors.

    Args:
        foreign: from a reader.
        value: named in errors: the file.

    Raises:
        InputError: our network cannot be built so, or a tensor is missing, left over or misshapen.
    """
    like = foreign.facts.shapes()
    params, rows = carry(foreign.rules, foreign.tensors, like, foreign.dropped, value=value)
    return Model(foreign.facts, params), rows


def write_model(folder: str | Path, model: Model, *, overwrite: bool = False) -> None:
    """Writes a model's folder, whole or not at all.

    Args:
        folder: which does not exist, or is empty.
        model: what to write.
        overwrite: replace a folder of this format.

    Raises:
        InputError: it is taken, or cannot be written.
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

    Raises:
        InputError: it is not one, the weights are not those that config.json describes, or they
            do not fit the network.
    """
    path = Path(folder)
    try:
        config = json.loads((path / CONFIG).read_text("utf-8"))
        digest = hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest()
    except (OSError, ValueError, RecursionError) as error:
        allowed = f"a folder with a readable {CONFIG} and {WEIGHTS}"
        raise InputError(field, str(folder), allowed) from error
    if not isinstance(config, dict) or config.get("schema") != SCHEMA:
        raise InputError(field, str(folder), f"a folder whose {CONFIG} has schema {SCHEMA}")
    if config.get("sha256") != digest:
        raise InputError(field, str(folder), f"a folder whose {CONFIG} has the sha256 of {WEIGHTS}")
    facts = _facts(config, field, str(folder))
    return Model(facts, load_weights(path / WEIGHTS, facts.shapes(), field))


def export_model(
    weights: str | Path, image_shape: tuple[int, int, int] | None = None, field: str = "--weights"
) -> Model:
    """The model in a weights file of a study (or of this format).

    Args:
        weights: a safetensors file whose metadata says what the network is.
        image_shape: (h, w, c), where the metadata does not say it.
        field: named in errors.

    Raises:
        InputError: no such metadata, no image shape or two of them, or parameters that do not fit.
    """
    stored = _stored(weights, field)
    given = list(image_shape) if image_shape else None
    if given and stored.get("image_shape", given) != given:
        raise InputError("--shape", image_shape, f"{stored['image_shape']}, as the file says")
    stored = {**stored, "image_shape": stored.get("image_shape", given)}
    if stored["image_shape"] is None:
        raise InputError("--shape", "", "H,W,C of the images: this file does not say it")
    origin = {k: stored[k] for k in ("name", "hash") if k in stored}
    source = {"format": "reprojax", "file": Path(weights).name, **origin}
    facts = _facts({**stored, "source": source}, field, str(weights))
    return Model(facts, load_weights(weights, facts.shapes(), field))


def _stored(path: str | Path, field: str) -> dict[str, Any]:
    """The metadata of a weights file."""
    try:
        stored = weights_metadata(path)
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise InputError(field, str(path), "a readable safetensors file") from error
    if not isinstance(stored, dict):
        raise InputError(field, str(path), "a safetensors file with facts of the network")
    return stored


def _metadata(facts: ModelFacts) -> dict[str, Any]:
    """What a study's weights carry too, and the image shape."""
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


def _facts(stored: Mapping[str, Any], field: str, value: str) -> ModelFacts:
    """Facts out of JSON values."""
    names = ("family", "kernel", "preconditioning", "sigma_data", "network", "image_shape")
    missing = [name for name in names if name not in stored]
    network, shape = stored.get("network"), stored.get("image_shape")
    if missing or not isinstance(network, dict) or not isinstance(shape, list):
        said = f" (missing: {', '.join(missing)})" if missing else ""
        raise InputError(field, value, f"facts of the network{said}")
    pairs = {k: tuple(v) if isinstance(v, list) else v for k, v in network.items()}
    return ModelFacts(
        family=stored["family"],
        network=tuple(sorted(pairs.items())),
        image_shape=tuple(shape),
        kernel=stored["kernel"],
        preconditioning=stored["preconditioning"],
        sigma_data=stored["sigma_data"],
        kind=stored.get("kind", "network"),
        objective=stored.get("objective", ""),
        source=stored.get("source", {}),
    )


@contextlib.contextmanager
def _new_folder(path: Path, overwrite: bool) -> Iterator[Path]:
    """Gives a temporary folder beside ``path`` and renames it there when the block ends well."""
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
        raise InputError("--out", str(path), f"a writable folder ({error.strerror})") from error
    finally:
        if old.exists() and not path.exists():  # stopped between the two renames
            os.replace(old, path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def require_free(folder: str | Path, overwrite: bool) -> None:
    """Raises InputError unless a model's folder may be written there (see `write_model`)."""
    path = Path(folder)
    if path.is_dir() and not path.is_symlink():
        names = {p.name for p in path.iterdir()}
        if names - {WEIGHTS, CONFIG}:  # whatever else is in there is not ours to remove
            raise InputError("--out", str(path), "a new folder: this one holds other files")
        if names and not overwrite:
            raise InputError("--out", str(path), "a new folder, or --overwrite to replace this one")
    elif path.exists() or path.is_symlink():
        raise InputError("--out", str(path), "a folder, not a file or a link")
