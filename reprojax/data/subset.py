"""Nested training sets, disjoint parts and held-out sets, all from one seeded permutation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reprojax.data.source import ImageSource, SourceSpec
from reprojax.errors import InputError, require_choice, require_seed
from reprojax.rng import host_permutation

# The positions in the pool that belong to each part.
PARTS = {"all": slice(None), "A": slice(0, None, 2), "B": slice(1, None, 2)}
# Cosines so near to the threshold are computed again in float64, because float32 sums differ
# between machines.
NEAR = 1e-5

BLOCK = 4096  # images that are read at a time


@dataclass(frozen=True, eq=False)
class Subset:
    """An ordered selection of images of a source.

    Attributes:
        source: The source of the images.
        indices: The indices of the images in the source, int64 `[n]`.
    """

    source: ImageSource
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (h, w, c) of every image."""
        return self.source.shape

    def images(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Reads positions ``start`` to ``stop`` of this subset, uint8 `[b, h, w, c]`."""
        return self.source.gather(self.indices[start:stop])

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Reads the images at these positions, int64 `[b]`, as uint8 `[b, h, w, c]`."""
        return self.source.gather(self.indices[positions])

    def blocks(self, size: int = BLOCK) -> Iterator[np.ndarray]:
        """Yields all images in order, uint8 `[<= size, h, w, c]` at a time."""
        for start in range(0, len(self), size):
            yield self.images(start, min(start + size, len(self)))

    def cycle(self, count: int) -> np.ndarray:
        """Returns the first ``count`` positions, int64, starting again at 0 after the last."""
        return np.arange(count) % len(self)

    @property
    def labels(self) -> np.ndarray | None:
        """The class labels, int32 `[n]`, or None."""
        labels = self.source.labels
        return None if labels is None else labels[self.indices]

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256 in hex that identifies these images in this order."""
        return self.source.fingerprint(self.indices)


@dataclass(frozen=True)
class DataSpec:
    """Images of a study and how they are divided.

    Attributes:
        source: Where they come from.
        n_train: The number of training images, 0 for all that are not held out.
        n_heldout: The number of held-out images.
        seed: The seed of the permutation behind subsets.
        part: "all", or the disjoint halves "A" and "B".
        dedup: Whether near-duplicates are removed first.
    """

    source: SourceSpec
    n_train: int = 0
    n_heldout: int = 0
    seed: int = 0
    part: str = "all"
    dedup: bool = False

    def __post_init__(self):
        require_seed("data.seed", self.seed)


@dataclass(frozen=True, eq=False)
class Split:
    """A model's training set, and real images that no model of the study is trained on.

    Attributes:
        train: The training set.
        heldout: The held-out set, or None if it is empty.
    """

    train: Subset
    heldout: Subset | None


def split(
    source: ImageSource,
    *,
    n_train: int,
    n_heldout: int,
    seed: int,
    part: str = "all",
    dedup: bool = False,
) -> Split:
    """Draws a training set and a held-out set.

    The source is permuted once. The last ``n_heldout`` images are held out, whatever ``n_train``
    is. The rest is the pool; part A consists of its even positions and part B of its odd ones. A
    training set is the first ``n_train`` images of the pool or part. A smaller training set is
    therefore part of a larger one, and training sets from A and B share no image.

    Args:
        source: The images to draw from.
        n_train: The size of the training set; 0 takes the whole pool or part.
        n_heldout: The size of the held-out set, at least 0 and less than the source's.
        seed: The seed of the permutation.
        part: The part of the pool to train on, ``"all"``, ``"A"`` or ``"B"``.
        dedup: Whether to drop near-duplicates first (see `near_duplicates`), for which the whole
            source is read.

    Raises:
        InputError: The part is unknown, or the source has too few images.
    """
    require_choice("data.part", part, PARTS)
    order = host_permutation(seed, "data/subset", 0, len(source))
    if dedup:
        keep = near_duplicates(source.gather(np.arange(len(source))))
        order = order[keep[order]]
    n = len(order)
    if not 0 <= n_heldout < n:
        requirement = f"must be from 0 to {n - 1}, because the set has {n} images"
        raise InputError("data.n_heldout", n_heldout, requirement)
    pool = order[: n - n_heldout][PARTS[part]]
    if not 0 <= n_train <= len(pool) or not len(pool):
        without = " without near-duplicates" if dedup else ""
        half = "" if part == "all" else f", and part {part} is half of the rest"
        requirement = (
            f"must be at most {len(pool)} (0 takes all): the set has {n} images{without}, "
            f"{n_heldout} are held out{half}"
        )
        raise InputError("data.n_train", n_train, requirement)
    heldout = Subset(source, order[n - n_heldout :]) if n_heldout else None
    return Split(Subset(source, pool[: n_train or None]), heldout)


def near_duplicates(
    images: np.ndarray, threshold: float = 0.95, block_size: int = 2048
) -> np.ndarray:
    """Finds the images that are not nearly equal to an earlier image.

    The mean image of the set is subtracted. An image is dropped if its cosine to an earlier image
    that is kept exceeds ``threshold``. An image that equals the mean has no direction and is kept.

    Args:
        images: Images, uint8 `[n, h, w, c]`.
        threshold: The threshold on the cosine, in (0, 1).
        block_size: The number of images to compare at a time, which bounds the memory and does not
            change the result.

    Returns:
        A mask, bool `[n]`, which is True for the images to keep.
    """
    n = len(images)
    pixels = images.reshape(n, -1)
    mean = pixels.sum(axis=0, dtype=np.int64) / max(n, 1)
    keep = np.ones(n, bool)
    for start in range(0, n, block_size):
        rows = np.arange(start, min(start + block_size, n))
        unit = _directions(pixels[rows], mean)
        for before in range(0, start, block_size):
            earlier = before + np.flatnonzero(keep[before : before + block_size])
            alike = _alike(unit, _directions(pixels[earlier], mean), threshold)
            keep[rows] &= ~alike.any(axis=1)
        alike = np.triu(_alike(unit, unit, threshold), k=1)
        for i in np.flatnonzero(alike.any(axis=1)):  # in order, since a dropped image drops none
            if keep[start + i]:
                keep[rows[alike[i]]] = False
    return keep


def _directions(pixels: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Returns pixels less the mean as unit vectors, float64 `[n, d]`; 0 if they equal the mean."""
    centred = pixels - mean
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)


def _alike(a: np.ndarray, b: np.ndarray, threshold: float) -> np.ndarray:
    """Returns a mask `[n, m]` of the unit vectors whose cosine exceeds ``threshold``."""
    cosine = a.astype(np.float32) @ b.astype(np.float32).T
    alike = cosine > threshold
    i, j = np.nonzero(np.abs(cosine - threshold) < NEAR)
    alike[i, j] = np.einsum("kd,kd->k", a[i], b[j]) > threshold
    return alike
