"""CIFAR-10 from its Python archive, read without executing what its pickles name."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zlib
from pathlib import Path

import numpy as np

from reprojax.errors import InputError, require_choice

ARCHIVE, FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
_TRAIN, _TEST = tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",)
BATCHES = {"train": _TRAIN, "test": _TEST, "all": _TRAIN + _TEST}
SIDE, NUM_CLASSES = 32, 10


def read_cifar10(path: str = "", split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Reads CIFAR-10.

    Args:
        path: The file ``cifar-10-python.tar.gz``, the extracted folder ``cifar-10-batches-py``, or
            a folder with either. If empty, $REPROJAX_DATA is that folder.
        split: ``"train"`` (50,000 images), ``"test"`` (10,000) or ``"all"`` (train, then test).

    Returns:
        Images, uint8 `[n, 32, 32, 3]`, and labels, int32 `[n]` in 0..9.

    Raises:
        InputError: The split is unknown, or the files are missing, damaged or hold other things
            than arrays.
    """
    require_choice("data.split", split, BATCHES)
    place = _find(path)
    files = _read_files(place, BATCHES[split])
    parts = [_parse_batch(files[name], f"{place}:{name}") for name in BATCHES[split]]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts))
    return images, labels


def _find(path: str) -> Path:
    place = Path(path or os.environ.get("REPROJAX_DATA") or FOLDER).expanduser()
    for candidate in (place / FOLDER, place / ARCHIVE, place):
        if candidate.is_file() or (candidate / BATCHES["test"][0]).is_file():
            return candidate
    requirement = (
        f"CIFAR-10 is not in {place}; download {URL} and set data.path to the file, or "
        "REPROJAX_DATA to its folder"
    )
    raise InputError("data.path", path or None, requirement)


def _read_files(place: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Returns the bytes of the named batches, from a folder or from the archive."""
    files = {}
    try:
        if place.is_dir():
            files = {name: (place / name).read_bytes() for name in names}
        else:
            # In the order of the archive, since going back in a gzip stream inflates it again.
            with tarfile.open(place) as archive:
                for member in archive:
                    name = Path(member.name).name
                    if name in names and member.isfile():
                        files[name] = archive.extractfile(member).read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        requirement = f"must be a complete archive or folder of CIFAR-10 ({error}); see {URL}"
        raise InputError("data.path", str(place), requirement) from error
    missing = [name for name in names if name not in files]
    if missing:
        requirement = f"lacks {', '.join(missing)}; see {URL}"
        raise InputError("data.path", str(place), requirement)
    return files


def _parse_batch(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        # latin1 maps each byte of Python 2's strings to one character.
        batch = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
        batch = {_bytes(key): value for key, value in batch.items()}
        pixels = batch[b"data"].to_numpy().reshape(-1, 3, SIDE, SIDE)
        labels = np.asarray(batch[b"labels"], np.int32)
        if labels.shape != (len(pixels),) or not np.isin(labels, range(NUM_CLASSES)).all():
            raise ValueError("the labels are not a number in 0..9 per image")
    except InputError as error:
        raise InputError("data.path", name, error.requirement) from error
    except Exception as error:  # a damaged pickle can raise nearly any error
        raise InputError("data.path", name, f"must be a batch of CIFAR-10 ({error!r})") from error
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), labels


def _bytes(text: str | bytes, encoding: str = "latin1") -> bytes:
    """Stands in for ``_codecs.encode``, with the one encoding that pickled bytes use."""
    if encoding != "latin1":
        raise ValueError(f"encoding {encoding!r}")
    return text if isinstance(text, bytes) else text.encode("latin1")


class _PickledDtype:
    """Stands in for ``numpy.dtype``."""

    def __init__(self, code: str, *_: object):
        self.code = code

    def __setstate__(self, state: object) -> None:
        pass  # the state is byte order and alignment, which a byte does not have


class _PickledArray:
    """Stands in for ``numpy.ndarray``.

    The real class would obey the state in the file, and an object array over a buffer from the file
    follows any pointer that is written there.
    """

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def to_numpy(self) -> np.ndarray:
        if _bytes(self.dtype.code) not in (b"u1", b"|u1"):
            raise ValueError(f"an array of {self.dtype.code!r} instead of bytes")
        order = "F" if self.fortran else "C"
        return np.frombuffer(_bytes(self.data), np.uint8).reshape(self.shape, order=order)


def _reconstruct(*_: object) -> _PickledArray:
    """Stands in for ``numpy._core.multiarray._reconstruct``."""
    return _PickledArray()


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that builds lists, dicts, numbers, text and arrays and refuses all else."""

    ADMITTED = {  # noqa: RUF012 (read-only)
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledDtype,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("_codecs", "encode"): _bytes,
    }

    def find_class(self, module: str, name: str) -> object:
        try:
            return self.ADMITTED[module, name]
        except KeyError:
            function = f"{module}.{name}"
            requirement = f"must hold plain arrays only; {function}, which it asks for, is refused"
            raise InputError("data.path", None, requirement) from None
