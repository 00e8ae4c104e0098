"""Reads PyTorch's tensors in a pickle as numpy arrays, without PyTorch.

A tensor is pickled as a call with a storage, offset, size and stride. Its storage is a byte string
in PyTorch's older file format: five pickles (a magic number, a version, a description of the
machine, the storage's reference, the list of keys), then for each key an int64 count and the raw
values.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from reprojax.interop.machine import Machine, Name, RefusedError

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
MAX_AXES = 8
MAX_OPCODES = 200  # ten times the need; a hostile file can have the same bytes read many times
DTYPES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": ml_dtypes.bfloat16,
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}


class Storage:
    """A flat array, whose values follow the pickle that refers to it.

    Args:
        dtype: The dtype of the values.
        count: The number of values.
    """

    def __init__(self, dtype: np.dtype, count: int):
        self.dtype, self.count = dtype, count
        self.values: np.ndarray | None = None


def storage_from_bytes(data: bytes) -> Storage:
    """Reads a storage in PyTorch's older format.

    Raises:
        RefusedError: The bytes hold anything else.
        ValueError: The bytes are damaged.
    """
    if type(data) is not bytes or data[:2] == b"PK":
        raise RefusedError("bytes that are not a plain storage")
    stream, storages = io.BytesIO(data), {}
    machine = Machine(_find, _no_call, partial(_refer, storages), limit=MAX_OPCODES)
    if machine.read(stream) != MAGIC or machine.read(stream) != VERSION:
        raise RefusedError("bytes that are not a plain storage")
    facts = machine.read(stream)
    if not isinstance(facts, dict) or facts.get("little_endian") is not True:
        raise RefusedError("a storage that is not little-endian")
    storage, keys = machine.read(stream), machine.read(stream)
    if not isinstance(storage, Storage) or keys != sorted(storages) or len(storages) != 1:
        raise RefusedError("bytes that are not a plain storage")
    count = int.from_bytes(stream.read(8), "little", signed=True)
    num_bytes = len(data) - stream.tell()
    if count != storage.count or count * storage.dtype.itemsize > num_bytes:
        raise RefusedError(f"a storage of {count:,} values in {num_bytes:,} bytes")
    storage.values = np.frombuffer(data, storage.dtype, count, stream.tell())
    return storage


def _find(module: str, name: str) -> Name:
    text = f"{module}.{name}"
    if text not in DTYPES:
        raise RefusedError(text)
    return Name(text)


def _no_call(name: str, args: tuple) -> Any:
    raise RefusedError(f"a call of {name} inside a storage")


def _refer(storages: dict[str, Storage], reference: Any) -> Storage:
    """Returns the storage that ("storage", type, key, device, count, None) stands for."""
    if type(reference) is not tuple or len(reference) not in (5, 6) or reference[0] != "storage":
        raise RefusedError("a persistent id that is not a storage's")
    _, kind, key, _, count = reference[:5]
    valid = isinstance(kind, Name) and type(key) is str and type(count) is int and count >= 0
    if not valid or reference[5:] not in ((), (None,)):
        raise RefusedError("a persistent id that is not a storage's")
    return storages.setdefault(key, Storage(np.dtype(DTYPES[kind.text]), count))


def no_reference(reference: Any) -> Any:
    """Refuses every persistent id, for a pickle that has no storages of its own."""
    raise RefusedError("a persistent id outside a storage")


def tensor(
    storage: Storage, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any
) -> np.ndarray:
    """Returns a tensor as a read-only view of its storage, without gradients and hooks.

    Raises:
        RefusedError: The tensor reaches outside its storage, or has more values than the storage.
    """
    numbers = (offset, *_tuple(size), *_tuple(stride))
    plain = all(type(n) is int and n >= 0 for n in numbers)
    if not isinstance(storage, Storage) or not plain or len(size) != len(stride):
        raise RefusedError("a tensor that is not described by numbers")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if len(size) > MAX_AXES or count > storage.count or (count and last >= storage.count):
        raise RefusedError(f"a tensor of shape {list(size)[:MAX_AXES]} in {storage.count:,} values")
    if not count:
        return storage.values[:0].reshape(size)
    steps = [n * storage.dtype.itemsize for n in stride]
    start = storage.values[offset:]
    return np.lib.stride_tricks.as_strided(start, size, steps, writeable=False)


def _tuple(value: Any) -> tuple:
    if type(value) is not tuple:
        raise RefusedError("a tensor that is not described by numbers")
    return value


def parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    """Returns the tensor of a parameter."""
    if not isinstance(data, np.ndarray):
        raise RefusedError("a parameter that is not a tensor")
    return data
