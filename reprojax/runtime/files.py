"""Writing files whole or not at all: under a temporary name, which is then renamed."""

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

# A state of the whole process, like its place in a job of several processes, which JAX keeps.
_muted = False


def mute(muted: bool = True) -> None:
    """Turns all writes and removals of this module off, or on again with False.

    Of the processes that train one model together, only one may write the files.
    """
    global _muted
    _muted = muted


def is_muted() -> bool:
    """Returns True if this process leaves all writing to another."""
    return _muted


def writer_name() -> str:
    """Returns "<host>.<process id>", which is unique among the users of a shared file system."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40]
    return f"{host}.{os.getpid()}"


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path, which is renamed to ``path`` if the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{writer_name()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes ``data`` whole or not at all. It is flushed to the disk before it is renamed."""
    if _muted:
        return
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: str | Path, value: Any) -> None:
    """Writes JSON (without NaN, indented by one space) whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any | None:
    """Returns the content of a JSON file, or None where there is no such file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def write_npz(path: str | Path, **arrays: np.ndarray) -> None:
    """Writes an ``.npz`` whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def refresh(*folders: Path) -> None:
    """Lists these folders, so that this process sees at once what others have written there.

    NFS remembers for up to a minute that a file does not exist, unless its folder is opened.
    """
    for folder in folders:
        with contextlib.suppress(OSError):
            os.listdir(folder)


def remove(path: str | Path) -> None:
    """Removes a file, or a folder with its contents. Does nothing if there is neither."""
    if _muted:
        return
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def content_hash(value: Any, digits: int = 16) -> str:
    """Returns the first hex digits of the SHA-256 of ``value`` as JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
