"""The Karras spacing of noise levels at any place between its ends, for traced step counts."""

from __future__ import annotations

import jax
import jax.numpy as jnp

RHO = 7.0  # arXiv 2206.00364, section 3


def karras_level(u: jax.Array, low: float, high: float, rho: float) -> jax.Array:
    """The level at a place between high (u = 0) and low (u = 1) (arXiv 2206.00364, eq. 5).

    Args:
        u: any shape, in [0, 1]; a NumPy array gives one.
        low: level at u = 1, data units.
        high: level at u = 0.
        rho: exponent; the level's power 1 / rho is linear in u.

    Returns:
        Of the shape of ``u``.
    """
    top, bottom = high ** (1 / rho), low ** (1 / rho)
    return (top + u * (bottom - top)) ** rho


def karras_place(sigma: jax.Array, low: float, high: float, rho: float) -> jax.Array:
    """The inverse of `karras_level`, of the shape of ``sigma``."""
    top, bottom = high ** (1 / rho), low ** (1 / rho)
    return (jnp.asarray(sigma) ** (1 / rho) - top) / (bottom - top)
