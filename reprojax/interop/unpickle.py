"""Reads network weights from pickles of EDM's code base (arXiv 2206.00364) and executes nothing.

Such a pickle holds objects of persistent classes, each with the source text of its module, which
the original reader runs. Here the text is ignored, and an object is a record of its class's name
and its attributes; tensors become numpy arrays. Names that such files do not use are refused.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reprojax.interop.checks import IN, file_error
from reprojax.interop.machine import Inert, Machine, Name, RefusedError
from reprojax.interop.torch_storage import no_reference, parameter, storage_from_bytes, tensor

MAX_BYTES = 1 << 34
# Classes of these packages become records. Functions do not: we cannot know what a call would do.
NAMESPACES = ("torch", "torch_utils", "training", "dnnlib", "numpy", "collections")
INERT_FUNCTIONS = ("numpy.dtype", "torch.device")
_MODULE = re.compile(r"[A-Za-z]\w*(\._?[A-Za-z]\w*)*")
_CLASS = re.compile(r"[A-Z][A-Za-z0-9]*")


def _ordered_dict(pairs: Any = ()) -> dict:
    """Returns an empty dict, which the stream fills afterwards in every protocol from 2 on."""
    if pairs != ():
        raise RefusedError("collections.OrderedDict of something")
    return {}


def _set(members: Any = ()) -> set:
    if type(members) not in (list, tuple) or any(type(m) not in (str, int) for m in members):
        raise RefusedError("a set of something else than names")
    return set(members)


def _persistent_object(meta: Any) -> Inert:
    """Returns a record of the class's name and the state; ignores the source of its module."""
    if type(meta) is not dict or meta.get("type") != "class":
        raise RefusedError("a persistent object that is not of a class")
    if type(meta.get("class_name")) is not str or type(meta.get("state")) is not dict:
        raise RefusedError("a persistent object without a name or a state")
    return Inert(meta["class_name"], state=meta["state"])


def _numpy_scalar(dtype: Any, data: Any) -> Any:
    """Returns a little-endian numpy number as Python's."""
    is_dtype = isinstance(dtype, Inert) and dtype.kind == "numpy.dtype" and dtype.args
    code = dtype.args[0] if is_dtype else None
    big_endian = is_dtype and type(dtype.state) is tuple and dtype.state[1:2] == (">",)
    if code not in ("f8", "f4", "i8", "i4", "b1") or big_endian or type(data) is not bytes:
        raise RefusedError("a numpy scalar of another type")
    if len(data) != np.dtype(code).itemsize:
        raise RefusedError("a numpy scalar of another size")
    return np.frombuffer(data, code)[0].item()


CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "builtins.set": _set,
    "__builtin__.set": _set,  # the name up to protocol 2
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_parameter": parameter,
    "torch.storage._load_from_bytes": storage_from_bytes,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent_object,
}


def _find(module: str, name: str) -> Name:
    text = f"{module}.{name}"
    if text in CALLS or text in INERT_FUNCTIONS:
        return Name(text)
    in_namespace = _MODULE.fullmatch(module) and module.split(".")[0] in NAMESPACES
    if in_namespace and _CLASS.fullmatch(name):
        return Name(text)
    raise RefusedError(text)


def _call(name: str, args: tuple) -> Any:
    if name not in CALLS:
        return Inert(name, args)
    try:
        return CALLS[name](*args)
    except TypeError as error:
        raise RefusedError(f"{name} with other arguments than it takes") from error


def read_pickle(path: str | Path, field: str = IN) -> Any:
    """Reads a pickle of networks.

    Args:
        path: The file to read.
        field: The option that errors name.

    Returns:
        The value: dicts, lists, numbers and strings; `Inert` records; tensors as read-only numpy
        arrays of their own dtype.

    Raises:
        InputError: The file asks for anything but weights, is damaged, or is not a pickle.
    """
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise file_error(path, f"must be a file of at most {MAX_BYTES:,} bytes", field)
        data = Path(path).read_bytes()
    except OSError as error:
        raise file_error(path, f"must be a readable file ({error.strerror})", field) from error
    if data[:2] == b"PK":
        requirement = "must be a plain pickle; this is a zip archive, as torch.save writes it"
        raise file_error(path, requirement, field)
    try:
        return Machine(_find, _call, no_reference).read(io.BytesIO(data))
    except RefusedError as error:
        requirement = f"must hold weights only; this pickle asks for {error}"
        raise file_error(path, requirement, field) from error
    except ValueError as error:
        raise file_error(path, f"must be a whole pickle ({error})", field) from error
