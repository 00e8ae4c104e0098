"""Descriptors, functions from images to feature rows of length 1, which are compared by cosine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from reprojax.errors import InputError, require_choice

ROWS = 4096  # images described at a time, which bounds the memory of float32 intermediates
UNIT_TOLERANCE = 1e-5  # the largest deviation from norm 1 that float32 rounding explains


class Descriptor(Protocol):
    """A fixed map from images to features whose dot product is a similarity."""

    name: str
    tau: float | None  # its published threshold, or None to calibrate one on the training set

    def identity(self) -> str:
        """Returns a hash of all that the features depend on: weights, or the images of the fit."""
        ...

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Describes uint8 images `[n, h, w, c]` as float32 `[n, d]`, rows of length 1 (or 0)."""
        ...


class PixelDescriptor:
    """The image itself minus the mean image of the training set, scaled to length 1.

    Without the mean all images would be similar, since they share their brightness. With it a
    random pair has a cosine near 0.

    Args:
        mean: The mean image, float `[h, w, c]` on the 0-255 scale.
    """

    name = "pixels"
    tau = None

    def __init__(self, mean: np.ndarray):
        self.mean = np.asarray(mean, np.float32)

    @classmethod
    def fit(cls, image_blocks: Iterable[np.ndarray]) -> PixelDescriptor:
        """Fits the descriptor to a training set.

        Args:
            image_blocks: The images as blocks of uint8 `[b, h, w, c]`, read one at a time.

        Raises:
            InputError: There is no image, or the blocks differ in image shape.
        """
        total, count = None, 0
        for block in image_blocks:
            block_sum = block.sum(axis=0, dtype=np.float64)  # exact: integers below 2**53
            if total is not None and total.shape != block_sum.shape:
                shapes = f"{total.shape} and {block.shape[1:]}"
                raise InputError("images", None, f"must all have the same shape, not {shapes}")
            total = block_sum if total is None else total + block_sum
            count += len(block)
        if not count:
            raise InputError("images", None, "must have at least 1 image to take the mean of")
        return cls(total / count)

    def identity(self) -> str:
        """Returns a hash of the mean image."""
        return hashlib.sha256(self.mean.tobytes()).hexdigest()[:16]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Describes uint8 `[n, h, w, c]` as float32 `[n, h*w*c]`; an image equal to the mean is 0.

        Raises:
            InputError: The images do not have the shape of the mean image.
        """
        if images.shape[1:] != self.mean.shape:
            shapes = f"{self.mean.shape}, as the mean image, not {images.shape[1:]}"
            raise InputError("images", None, f"must have shape {shapes}")
        features = np.empty((len(images), self.mean.size), np.float32)
        for start in range(0, len(images), ROWS):
            block = images[start : start + ROWS].astype(np.float32) - self.mean
            features[start : start + ROWS] = unit_rows(block.reshape(len(block), -1))
        return features


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Scales the rows of float32 `[n, d]` to length 1.

    A row of zeros stays zero. A row that has length 1 already (within 1e-5) keeps its bits, so that
    unit features from elsewhere are scored unchanged.
    """
    norms = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    keep = (norms == 0) | (np.abs(norms - 1) <= UNIT_TOLERANCE)
    return (features / np.where(keep, 1.0, norms)[:, None]).astype(np.float32)


class DescriptorKind(NamedTuple):
    """A kind of descriptor, and how one is made.

    Attributes:
        make: From (file, blocks of training images) to a descriptor.
        takes_file: Whether its name is followed by a colon and a file of weights.
    """

    make: Callable[[str, Iterable[np.ndarray]], Descriptor]
    takes_file: bool = False


def _fit_pixels(file: str, blocks: Iterable[np.ndarray]) -> Descriptor:
    return PixelDescriptor.fit(blocks)


DESCRIPTORS: dict[str, DescriptorKind] = {"pixels": DescriptorKind(_fit_pixels)}


def check_descriptor(text: str, field: str = "scoring.descriptor") -> tuple[DescriptorKind, str]:
    """Returns the kind of a descriptor and its file, from ``NAME`` or ``NAME:FILE``.

    Raises:
        InputError: The name is unknown, or a file is missing or too many.
    """
    name, _, file = text.partition(":")
    require_choice(field, name, DESCRIPTORS)
    kind = DESCRIPTORS[name]
    if bool(file) != kind.takes_file:
        form = f"{name}:FILE" if kind.takes_file else name
        raise InputError(field, text, f"must be {form}")
    if file and not Path(file).is_file():
        raise InputError(field, text, "must name a file that exists")
    return kind, file


def descriptor_identity(text: str) -> str:
    """Returns what a study's identity has of a descriptor: the file's content, not its path."""
    name, _, file = text.partition(":")
    return f"{name}:{hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]}" if file else text


def make_descriptor(text: str, blocks: Iterable[np.ndarray]) -> Descriptor:
    """Makes a descriptor.

    Args:
        text: ``NAME``, or ``NAME:FILE`` for a descriptor with weights.
        blocks: The training images, uint8 `[b, h, w, c]`, one block at a time, for descriptors
            that are fitted.
    """
    kind, file = check_descriptor(text)
    return kind.make(file, blocks)
