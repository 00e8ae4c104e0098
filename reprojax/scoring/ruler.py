"""Comparing two sets of samples with the descriptor and the threshold of a study."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from reprojax.data.transform import to_uint8
from reprojax.sampling.conditions import ConditionBank
from reprojax.scoring.chance import chance_within, shared_groups
from reprojax.scoring.descriptors import Descriptor
from reprojax.scoring.pairs import mae_score, rp, rp_chance
from reprojax.scoring.stats import wilson


@dataclass(frozen=True)
class Ruler:
    """The study's descriptor and RP threshold."""

    descriptor: Descriptor
    tau: float

    def agreement(
        self, a: np.ndarray, b: np.ndarray, conditions: ConditionBank | None = None
    ) -> dict[str, Any]:
        """Returns RP of two sets of features with its interval and its chance.

        Args:
            a: The features of one model's images, float32 `[n, d]`, rows of length 1.
            b: The features of another model's images, float32 `[n, d]`. Row i comes from the same
                noise as row i of ``a``.
            conditions: The conditions of the rows if both models are conditional, else None. With
                conditions, chance is measured between noises of the same condition.
        """
        value, n = rp(a, b, self.tau), len(a)
        groups = None if conditions is None else conditions.first(n).groups()
        groups = shared_groups(groups, groups)
        chance = chance_within(partial(rp_chance, tau=self.tau), a, b, groups)
        interval = list(wilson(round(value * n), n))
        return {"rp": value, "ci95": interval, "chance": float(chance), "n": n}

    def compare(
        self, a: np.ndarray, b: np.ndarray, conditions: ConditionBank | None = None
    ) -> dict[str, Any]:
        """Returns RP with interval and chance, MAE score and PFD of two sets of images.

        Args:
            a: The images of one model, float32 `[n, h, w, c]`, about [-1, 1].
            b: The images of another model or sampler, of the same shape. Row i comes from the same
                noise (or image) as row i of ``a``.
            conditions: See `agreement`.
        """
        pixels = to_uint8(a), to_uint8(b)
        row = self.agreement(*(self.descriptor(p) for p in pixels), conditions)
        del row["n"]
        return {**row, "mae": mae_score(*pixels), "pfd": grey_rms(a, b)}


def grey_rms(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the root mean square difference of two sets of images on the 0-255 scale."""
    return float(127.5 * np.sqrt(np.mean((a.astype(np.float64) - b) ** 2)))
