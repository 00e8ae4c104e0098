"""Samples and real images made elsewhere: an ``.npz`` of images or features, a folder, a zip."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reprojax.data.source import SourceSpec, open_source
from reprojax.errors import InputError
from reprojax.scoring.descriptors import unit_rows
from reprojax.scoring.scores import GIVEN_FEATURES
from reprojax.scoring.thresholds import PAPER_TAU


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The content of one path.

    Attributes:
        field: The option or config field that named the path.
        images: uint8 `[n, h, w, c]`, or None.
        features: float32 `[n, d]`, rows of length 1, or None.
    """

    field: str
    images: np.ndarray | None = None
    features: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.features if self.features is not None else self.images)

    @property
    def hash(self) -> str:
        """16 hex digits of the SHA-256 of the arrays: the same for a folder and its zip."""
        digest = hashlib.sha256()
        for array in (self.images, self.features):
            if array is not None:
                digest.update(f"{array.dtype.str} {array.shape} ".encode())
                digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()[:16]


class GivenFeatures:
    """Features that came with the samples, in place of a descriptor."""

    name = GIVEN_FEATURES
    tau = PAPER_TAU

    def identity(self) -> str:
        """See `Descriptor`."""
        return GIVEN_FEATURES

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Raises TypeError: nothing can be described."""
        raise TypeError("features that are given describe no other images")


def read_image_set(field: str, path: str | Path) -> ImageSet:
    """Reads a set of images or of features.

    Args:
        field: The option or config field that names the path.
        path: An ``.npz`` with ``images`` (uint8 `[n, h, w, c]` or `[n, h, w]`), with ``features``
            (float32 `[n, d]`) or with both; a folder of images, read recursively with 2 before 10;
            or a zip of one.

    Raises:
        InputError: The path cannot be read, or it does not hold one of these.
    """
    path = str(path)
    names = npz_names(field, path) if path.endswith(".npz") else ["images"]
    if not {"images", "features"} & set(names):
        raise InputError(field, path, f"must be an .npz with `images` or `features`, not {names}")
    images = _read_images(field, path) if "images" in names else None
    features = _read_features(field, path) if "features" in names else None
    if images is not None and features is not None and len(images) != len(features):
        counts = f"has {len(images)} images and {len(features)} features"
        raise InputError(field, path, f"{counts}; must have one row of features for each image")
    result = ImageSet(field, images, features)
    if not len(result):
        raise InputError(field, path, "must not be empty")
    return result


def _read_features(field: str, path: str) -> np.ndarray:
    features = npz_array(field, path, "features")
    if features.dtype != np.float32 or features.ndim != 2 or not features.shape[1]:
        kind = f"{features.dtype} {list(features.shape)}"
        raise InputError(field, path, f"has features {kind}; must have float32 [n, d]")
    if not np.isfinite(features).all():
        raise InputError(field, path, "must have features without NaN or infinity")
    return unit_rows(features)


def _read_images(field: str, path: str) -> np.ndarray:
    kind = "npz" if path.endswith(".npz") else "folder"
    try:
        source = open_source(SourceSpec(name=kind, path=path))
        return np.asarray(source.gather(np.arange(len(source))))
    except InputError as error:  # name the option, which is what the user can change
        raise InputError(field, error.value, error.requirement) from error


def npz_names(field: str, path: str) -> list[str]:
    """Returns the names of the arrays in an ``.npz``; raises InputError if it is unreadable."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return sorted(arrays.files)
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(field, path, "must be an .npz file that can be read") from error


def npz_array(field: str, path: str, name: str) -> np.ndarray:
    """Returns one array of an ``.npz``; raises InputError if it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[name]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(field, path, f"must be an .npz file with a readable `{name}`") from error
