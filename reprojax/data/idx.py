"""The IDX format of the MNIST family: big-endian dimensions, then raw bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from reprojax.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTE = 0x08


def read_idx(path: str | Path, ndim: int, field: str = "data.path") -> np.ndarray:
    """Reads one IDX file of unsigned bytes, plain or gzipped (told by its first two bytes).

    Args:
        path: the file.
        ndim: the number of dimensions it must have (3 for images, 1 for labels).
        field: the field to blame in an error.

    Returns:
        uint8, read-only, in the shape that the file states.

    Raises:
        InputError: the file is missing, truncated, longer than it states or no such IDX file.
    """
    try:
        data = Path(path).read_bytes()
        if data.startswith(GZIP_MAGIC):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(field, str(path), f"a readable, complete IDX file ({error})") from error
    header = 4 + 4 * ndim
    if len(data) < header or data[:4] != bytes([0, 0, UNSIGNED_BYTE, ndim]):
        raise InputError(field, str(path), f"an IDX file of unsigned bytes in {ndim} dimensions")
    shape = struct.unpack(f">{ndim}I", data[4:header])
    if len(data) - header != math.prod(shape):
        raise InputError(
            field,
            str(path),
            f"a complete IDX file: it states {shape}, i.e. {math.prod(shape)} bytes, "
            f"and holds {len(data) - header}",
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
