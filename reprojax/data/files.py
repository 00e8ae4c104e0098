"""Images from users' files: an ``.npz``, a folder of pictures or a zip of one."""

from __future__ import annotations

import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from reprojax.data.transform import CHANNELS, Layout
from reprojax.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Modes of Pillow with 8 bits or less per channel, and what each becomes.
MODES = dict.fromkeys(("1", "L", "LA"), "L") | dict.fromkeys(
    ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"), "RGB"
)


def read_npz(path: str | Path, field: str = "data.path") -> tuple[np.ndarray, np.ndarray | None]:
    """Reads images, and labels where there are any, from an ``.npz``.

    Args:
        path: a file with ``images``, uint8 `[n, h, w, c]` (c of 1 or 3) or `[n, h, w]`, and
            optionally ``labels``, integers `[n]`, at least 0.
        field: the field to blame in an error.

    Returns:
        Images, uint8 `[n, h, w, c]`, and labels, int32 `[n]` or None.

    Raises:
        InputError: the file is missing, damaged, or its arrays are not as described.
    """
    arrays = read_arrays(path, ("images", "labels"), field)
    if "images" not in arrays:
        raise InputError(field, str(path), "an .npz with the key 'images'")
    images = check_images(arrays["images"], str(path), field)
    labels = arrays.get("labels")
    if labels is None:
        return images, None
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),) or labels.min() < 0:
        raise InputError(
            field, str(path), f"labels: integers, at least 0, one for each of {len(images)} images"
        )
    return images, labels.astype(np.int32)


def read_arrays(
    path: str | Path, keys: tuple[str, ...], field: str = "data.path"
) -> dict[str, np.ndarray]:
    """Reads those of the named arrays that an ``.npz`` holds; nothing in it is executed.

    Raises:
        InputError: the file is missing, damaged, no ``.npz``, or an array of it holds objects.
    """
    path = Path(path).expanduser()
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise ValueError("this is a single array")
        with file:
            return {key: file[key] for key in keys if key in file}
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            allowed = "an .npz of numbers: objects are pickles, which run code, and are not loaded"
        else:
            allowed = f"a complete .npz ({error})"
        raise InputError(field, str(path), allowed) from error


def check_images(images: np.ndarray, name: str, field: str = "data.path") -> np.ndarray:
    """Checks that an array holds images, and gives grey ones their channel.

    Args:
        images: uint8 `[n, h, w, c]`, c of 1 or 3, or `[n, h, w]`.
        name: where they come from, for an error.
        field: the field to blame in an error.

    Returns:
        uint8 `[n, h, w, c]`.

    Raises:
        InputError: another type or shape, none at all, or values that are not finite.
    """
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        first = np.argwhere(~np.isfinite(images))[0].tolist()
        raise InputError(field, name, f"finite images: NaN or infinity at {first}")
    if images.dtype != np.uint8:
        raise InputError(
            field,
            name,
            f"images of uint8 in 0..255; these are {images.dtype} "
            "(reprojax.data.transform.to_uint8 converts floats in [-1, 1])",
        )
    shape = images.shape
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in CHANNELS or not images.size:
        raise InputError(
            field, name, f"images [n, h, w, c] with c of 1 or 3, or [n, h, w]; these are {shape}"
        )
    return images


def natural_key(name: str) -> tuple[list[str | int], str]:
    """A sort key under which 2 comes before 10; equal numbers fall back on the text."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def read_images(
    path: str | Path, layout: Layout | None = None, field: str = "data.path"
) -> np.ndarray:
    """Reads every picture of a folder, recursively, or of a zip (in memory), in natural order.

    Args:
        path: the folder or zip. Hidden files and files without a picture's suffix are passed over.
        layout: what each picture is brought to; native by default. Transparency is dropped.
        field: the field to blame in an error.

    Returns:
        uint8 `[n, h, w, c]`.

    Raises:
        InputError: the path is missing, holds no picture, one that cannot be read (named in the
            error), or pictures of several shapes.
    """
    path, layout = Path(path).expanduser(), layout or Layout()
    with _open_files(path, field) as (names, read):
        names = sorted(filter(_is_picture, names), key=natural_key)
        if not names:
            raise InputError(field, str(path), f"one picture or more ({', '.join(SUFFIXES)})")
        for i, name in enumerate(names):
            image = layout.image(_decode(read, name, path, field))
            if i == 0:
                images = np.empty((len(names), *image.shape), np.uint8)
            elif image.shape != images.shape[1:]:
                raise InputError(
                    field,
                    f"{path}/{name}",
                    f"pictures of one shape: this is {image.shape}, the first is "
                    f"{images.shape[1:]}; or set data.size and data.channels",
                )
            images[i] = image
    return images


@contextmanager
def _open_files(path: Path, field: str) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """The names below a folder or in a zip, and the function that reads one of them."""
    if path.is_dir():
        files = [Path(root, name) for root, _, names in os.walk(path) for name in names]
        names = [file.relative_to(path).as_posix() for file in files]
        yield names, lambda name: (path / name).read_bytes()
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(field, str(path), f"a folder or zip of pictures ({error})") from error
    with archive:
        yield archive.namelist(), archive.read


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _decode(read: Callable[[str], bytes], name: str, path: Path, field: str) -> np.ndarray:
    """One picture, uint8 `[h, w, c]`."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(read(name))) as picture:
            if picture.mode not in MODES:
                raise ValueError(f"mode {picture.mode}, not 8 bits per channel")
            pixels = np.asarray(picture.convert(MODES[picture.mode]))
    except Exception as error:  # A damaged picture makes its decoder raise nearly anything.
        raise InputError(field, f"{path}/{name}", f"a complete picture ({error})") from error
    return pixels.reshape(*pixels.shape[:2], -1)
