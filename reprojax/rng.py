"""Named random streams: every draw is a function of (seed, name, index) alone.

No generator state is carried from draw to draw. A resumed run therefore draws the same numbers as
an unbroken one, and a new stream changes no other.
"""

from __future__ import annotations

import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np

IMPL = "threefry2x32"


def name_id(name: str) -> int:
    """Returns the CRC-32 of a stream's name: the same in every process, unlike ``hash``."""
    return zlib.crc32(name.encode())


def root_key(seed: int) -> jax.Array:
    """Returns the typed PRNG key of a seed, always of the implementation `IMPL`.

    With a fixed implementation a seed gives the same numbers under any JAX setting.
    """
    return jax.random.key(seed, impl=IMPL)


def stream(root: jax.Array, name: str, index: int | jax.Array = 0) -> jax.Array:
    """Returns the key of a named stream at an index, e.g. a training step.

    Args:
        root: A typed key from `root_key`.
        name: The name of the stream, e.g. ``"train/noise"``.
        index: An int or an int32 scalar, which may be traced.

    Returns:
        The key fold_in(fold_in(root, crc32(name)), index).
    """
    return jax.random.fold_in(jax.random.fold_in(root, name_id(name)), index)


def host_bits(seed: int, name: str, index: int, n: int) -> np.ndarray:
    """Draws ``n`` raw uint64 of a named stream on the host.

    The generator is Philox, whose raw output is the same in every version of NumPy.
    """
    words = np.random.SeedSequence([seed, name_id(name), index])
    return np.random.Philox(words).random_raw(n)


def host_permutation(seed: int, name: str, index: int, n: int) -> np.ndarray:
    """Returns a permutation of range(n), int64 `[n]`, that depends on (seed, name, index) alone."""
    return np.argsort(host_bits(seed, name, index, n), kind="stable")


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws standard normal float32 of any shape, the same numbers as ``jax.random.normal``.

    The numbers are drawn along one axis and reshaped. XLA:CPU takes seconds to compile a threefry
    draw of several axes and a tenth of that for one axis; with partitionable threefry the numbers
    are the same.
    """
    return jax.random.normal(key, (math.prod(shape),), jnp.float32).reshape(shape)


def uniform(key: jax.Array, shape: tuple[int, ...], low: float, high: float) -> jax.Array:
    """Draws uniform float32 in [low, high) of any shape, along one axis as `normal` does."""
    return jax.random.uniform(key, (math.prod(shape),), jnp.float32, low, high).reshape(shape)
