"""Training sets that nest and parts that share nothing, from one seeded permutation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reprojax.data.source import ImageSource
from reprojax.errors import InputError, require_choice
from reprojax.rng import host_permutation

# Which of the pool's positions a part takes.
PARTS = {"all": slice(None), "A": slice(0, None, 2), "B": slice(1, None, 2)}
# Cosines this near the threshold are taken again in float64: float32 sums differ between machines.
NEAR = 1e-5


@dataclass(frozen=True, eq=False)
class Subset:
    """Some images of a source, in an order.

    Attributes:
        source: where they are.
        indices: int64 `[n]`, their places there.
    """

    source: ImageSource
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The (h, w, c) of every image."""
        return self.source.shape

    def images(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Reads positions ``start`` to ``stop`` of this subset, uint8 `[b, h, w, c]`."""
        return self.source.gather(self.indices[start:stop])

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Reads the given positions of this subset, int64 `[b]`, as uint8 `[b, h, w, c]`."""
        return self.source.gather(self.indices[positions])

    def cycle(self, count: int) -> np.ndarray:
        """Positions int64 `[count]`: the first ones, from the start again where there are fewer."""
        return np.arange(count) % len(self)

    @property
    def labels(self) -> np.ndarray | None:
        """Class labels, int32 `[n]`, or None."""
        labels = self.source.labels
        return None if labels is None else labels[self.indices]

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 in hex that tells these images, in this order, from any others."""
        return self.source.fingerprint(self.indices)


@dataclass(frozen=True, eq=False)
class Split:
    """What a model is trained on, and real images that no model of the study has seen."""

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
    """Draws a training and a held-out set.

    The source is permuted once. Held out are the last ``n_heldout``, whatever ``n_train`` is; the
    rest is the pool, of which part A has the even and part B the odd positions. Training sets are
    its first ``n_train``, so a smaller one lies within a larger one, and those of A and B share
    nothing.

    Args:
        source: the images.
        n_train: at least 1; or 0 for the whole pool (or part of it).
        n_heldout: at least 0; less than the source has.
        seed: of the permutation.
        part: ``"all"``, ``"A"`` or ``"B"``.
        dedup: drop near-duplicates (see `near_duplicates`) first; reads the whole source.

    Raises:
        InputError: an unknown part, or more images asked for than there are.
    """
    require_choice("data.part", part, PARTS)
    order = host_permutation(seed, "data/subset", 0, len(source))
    if dedup:
        keep = near_duplicates(source.gather(np.arange(len(source))))
        order = order[keep[order]]
    n = len(order)
    if not 0 <= n_heldout < n:
        raise InputError("data.n_heldout", n_heldout, f"0 to {n - 1}: the set has {n} images")
    pool = order[: n - n_heldout][PARTS[part]]
    if not 0 <= n_train <= len(pool) or not len(pool):
        has = f"the set has {n} images{' once near-duplicates are dropped' if dedup else ''}"
        of_part = "" if part == "all" else f", part {part} is half of the rest"
        raise InputError(
            "data.n_train",
            n_train,
            f"at most {len(pool)}: {has}, {n_heldout} are held out{of_part} (0 means all)",
        )
    heldout = Subset(source, order[n - n_heldout :]) if n_heldout else None
    return Split(Subset(source, pool[: n_train or None]), heldout)


def near_duplicates(
    images: np.ndarray, threshold: float = 0.95, block_size: int = 2048
) -> np.ndarray:
    """Finds the images that are not nearly the same as an earlier one.

    An image is dropped if its cosine to an earlier image that was kept exceeds ``threshold``, both
    as pixels less the set's mean image. (One that equals the mean has no direction, and stays.)

    Args:
        images: uint8 `[n, h, w, c]`.
        threshold: cosine, in (0, 1).
        block_size: images compared at a time; bounds the memory and does not change the result.

    Returns:
        bool `[n]`, True for the images to keep.
    """
    n = len(images)
    pixels = images.reshape(n, -1)
    mean = pixels.sum(axis=0, dtype=np.int64) / max(n, 1)
    keep = np.ones(n, bool)
    for start in range(0, n, block_size):
        rows = np.arange(start, min(start + block_size, n))
        unit = _directions(pixels[rows], mean)
        for before in range(0, start, block_size):
            kept = before + np.flatnonzero(keep[before : before + block_size])
            alike = _alike(unit, _directions(pixels[kept], mean), threshold)
            keep[rows] &= ~alike.any(axis=1)
        alike = np.triu(_alike(unit, unit, threshold), k=1)
        for i in np.flatnonzero(alike.any(axis=1)):  # in order: a dropped image drops no other
            if keep[start + i]:
                keep[rows[alike[i]]] = False
    return keep


def _directions(pixels: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Unit vectors, float64 `[n, d]`, of pixels less the mean; zero where nothing is left."""
    centred = pixels - mean
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)


def _alike(a: np.ndarray, b: np.ndarray, threshold: float) -> np.ndarray:
    """Whether the cosine of unit vectors `[n, d]` and `[m, d]` exceeds ``threshold``, `[n, m]`."""
    cosine = a.astype(np.float32) @ b.astype(np.float32).T
    alike = cosine > threshold
    i, j = np.nonzero(np.abs(cosine - threshold) < NEAR)
    alike[i, j] = np.einsum("kd,kd->k", a[i], b[j]) > threshold
    return alike
