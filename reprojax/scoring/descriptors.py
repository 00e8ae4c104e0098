"""Descriptors: functions from images to unit feature rows, compared by cosine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from reprojax.errors import InputError, require_choice

ROWS = 4096  # images described at a time: bounds the float32 intermediates
UNIT_TOLERANCE = 1e-5  # how far from 1 the norm of a unit row may be by float32 rounding


class Descriptor(Protocol):
    """A frozen map from images to features whose dot product is a similarity."""

    name: str
    tau: float | None  # its published threshold, or None: calibrated on the training set

    def identity(self) -> str:
        """A hash of all that its features depend on: weights, or what it was fitted to."""
        ...

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Describes uint8 images `[n, h, w, c]` as float32 `[n, d]`, rows of length 1 (or 0)."""
        ...


class PixelDescriptor:
    """The image itself, less the mean image of the training set, at unit length.

    Without the mean all images look alike, since they share their brightness; with it a random
    pair has a cosine near 0.

    Args:
        mean: float `[h, w, c]` on the 0-255 scale.
    """

    name = "pixels"
    tau = None

    def __init__(self, mean: np.ndarray):
        self.mean = np.asarray(mean, np.float32)

    @classmethod
    def fit(cls, image_blocks: Iterable[np.ndarray]) -> PixelDescriptor:
        """The descriptor of a training set given as blocks of uint8 `[b, h, w, c]`, one at a time.

        Raises:
            InputError: there is no image, or the blocks differ in image shape.
        """
        total, count = None, 0
        for block in image_blocks:
            block_sum = block.sum(axis=0, dtype=np.float64)  # exact: integers below 2**53
            if total is not None and total.shape != block_sum.shape:
                raise InputError("images", block.shape[1:], f"all of shape {total.shape}")
            total = block_sum if total is None else total + block_sum
            count += len(block)
        if not count:
            raise InputError("images", "an empty set", "at least 1 image to take the mean of")
        return cls(total / count)

    def identity(self) -> str:
        """See Descriptor."""
        return hashlib.sha256(self.mean.tobytes()).hexdigest()[:16]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Describes uint8 `[n, h, w, c]` as float32 `[n, h*w*c]`; an image equal to the mean is 0.

        Raises:
            InputError: the images' shape is not the mean's.
        """
        if images.shape[1:] != self.mean.shape:
            raise InputError("images", images.shape[1:], f"of shape {self.mean.shape}, as the mean")
        features = np.empty((len(images), self.mean.size), np.float32)
        for start in range(0, len(images), ROWS):
            block = images[start : start + ROWS].astype(np.float32) - self.mean
            features[start : start + ROWS] = unit_rows(block.reshape(len(block), -1))
        return features


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Scales the rows of float32 `[n, d]` to length 1.

    A row of zeros stays zero, and a row that is of length 1 already (within 1e-5) keeps its bits,
    so that features made elsewhere score as they would there.
    """
    norms = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    keep = (norms == 0) | (np.abs(norms - 1) <= UNIT_TOLERANCE)
    return (features / np.where(keep, 1.0, norms)[:, None]).astype(np.float32)


DESCRIPTORS: dict[str, type[PixelDescriptor]] = {PixelDescriptor.name: PixelDescriptor}


def descriptor_class(name: str) -> type[PixelDescriptor]:
    """The descriptor of that name; an unknown one is an InputError on ``scoring.descriptor``."""
    require_choice("scoring.descriptor", name, DESCRIPTORS)
    return DESCRIPTORS[name]
