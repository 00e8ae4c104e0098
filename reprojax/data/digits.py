"""The handwritten digits that scikit-learn's wheel contains (1,797 at 8x8, 10 classes)."""

from __future__ import annotations

import numpy as np

WHITE = 16  # the largest pixel value of the data set


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Reads the digits from scikit-learn.

    Returns:
        Images, uint8 `[1797, 8, 8, 1]` (0..16 scaled to 0..255), and labels, int32 `[1797]`.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / WHITE)).astype(np.uint8)
    return images[..., None], digits.target.astype(np.int32)
