"""Shapes of arrays that meet images."""

from __future__ import annotations

import jax


def expand(a: jax.Array, ndim: int) -> jax.Array:
    """Appends unit axes to an array, so that a value per image can multiply images.

    Args:
        a: An array of at most ``ndim`` axes, e.g. noise levels `[b]`.
        ndim: The number of axes of the result, e.g. 4 for images `[b, h, w, c]`.

    Returns:
        The values of ``a`` with the shape `[..., 1, ..., 1]`.
    """
    return a.reshape(a.shape + (1,) * (ndim - a.ndim))
