"""The noise bank: one fixed set of initial noises that every model is sampled from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from reprojax.data.files import read_arrays
from reprojax.errors import InputError
from reprojax.rng import IMPL, normal, root_key, stream

_BLOCK = 1024


@partial(jax.jit, static_argnames=("shape",))
def _draw(key: jax.Array, indices: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    one = lambda i: normal(jax.random.fold_in(key, i), shape)  # noqa: E731
    return jax.vmap(one)(indices)


@dataclass(frozen=True)
class NoiseBank:
    """z_i ~ N(0, I), a function of (seed, i) alone, or an array made elsewhere.

    Args:
        seed: of the bank.
        n: number of noises.
        shape: (h, w, c) of each.
        array: float32 `[n, h, w, c]` where the bank was loaded from a file, else None.
    """

    seed: int
    n: int
    shape: tuple[int, int, int]
    array: np.ndarray | None = None

    def __len__(self) -> int:
        return self.n

    def block(self, start: int, stop: int) -> np.ndarray:
        """Noises start..stop-1, float32 `[stop - start, h, w, c]`, the same bits for any split."""
        if self.array is not None:
            return self.array[start:stop]
        key = stream(root_key(self.seed), "noise-bank")
        return np.asarray(_draw(key, jnp.arange(start, stop, dtype=jnp.uint32), self.shape))

    def blocks(self, size: int = _BLOCK) -> Iterator[np.ndarray]:
        """The whole bank, in order, ``size`` noises at a time."""
        for start in range(0, self.n, size):
            yield self.block(start, min(start + size, self.n))

    def first(self, n: int) -> NoiseBank:
        """The bank of its first ``n`` noises, or of all if it has fewer."""
        n = min(n, self.n)
        return replace(self, n=n, array=None if self.array is None else self.array[:n])

    def describe(self) -> dict[str, object]:
        """How the bits came about: PRNG, partitionable flag, dtype, shape, seed and number."""
        return {
            "prng": IMPL if self.array is None else "file",
            "threefry_partitionable": bool(jax.config.jax_threefry_partitionable),
            "dtype": "float32",
            "shape": list(self.shape),
            "seed": self.seed,
            "n": self.n,
        }

    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of shape and bits: the identity across machines."""
        digest = hashlib.sha256(f"float32 {self.n} {self.shape}".encode())
        for block in self.blocks():
            digest.update(np.ascontiguousarray(block).tobytes())
        return digest.hexdigest()[:16]

    def all(self) -> np.ndarray:
        """The whole bank as one array, float32 `[n, h, w, c]`."""
        return np.concatenate(list(self.blocks()))


def load_noise(path: str | Path, n: int, shape: tuple[int, int, int]) -> NoiseBank:
    """Reads a bank from an npz with ``noise`` float32 `[>= n, h, w, c]`.

    Raises:
        InputError: unreadable, another dtype or shape, too few noises, or not finite.
    """
    field = "noise.path"
    array = read_arrays(path, ("noise",), field).get("noise")
    if array is None:
        raise InputError(field, str(path), "an npz with an array 'noise'")
    if array.dtype != np.float32 or array.shape[1:] != tuple(shape) or len(array) < n:
        raise InputError(
            field,
            f"{path}: {array.dtype} {array.shape}",
            f"float32 [at least {n}, {', '.join(map(str, shape))}]",
        )
    if not np.isfinite(array[:n]).all():
        raise InputError(field, str(path), "every value must be finite")
    return NoiseBank(seed=-1, n=n, shape=tuple(shape), array=array[:n])
