"""The condition bank: the condition of each noise of the noise bank, for conditional models."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from reprojax.errors import InputError


@dataclass(frozen=True, eq=False)
class ConditionBank:
    """A set of conditions: condition i belongs to noise i, for every model.

    Attributes:
        values: A pytree of host arrays with leading axis n: class labels, int32 `[n]`. A
            `DenoiseFn` takes such a pytree as ``cond``, one row for each image.
        num_classes: The number of classes.
    """

    values: Any
    num_classes: int = 0

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.values)[0])

    def block(self, start: int, stop: int) -> Any:
        """Returns the conditions start to stop - 1, a pytree with leading axis stop - start."""
        return jax.tree.map(lambda a: a[start:stop], self.values)

    def first(self, n: int) -> ConditionBank:
        """Returns the bank of the first ``n`` conditions, or of all where there are fewer."""
        return replace(self, values=self.block(0, n))

    def groups(self) -> np.ndarray:
        """Returns int64 `[n]`, equal where two noises have the same condition."""
        rows = [
            np.ascontiguousarray(a).reshape(len(self), -1) for a in jax.tree.leaves(self.values)
        ]
        table = np.concatenate([row.view(np.uint8).reshape(len(self), -1) for row in rows], axis=1)
        return np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)

    def fingerprint(self) -> str:
        """Returns a hash of structure, shapes, dtypes and values, 16 hex digits."""
        leaves, structure = jax.tree.flatten(self.values)
        digest = hashlib.sha256(str(structure).encode())
        for leaf in leaves:
            digest.update(f"{leaf.dtype.str} {leaf.shape}".encode())
            digest.update(np.ascontiguousarray(leaf))
        return digest.hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """Returns what ``scores.json`` records of the bank."""
        facts = {"fingerprint": self.fingerprint(), "n": len(self)}
        return facts | {"kind": "labels", "num_classes": self.num_classes}


def class_conditions(n: int, num_classes: int) -> ConditionBank:
    """Returns the labels 0, 1, …, num_classes - 1, 0, … for ``n`` noises."""
    return ConditionBank(np.arange(n, dtype=np.int32) % num_classes, num_classes)


def image_conditions(labels: np.ndarray | None, num_classes: int) -> ConditionBank:
    """Returns the conditions of real images, for encoding and denoising them.

    Args:
        labels: The class labels of the images, int `[n]`, or None.
        num_classes: The number of classes.

    Raises:
        InputError: There are no labels.
    """
    if labels is None:
        raise InputError("images", None, "must have labels, since a model is conditional")
    return ConditionBank(np.asarray(labels, np.int32), num_classes)
