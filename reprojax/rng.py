"""Named random streams: every draw is a function of (seed, name, index) and nothing is carried.

So a resumed run draws what an unbroken one draws, and a new stream moves no other.
"""

from __future__ import annotations

import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np

IMPL = "threefry2x32"


def name_id(name: str) -> int:
    """A 32-bit id of a stream's name, the same in every process (unlike ``hash``)."""
    return zlib.crc32(name.encode())


def root_key(seed: int) -> jax.Array:
    """The typed PRNG key of a seed; the implementation is fixed so that a seed means one thing."""
    return jax.random.key(seed, impl=IMPL)


def stream(root: jax.Array, name: str, index: int | jax.Array = 0) -> jax.Array:
    """The key of a named stream at an index (a step, say).

    Args:
        root: a typed key, from `root_key`.
        name: the stream's name, e.g. ``"train/noise"``.
        index: int or int32 scalar; may be traced.

    Returns:
        fold_in(fold_in(root, crc32(name)), index).
    """
    return jax.random.fold_in(jax.random.fold_in(root, name_id(name)), index)


def host_bits(seed: int, name: str, index: int, n: int) -> np.ndarray:
    """``n`` raw uint64 of a named stream on the host (Philox: the same on every NumPy version)."""
    words = np.random.SeedSequence([seed, name_id(name), index])
    return np.random.Philox(words).random_raw(n)


def host_permutation(seed: int, name: str, index: int, n: int) -> np.ndarray:
    """A permutation of range(n), int64 `[n]`, a function of (seed, name, index) alone."""
    return np.argsort(host_bits(seed, name, index, n), kind="stable")


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal float32 of any shape: the bits of ``jax.random.normal``, drawn flat.

    XLA:CPU takes seconds to compile one threefry draw of several axes, and a tenth of that for a
    flat one; with partitionable threefry both are the same numbers.
    """
    return jax.random.normal(key, (math.prod(shape),), jnp.float32).reshape(shape)


def uniform(key: jax.Array, shape: tuple[int, ...], low: float, high: float) -> jax.Array:
    """Uniform float32 in [low, high) of any shape, drawn flat for the same reason as `normal`."""
    return jax.random.uniform(key, (math.prod(shape),), jnp.float32, low, high).reshape(shape)
