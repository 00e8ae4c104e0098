"""The IDX format of the MNIST family: big-endian dimensions, then bytes."""

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
    """Reads an IDX file of unsigned bytes, gzipped or not, as its first two bytes show.

    Args:
        path: The file.
        ndim: The number of dimensions that the file must have (3 for images, 1 for labels).
        field: The field that an error names.

    Returns:
        A read-only uint8 array of the shape in the file's header.

    Raises:
        InputError: The file is missing, is no such IDX file, or its length contradicts its header.
    """
    try:
        data = Path(path).read_bytes()
        if data.startswith(GZIP_MAGIC):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        requirement = f"must be a complete IDX file that can be read ({error})"
        raise InputError(field, str(path), requirement) from error
    header = 4 + 4 * ndim
    if len(data) < header or data[:4] != bytes([0, 0, UNSIGNED_BYTE, ndim]):
        requirement = f"must be an IDX file of unsigned bytes in {ndim} dimensions"
        raise InputError(field, str(path), requirement)
    shape = struct.unpack(f">{ndim}I", data[4:header])
    if len(data) - header != math.prod(shape):
        requirement = (
            f"must be a complete IDX file; its header has the shape {shape}, which is "
            f"{math.prod(shape)} bytes, and it holds {len(data) - header}"
        )
        raise InputError(field, str(path), requirement)
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
