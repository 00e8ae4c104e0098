"""Writing files so that nothing half-written is taken for whole: temporary name, then rename."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Of the whole process, as is the part that jax gives it in a job of several.
_muted = False


def mute(muted: bool = True) -> None:
    """Makes every write and removal of this module do nothing, or something again.

    Of the processes that train one model together, one writes what they all have.
    """
    global _muted
    _muted = muted


def is_muted() -> bool:
    """Whether this process leaves writing to another."""
    return _muted


def writer_name() -> str:
    """Tells this process from all others on a shared file system: host and process id."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40]
    return f"{host}.{os.getpid()}"


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` and renames it there when the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{writer_name()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes ``data`` whole or not at all, flushed to the disk before it takes its name."""
    if _muted:
        return
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: str | Path, value: Any) -> None:
    """Writes JSON (no NaN; one-space indent) whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def write_npz(path: str | Path, **arrays: np.ndarray) -> None:
    """Writes an npz whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def refresh(*folders: Path) -> None:
    """Has what others made in these folders seen at once.

    NFS remembers for up to a minute that a file was not there, unless its folder is opened.
    """
    for folder in folders:
        with contextlib.suppress(OSError):
            os.listdir(folder)


def remove(path: str | Path) -> None:
    """Removes a file or a folder with all that is in it, where it is there."""
    if _muted:
        return
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def content_hash(value: Any, digits: int = 16) -> str:
    """The first hex digits of the SHA-256 of canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
