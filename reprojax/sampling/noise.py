"""The noise bank: one fixed set of initial noises that every model is sampled from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from reprojax.data.files import read_arrays
from reprojax.errors import InputError, require_number, require_seed
from reprojax.rng import IMPL, normal, root_key, stream

_BLOCK = 1024


@dataclass(frozen=True)
class NoiseSpec:
    """The noise bank: ``n`` noises of ``seed``, or the first ``n`` of the file at ``path``."""

    seed: int = 0
    n: int = 512
    path: str = ""

    def __post_init__(self):
        require_seed("noise.seed", self.seed)
        require_number("noise.n", self.n, at_least=2)


@partial(jax.jit, static_argnames=("shape",))
def _draw(key: jax.Array, indices: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.vmap(lambda i: normal(jax.random.fold_in(key, i), shape))(indices)


@dataclass(frozen=True)
class NoiseBank:
    """A set of noises z_i ~ N(0, I), each a function of (seed, i) alone, or a stored array.

    Attributes:
        seed: The seed of the bank; -1 for a stored array.
        n: The number of noises.
        shape: The shape (h, w, c) of each noise.
        array: The noises, float32 `[n, h, w, c]`, if they come from a file, else None.
    """

    seed: int
    n: int
    shape: tuple[int, int, int]
    array: np.ndarray | None = None

    def __len__(self) -> int:
        return self.n

    def block(self, start: int, stop: int) -> np.ndarray:
        """Returns the noises start to stop - 1, float32 `[stop - start, h, w, c]`.

        Their bits do not depend on how the bank is split into blocks.
        """
        if self.array is not None:
            return self.array[start:stop]
        key = stream(root_key(self.seed), "noise-bank")
        return np.asarray(_draw(key, jnp.arange(start, stop, dtype=jnp.uint32), self.shape))

    def blocks(self, size: int = _BLOCK) -> Iterator[np.ndarray]:
        """Yields the whole bank in order, ``size`` noises at a time."""
        for start in range(0, self.n, size):
            yield self.block(start, min(start + size, self.n))

    def first(self, n: int) -> NoiseBank:
        """Returns the bank of the first ``n`` noises, or of all if there are fewer."""
        n = min(n, self.n)
        return replace(self, n=n, array=None if self.array is None else self.array[:n])

    def describe(self) -> dict[str, object]:
        """Returns the facts that decide the bits: PRNG, its flag, dtype, shape, seed and number."""
        return {
            "prng": IMPL if self.array is None else "file",
            "threefry_partitionable": bool(jax.config.jax_threefry_partitionable),
            "dtype": "float32",
            "shape": list(self.shape),
            "seed": self.seed,
            "n": self.n,
        }

    def fingerprint(self) -> str:
        """Returns the first 16 hex digits of the SHA-256 of shape and bits.

        It identifies a bank across machines, on which the same seed may give other bits.
        """
        digest = hashlib.sha256(f"float32 {self.n} {self.shape}".encode())
        for block in self.blocks():
            digest.update(np.ascontiguousarray(block).tobytes())
        return digest.hexdigest()[:16]

    def all(self) -> np.ndarray:
        """Returns the whole bank as one array, float32 `[n, h, w, c]`."""
        return np.concatenate(list(self.blocks()))


def read_noise_record(path: str | Path, n: int, field: str) -> dict[str, object]:
    """Returns fingerprint and size of a noise file, as ``scores.json`` records them.

    Args:
        path: The path of an npz with ``noise``, float32 `[>= n, h, w, c]`, and optionally its
            ``fingerprint``.
        n: The smallest number of noises.
        field: The option or config field that names the path.

    Raises:
        InputError: The file cannot be read, or its noise has another dtype or shape.
    """
    arrays = read_arrays(path, ("noise", "fingerprint"), field)
    noise = _checked_noise(arrays, path, n, None, field)
    if "fingerprint" in arrays:
        fingerprint = str(arrays["fingerprint"])
    else:
        bank = NoiseBank(seed=-1, n=len(noise), shape=noise.shape[1:], array=noise)
        fingerprint = bank.fingerprint()
    return {"fingerprint": fingerprint, "n": len(noise)}


def load_noise(path: str | Path, n: int, shape: tuple[int, int, int]) -> NoiseBank:
    """Reads a bank from a file.

    Args:
        path: The path of an npz with ``noise``, float32 `[>= n, h, w, c]`.
        n: The number of noises to use.
        shape: The shape (h, w, c) of each noise.

    Raises:
        InputError: The file cannot be read, or its noise has another dtype or shape, too few rows
            or values that are not finite.
    """
    field, shape = "noise.path", tuple(shape)
    array = _checked_noise(read_arrays(path, ("noise",), field), path, n, shape, field)
    if not np.isfinite(array[:n]).all():
        raise InputError(field, str(path), "must have finite noise; some values are not")
    return NoiseBank(seed=-1, n=n, shape=shape, array=array[:n])


def _checked_noise(
    arrays: Mapping[str, np.ndarray],
    path: str | Path,
    n: int,
    shape: tuple[int, int, int] | None,
    field: str,
) -> np.ndarray:
    """Returns the noise of a file; raises InputError for another dtype, shape or too few rows."""
    noise = arrays.get("noise")
    if noise is None:
        raise InputError(field, str(path), "must be an npz with an array 'noise'")
    fits = noise.ndim == 4 and shape in (None, noise.shape[1:])
    if noise.dtype != np.float32 or not fits or len(noise) < n:
        sides = ", ".join(map(str, shape or "hwc"))
        actual = f"{noise.dtype} {list(noise.shape)}"
        requirement = f"has noise {actual}; must have float32 [n, {sides}], n at least {n}"
        raise InputError(field, str(path), requirement)
    return noise
