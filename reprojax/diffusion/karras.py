"""The Karras spacing of noise levels as a function, so that the number of levels may be traced."""

from __future__ import annotations

import jax
import jax.numpy as jnp

RHO = 7.0  # arXiv 2206.00364, section 3


def karras_level(u: jax.Array, low: float, high: float, rho: float) -> jax.Array:
    """Returns the noise level at a place between two levels (arXiv 2206.00364, eq. 5).

    sigma^(1 / rho) is linear in the place u.

    Args:
        u: Places in [0, 1], of any shape.
        low: The level at u = 1, in data units.
        high: The level at u = 0, in data units.
        rho: The exponent.

    Returns:
        Levels of the shape of ``u``, a NumPy array if ``u`` is one.
    """
    top, bottom = high ** (1 / rho), low ** (1 / rho)
    return (top + u * (bottom - top)) ** rho


def karras_place(sigma: jax.Array, low: float, high: float, rho: float) -> jax.Array:
    """Returns the places of levels ``sigma`` of any shape: the inverse of `karras_level`."""
    top, bottom = high ** (1 / rho), low ** (1 / rho)
    return (jnp.asarray(sigma) ** (1 / rho) - top) / (bottom - top)
