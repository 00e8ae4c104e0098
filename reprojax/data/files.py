"""Images from users' files: an ``.npz``, or a folder or zip of pictures."""

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
# Pillow's modes of at most 8 bits per channel, and the mode that each is converted to.
MODES = dict.fromkeys(("1", "L", "LA"), "L") | dict.fromkeys(
    ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"), "RGB"
)


def read_npz(path: str | Path, field: str = "data.path") -> tuple[np.ndarray, np.ndarray | None]:
    """Reads images from an ``.npz``, and labels if it has any.

    Args:
        path: A file with ``images``, uint8 `[n, h, w, c]` (c of 1 or 3) or `[n, h, w]`, and
            optionally ``labels``, integers `[n]`, at least 0.
        field: The field that an error names.

    Returns:
        Images, uint8 `[n, h, w, c]`, and labels, int32 `[n]` or None.

    Raises:
        InputError: The file is missing or damaged, or its arrays are not as described.
    """
    arrays = read_arrays(path, ("images", "labels"), field)
    if "images" not in arrays:
        raise InputError(field, str(path), "must be an .npz with the key 'images'")
    images = check_images(arrays["images"], str(path), field)
    labels = arrays.get("labels")
    if labels is None:
        return images, None
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),) or labels.min() < 0:
        requirement = f"labels must be integers of at least 0, one for each of {len(images)} images"
        raise InputError(field, str(path), requirement)
    return images, labels.astype(np.int32)


def read_arrays(
    path: str | Path, keys: tuple[str, ...], field: str = "data.path"
) -> dict[str, np.ndarray]:
    """Reads arrays from an ``.npz`` without executing anything in it.

    Args:
        path: The file.
        keys: The names of the arrays to read. Names that the file does not have are skipped.
        field: The field that an error names.

    Returns:
        The arrays by name.

    Raises:
        InputError: The file is missing, damaged or no ``.npz``, or an array holds objects.
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
            requirement = "must hold numbers only; objects are pickles, which can execute code"
        else:
            requirement = f"must be a complete .npz ({error})"
        raise InputError(field, str(path), requirement) from error


def check_images(images: np.ndarray, name: str, field: str = "data.path") -> np.ndarray:
    """Checks that an array holds images, and adds the channel axis to grey images without one.

    Args:
        images: Images, uint8 `[n, h, w, c]` with c of 1 or 3, or `[n, h, w]`.
        name: The file that the images come from, which an error shows as the value.
        field: The field that an error names.

    Returns:
        Images, uint8 `[n, h, w, c]`.

    Raises:
        InputError: The dtype or the shape is another one, there is no image, or a value is not
            finite.
    """
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        first = np.argwhere(~np.isfinite(images))[0].tolist()
        raise InputError(field, name, f"images must be finite; NaN or infinity at {first}")
    if images.dtype != np.uint8:
        requirement = (
            f"images must be uint8 in 0..255, not {images.dtype}; "
            "reprojax.data.transform.to_uint8 converts floats in [-1, 1]"
        )
        raise InputError(field, name, requirement)
    shape = images.shape
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in CHANNELS or not images.size:
        requirement = f"images must be [n, h, w, c] with c of 1 or 3, or [n, h, w], not {shape}"
        raise InputError(field, name, requirement)
    return images


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Returns a sort key that puts 2 before 10. Names with equal numbers are ordered as text."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def read_images(
    path: str | Path, layout: Layout | None = None, field: str = "data.path"
) -> np.ndarray:
    """Reads all pictures of a folder and its subfolders, or of a zip, in natural order.

    Args:
        path: The folder or zip. Hidden files and files without the suffix of a picture are skipped.
        layout: The layout that each picture is brought to; that of the pictures by default.
            Transparency is dropped.
        field: The field that an error names.

    Returns:
        Images, uint8 `[n, h, w, c]`.

    Raises:
        InputError: The path is missing or holds no picture, a picture cannot be read, or the
            pictures have different shapes.
    """
    path, layout = Path(path).expanduser(), layout or Layout()
    with _open_files(path, field) as (names, read):
        names = sorted(filter(_is_picture, names), key=natural_key)
        if not names:
            requirement = f"must hold at least one picture ({', '.join(SUFFIXES)})"
            raise InputError(field, str(path), requirement)
        for i, name in enumerate(names):
            image = layout.image(_decode(read, name, path, field))
            if i == 0:
                images = np.empty((len(names), *image.shape), np.uint8)
            elif image.shape != images.shape[1:]:
                requirement = (
                    f"has the shape {image.shape}, the first picture {images.shape[1:]}; set "
                    "data.size and data.channels"
                )
                raise InputError(field, f"{path}/{name}", requirement)
            images[i] = image
    return images


@contextmanager
def _open_files(path: Path, field: str) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """Yields the names of the files in a folder or zip, and a function that reads one of them."""
    if path.is_dir():
        files = [Path(root, name) for root, _, names in os.walk(path) for name in names]
        names = [file.relative_to(path).as_posix() for file in files]
        yield names, lambda name: (path / name).read_bytes()
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        requirement = f"must be a folder or zip of pictures ({error})"
        raise InputError(field, str(path), requirement) from error
    with archive:
        yield archive.namelist(), archive.read


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _decode(read: Callable[[str], bytes], name: str, path: Path, field: str) -> np.ndarray:
    """Reads and decodes a picture, uint8 `[h, w, c]`."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(read(name))) as picture:
            if picture.mode not in MODES:
                raise ValueError(f"mode {picture.mode}, not 8 bits per channel")
            pixels = np.asarray(picture.convert(MODES[picture.mode]))
    except Exception as error:  # a decoder can raise nearly any error on a damaged picture
        requirement = f"must be a complete picture ({error})"
        raise InputError(field, f"{path}/{name}", requirement) from error
    return pixels.reshape(*pixels.shape[:2], -1)
