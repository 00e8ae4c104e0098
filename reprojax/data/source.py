"""Image sources with random access, and the table of all kinds of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from reprojax.data.cifar import read_cifar10
from reprojax.data.digits import read_digits
from reprojax.data.fashion import read_fashion_mnist
from reprojax.data.files import read_images, read_npz
from reprojax.data.mixture import read_mixture
from reprojax.data.tfds_source import TfdsSource
from reprojax.data.transform import Layout
from reprojax.errors import InputError, require_choice


@dataclass(frozen=True)
class SourceSpec:
    """A description of a set of images and of the layout that they are brought to.

    Attributes:
        name: The kind of source, a key of `SOURCES`.
        path: The file or folder to read; for ``tfds`` its data_dir; for ``samples`` an ``.npz`` of
            images that a model drew, so that one model can teach another.
        dataset: The TFDS name (``"cifar10"``, ``"celeb_a"``, ``"lsun/bedroom"``). For ``mixture``
            KxR (``"8x4"``): 60,000 draws from K smooth Gaussians of rank R, whose population
            denoiser has a closed form (`reprojax.data.mixture`). Its labels are the components, and
            its native layout is 8x8 with 1 channel.
        split: ``"train"``, ``"test"`` or ``"all"`` if the source has splits; any split of TFDS.
        size: The side of the square images in pixels, 0 for the native size.
        channels: The number of channels, 1 or 3, or 0 for the native number.
        fit: How images get that size, ``"resize"`` or ``"pad"``; see `Layout`.
    """

    name: str
    path: str = ""
    dataset: str = ""
    split: str = "train"
    size: int = 0
    channels: int = 0
    fit: str = "resize"

    @property
    def layout(self) -> Layout:
        """The layout that the images are brought to."""
        return Layout(self.size, self.channels, self.fit)


class ImageSource(Protocol):
    """A finite, ordered set of images of one shape.

    Attributes:
        shape: The shape (h, w, c) of every image.
        labels: The class labels, int32 `[n]`, or None.
    """

    shape: tuple[int, int, int]
    labels: np.ndarray | None

    def __len__(self) -> int:
        """Returns the number of images."""
        ...

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Reads the images at ``indices``, int64 `[b]`, as uint8 `[b, h, w, c]`."""
        ...

    def fingerprint(self, indices: np.ndarray) -> str:
        """Returns a SHA-256 in hex that identifies the images at ``indices``, int64 `[b]`."""
        ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """An image source in memory.

    Attributes:
        images: The images, uint8 `[n, h, w, c]`.
        labels: The class labels, int32 `[n]`, or None.

    Raises:
        ValueError: The arrays have another dtype or shape.
    """

    images: np.ndarray
    labels: np.ndarray | None = None

    def __post_init__(self):
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            kind = f"{self.images.dtype} {self.images.shape}"
            raise ValueError(f"images must be uint8 [n, h, w, c], not {kind}")
        if self.labels is not None and self.labels.shape != (len(self.images),):
            shape = self.labels.shape
            raise ValueError(f"labels of {len(self.images)} images have the shape {shape}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (h, w, c) of every image."""
        return self.images.shape[1:]

    def __len__(self) -> int:
        return len(self.images)

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Copies the images at ``indices``, int64 `[b]`, as uint8 `[b, h, w, c]`."""
        return self.images[indices]

    def fingerprint(self, indices: np.ndarray) -> str:
        """Returns the SHA-256 of the shape and the pixels at ``indices``, int64 `[b]`."""
        digest = hashlib.sha256(repr((len(indices), *map(int, self.shape))).encode())
        for start in range(0, len(indices), 4096):  # in blocks, to bound the memory of the copy
            digest.update(self.gather(indices[start : start + 4096]).tobytes())
        return digest.hexdigest()


def open_source(spec: SourceSpec) -> ImageSource:
    """Opens the images that ``spec`` describes.

    Args:
        spec: The description of the images.

    Raises:
        InputError: A field of ``spec`` is wrong, or the data is missing or damaged.
    """
    require_choice("data.source", spec.name, SOURCES)
    spec.layout.validate()
    return SOURCES[spec.name](spec)


def _in_memory(spec: SourceSpec, images: np.ndarray, labels: np.ndarray | None) -> ArraySource:
    return ArraySource(spec.layout.images(images), labels)


def _open_digits(spec: SourceSpec) -> ImageSource:
    _require_whole(spec)
    return _in_memory(spec, *read_digits())


def _open_fashion_mnist(spec: SourceSpec) -> ImageSource:
    return _in_memory(spec, *read_fashion_mnist(spec.path, spec.split))


def _open_cifar10(spec: SourceSpec) -> ImageSource:
    return _in_memory(spec, *read_cifar10(spec.path, spec.split))


def _open_npz(spec: SourceSpec) -> ImageSource:
    _require_whole(spec)
    return _in_memory(spec, *read_npz(_require_path(spec)))


def _open_folder(spec: SourceSpec) -> ImageSource:
    _require_whole(spec)
    return ArraySource(read_images(_require_path(spec), spec.layout))


def _open_mixture(spec: SourceSpec) -> ImageSource:
    _require_whole(spec)
    return ArraySource(*read_mixture(spec))


def _open_tfds(spec: SourceSpec) -> ImageSource:
    if not spec.dataset:
        raise InputError("data.dataset", spec.dataset, "must be the name of a TFDS data set")
    return TfdsSource(spec.dataset, spec.split, spec.path, spec.layout)


def _require_whole(spec: SourceSpec) -> None:
    """Raises InputError if the spec names a split, for a source that has none."""
    require_choice("data.split", spec.split, ("train", "all"))


def _require_path(spec: SourceSpec) -> str:
    if not spec.path:
        requirement = f"must be the path that the source {spec.name!r} reads"
        raise InputError("data.path", spec.path, requirement)
    return spec.path


SOURCES: dict[str, Callable[[SourceSpec], ImageSource]] = {
    "digits": _open_digits,
    "fashion_mnist": _open_fashion_mnist,
    "cifar10": _open_cifar10,
    "mixture": _open_mixture,
    "tfds": _open_tfds,
    "npz": _open_npz,
    "folder": _open_folder,
    "samples": _open_npz,
}
