"""CIFAR-10 from its Python archive, without running anything that its pickles ask for."""

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
        path: ``cifar-10-python.tar.gz``, the extracted ``cifar-10-batches-py`` or a folder with
            either; if empty, $REPROJAX_DATA is that folder.
        split: ``"train"`` (50,000), ``"test"`` (10,000) or ``"all"`` (train, then test).

    Returns:
        Images, uint8 `[n, 32, 32, 3]`, and labels, int32 `[n]` in 0..9.

    Raises:
        InputError: an unknown split; the files are missing, broken or hold anything but arrays.
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
    raise InputError(
        "data.path",
        path or "an empty path",
        f"CIFAR-10 is not in {place}: get {URL} and set data.path to it "
        "(or REPROJAX_DATA to its folder)",
    )


def _read_files(place: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """The bytes of the named batches, from a folder or straight from the archive."""
    files = {}
    try:
        if place.is_dir():
            files = {name: (place / name).read_bytes() for name in names}
        else:
            # In the archive's own order: seeking back in a gzip stream would inflate it again.
            with tarfile.open(place) as archive:
                for member in archive:
                    name = Path(member.name).name
                    if name in names and member.isfile():
                        files[name] = archive.extractfile(member).read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise InputError(
            "data.path", str(place), f"a complete CIFAR-10 archive or folder ({error}): see {URL}"
        ) from error
    missing = [name for name in names if name not in files]
    if missing:
        raise InputError("data.path", str(place), f"it lacks {', '.join(missing)}: see {URL}")
    return files


def _parse_batch(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        # latin1 maps the byte strings of Python 2 to text one to one.
        batch = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
        batch = {_bytes(key): value for key, value in batch.items()}
        pixels = batch[b"data"].to_numpy().reshape(-1, 3, SIDE, SIDE)
        labels = np.asarray(batch[b"labels"], np.int32)
        if labels.shape != (len(pixels),) or not np.isin(labels, range(NUM_CLASSES)).all():
            raise ValueError("its labels are not one of 0..9 per image")
    except InputError as error:
        raise InputError("data.path", name, error.requirement) from error
    except Exception as error:  # A damaged pickle can raise nearly any error there is.
        raise InputError("data.path", name, f"a CIFAR-10 batch ({error!r})") from error
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), labels


def _bytes(text: str | bytes, encoding: str = "latin1") -> bytes:
    """Stands in for ``_codecs.encode``: latin1 alone, the one that pickled bytes use."""
    if encoding != "latin1":
        raise ValueError(f"encoding {encoding!r}")
    return text if isinstance(text, bytes) else text.encode("latin1")


class _PickledDtype:
    """Stands in for ``numpy.dtype``."""

    def __init__(self, code: str, *_: object):
        self.code = code

    def __setstate__(self, state: object) -> None:
        pass  # Byte order and alignment: a byte has neither.


class _PickledArray:
    """Stands in for ``numpy.ndarray``.

    The real one would do what a stranger's state says, and an object array over a given buffer
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
    """Builds lists, dicts, numbers, text and arrays; every other name is refused."""

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
            raise InputError(
                "data.path",
                f"{module}.{name}",
                f"plain arrays; this pickle asks for {module}.{name}, which was refused",
            ) from None
