"""Random-access image sources, and the one table of where they can come from."""

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
    """Which images, and in what layout.

    Attributes:
        name: a key of `SOURCES`.
        path: file or folder; for ``tfds`` its data_dir; for ``samples`` an ``.npz`` of what a
            model drew, so that one model can teach another.
        dataset: the TFDS name (``"cifar10"``, ``"celeb_a"``, ``"lsun/bedroom"``); for ``mixture``
            KxR (``"8x4"``): 60,000 draws from K smooth Gaussians of rank R, whose population
            denoiser is known (`reprojax.data.mixture`). Its labels are the components, and its
            native layout is 8x8 with 1 channel.
        split: ``"train"``, ``"test"`` or ``"all"`` where there is a choice; any TFDS split.
        size: side of the square in pixels, 0 for native.
        channels: 1, 3, or 0 for native.
        fit: ``"resize"`` or ``"pad"``, see `Layout`.
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
        shape: (h, w, c).
        labels: class labels, int32 `[n]`, or None.
    """

    shape: tuple[int, int, int]
    labels: np.ndarray | None

    def __len__(self) -> int:
        """The number of images."""
        ...

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Reads the images at ``indices``, int64 `[b]`, as uint8 `[b, h, w, c]`."""
        ...

    def fingerprint(self, indices: np.ndarray) -> str:
        """A sha256 in hex that tells the images at ``indices``, int64 `[b]`, from any others."""
        ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Images in memory.

    Attributes:
        images: uint8 `[n, h, w, c]`.
        labels: int32 `[n]`, or None.
    """

    images: np.ndarray
    labels: np.ndarray | None = None

    def __post_init__(self):
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"uint8 [n, h, w, c], not {self.images.dtype} {self.images.shape}")
        if self.labels is not None and self.labels.shape != (len(self.images),):
            raise ValueError(f"{len(self.images)} images, but labels {self.labels.shape}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """The (h, w, c) of every image."""
        return self.images.shape[1:]

    def __len__(self) -> int:
        return len(self.images)

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Copies the images at ``indices``, int64 `[b]`, as uint8 `[b, h, w, c]`."""
        return self.images[indices]

    def fingerprint(self, indices: np.ndarray) -> str:
        """Sha256 over the shape and the pixels at ``indices``, int64 `[b]`."""
        digest = hashlib.sha256(repr((len(indices), *map(int, self.shape))).encode())
        for start in range(0, len(indices), 4096):  # bounds the copy
            digest.update(self.gather(indices[start : start + 4096]).tobytes())
        return digest.hexdigest()


def open_source(spec: SourceSpec) -> ImageSource:
    """Opens the images that ``spec`` describes.

    Raises:
        InputError: a field of ``spec`` is wrong, or the data is missing or damaged; the message
            says which and what to do.
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
        raise InputError("data.dataset", "an empty name", "the name of a TFDS data set")
    return TfdsSource(spec.dataset, spec.split, spec.path, spec.layout)


def _require_whole(spec: SourceSpec) -> None:
    """Refuses a split where the files know of none."""
    require_choice("data.split", spec.split, ("train", "all"))


def _require_path(spec: SourceSpec) -> str:
    if not spec.path:
        raise InputError("data.path", "an empty path", f"the path of the {spec.name} to read")
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
