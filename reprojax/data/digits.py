"""scikit-learn's handwritten digits, which come inside its wheel (1,797 at 8x8, 10 classes)."""

from __future__ import annotations

import numpy as np

WHITE = 16  # the data set's own maximum


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Reads the digits.

    Returns:
        Images, uint8 `[1797, 8, 8, 1]` (0..16 stretched to 0..255), and labels, int32 `[1797]`.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / WHITE)).astype(np.uint8)
    return images[..., None], digits.target.astype(np.int32)
