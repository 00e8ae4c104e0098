"""Mixtures of (low-rank) Gaussians: data whose population denoiser is known in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from scipy.special import ndtri

from reprojax.errors import InputError, require_number, require_seed
from reprojax.rng import host_bits

CHUNK = 1024  # images per stream: image i is drawn in its whole chunk, whatever is asked for
MEAN_PEAK = 0.4  # the largest |pixel| of every component's mean
CLIPPED = 1e-3  # bound on the share of images with a pixel outside [-1, 1]
ORTHONORMAL = 1e-5  # the largest entry of |U^T U - I| that is accepted; float32 bases pass


@struct.dataclass
class MixtureDenoiser:
    """E[x0 | x] of data sum_k w_k N(mu_k, U_k diag(v_k) U_k^T + f_k I).

    D(x; sigma) = sum_k pi_k [mu_k + U_k diag((v_k + f_k) / (v_k + f_k + sigma^2)) U_k^T r_k
    + f_k / (f_k + sigma^2) (r_k - U_k U_k^T r_k)] with r_k = x - mu_k and pi_k the probability of
    component k given x, softmax_k(log w_k + log N(x; mu_k, C_k + sigma^2 I)): arXiv 2409.02426
    for low rank (r < d); full Gaussians have r = d. Made by `mixture_denoiser`, which validates.

    Args:
        weights: `[k]`, > 0, sum 1.
        means: `[k, d]`.
        bases: `[k, d, r]`, orthonormal columns.
        variances: `[k, r]`, >= 0, in the basis and without the floor.
        floors: `[k]`, >= 0, the isotropic variance; 0 for exactly low rank.
    """

    weights: jax.Array
    means: jax.Array
    bases: jax.Array
    variances: jax.Array
    floors: jax.Array

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: jax.Array | None = None) -> jax.Array:
        """See DenoiseFn; computes in the dtype of ``x`` and does not read ``cond``."""
        means, bases = self.means.astype(x.dtype), self.bases.astype(x.dtype)
        floors, noise = self.floors.astype(x.dtype)[None, :], sigma.astype(x.dtype)[:, None] ** 2
        outer = floors + noise
        variances = self.variances.astype(x.dtype)[None, :, :]
        inner = variances + outer[:, :, None]
        centred = x.reshape(x.shape[0], 1, -1) - means[None, :, :]
        parts = _einsum("bkd,kdr->bkr", centred, bases)
        # Subtracted as vectors: |r|^2 - |U^T r|^2 cancels where sigma is small.
        rest = centred - _einsum("bkr,kdr->bkd", parts, bases)
        posterior = jax.nn.softmax(self._log_joint(parts, rest, noise), axis=1)
        gain = (variances + floors[:, :, None]) / inner
        parts = parts * gain * posterior[:, :, None]
        out = _einsum("bk,kd->bd", posterior, means) + _einsum("bkr,kdr->bd", parts, bases)
        out = out + _einsum("bk,bkd->bd", posterior * (floors / outer), rest)
        return out.reshape(x.shape)

    def _log_joint(self, parts: jax.Array, rest: jax.Array, noise: jax.Array) -> jax.Array:
        """Log w_k + log N(x; mu_k, C_k + sigma^2 I) up to what is the same for all k, `[b, k]`.

        log det = r log(v + f + sigma^2) + (d - r) log(f + sigma^2) is taken relative to
        d log(min f + sigma^2): the shared part is thousands in many pixels, and would cost digits.
        """
        variances = self.variances.astype(parts.dtype)[None, :, :]
        floors = self.floors.astype(parts.dtype)[None, :]
        outer, lowest = floors + noise, floors.min()
        squares = (parts**2 / (variances + outer[:, :, None])).sum(2) + (rest**2).sum(2) / outer
        log_det = jnp.log1p(variances / outer[:, :, None]).sum(2)
        log_det = log_det + rest.shape[2] * jnp.log1p((floors - lowest) / (lowest + noise))
        return jnp.log(self.weights.astype(parts.dtype))[None, :] - 0.5 * (squares + log_det)


def mixture_denoiser(
    weights: np.ndarray,
    means: np.ndarray,
    bases: np.ndarray,
    variances: np.ndarray,
    floors: np.ndarray,
) -> MixtureDenoiser:
    """Checks the parameters of a mixture and makes its denoiser.

    Args:
        weights: `[k]`, > 0, sum 1 (within 1e-6).
        means: `[k, d]`.
        bases: `[k, d, r]`, r <= d, orthonormal columns (within 1e-5).
        variances: `[k, r]`, >= 0.
        floors: `[k]`, >= 0.

    Returns:
        The denoiser, float64 under ``jax.enable_x64`` and float32 otherwise.

    Raises:
        InputError: a shape or a value that is not as above, naming it.
    """
    given = dict(weights=weights, means=means, bases=bases, variances=variances, floors=floors)
    arrays = {name: np.asarray(value, np.float64) for name, value in given.items()}
    _require_shapes(arrays)
    _require_values(**arrays)
    return MixtureDenoiser(**{name: jnp.asarray(array) for name, array in arrays.items()})


@dataclass(frozen=True)
class MixtureSpec:
    """Image-like data of low-rank Gaussians, decided by five numbers.

    Attributes:
        components: number of Gaussians, 1 to size^2 channels (their means are orthogonal).
        rank: dimensions of each, 1 to size^2 channels.
        size: side of the square in pixels.
        channels: colour channels.
        seed: of the parameters and of the images.

    Raises:
        InputError: a number outside its range, naming it.
    """

    components: int = 8
    rank: int = 4
    size: int = 8
    channels: int = 1
    seed: int = 0

    def __post_init__(self):
        for name in ("size", "channels"):
            require_number(f"mixture.{name}", getattr(self, name), at_least=1)
        for name in ("components", "rank"):
            if not 1 <= getattr(self, name) <= self.dimension:
                allowed = f"it must be 1 to {self.dimension}, the number of pixel values"
                raise InputError(f"mixture.{name}", getattr(self, name), allowed)
        require_seed("mixture.seed", self.seed)

    @property
    def dimension(self) -> int:
        """Pixel values of an image, d."""
        return self.size**2 * self.channels


@dataclass(frozen=True, eq=False)
class Mixture:
    """The parameters of a mixture on the host, and its images.

    Attributes:
        spec: what it was made from; its seed draws the images.
        weights: float64 `[k]`; this and the rest as in `MixtureDenoiser`.
        means: float64 `[k, d]`.
        bases: float64 `[k, d, r]`.
        variances: float64 `[k, r]`.
        floors: float64 `[k]`.
    """

    spec: MixtureSpec
    weights: np.ndarray
    means: np.ndarray
    bases: np.ndarray
    variances: np.ndarray
    floors: np.ndarray

    def denoiser(self) -> MixtureDenoiser:
        """The population denoiser, see `mixture_denoiser`."""
        return mixture_denoiser(self.weights, self.means, self.bases, self.variances, self.floors)

    def sample(self, n: int, start: int = 0) -> np.ndarray:
        """Images start to start + n - 1 of an endless series, float64 `[n, h, w, c]`.

        Image i depends on the parameters, the seed and i alone, to the bit. Nothing is clipped.
        """
        images = np.empty((n, self.spec.dimension))
        for chunk, rows, into in _chunks(n, start):
            images[into] = self._chunk(chunk)[rows]
        return images.reshape(n, self.spec.size, self.spec.size, self.spec.channels)

    def components(self, n: int, start: int = 0) -> np.ndarray:
        """Which component each image of ``sample(n, start)`` is from, int32 `[n]`."""
        labels = np.empty(n, np.int32)
        for chunk, rows, into in _chunks(n, start):
            labels[into] = self._chunk_components(chunk)[rows]
        return labels

    def _chunk_components(self, chunk: int) -> np.ndarray:
        u = _uniform(self.spec.seed, "mixture/components", chunk, (CHUNK,))
        return np.searchsorted(np.cumsum(self.weights)[:-1], u, side="right").astype(np.int32)

    def _chunk(self, chunk: int) -> np.ndarray:
        """All images of a chunk, float64 `[CHUNK, d]`: one product's shape changes its last bit."""
        seed, labels = self.spec.seed, self._chunk_components(chunk)
        parts = _normal(seed, "mixture/parts", chunk, (CHUNK, self.variances.shape[1]))
        parts *= np.sqrt(self.variances)[labels]
        images = self.means[labels]
        for k, basis in enumerate(self.bases):
            # Not a BLAS product, whose threads crawl where the cores are busy.
            images[labels == k] += np.einsum("nr,dr->nd", parts[labels == k], basis)
        if self.floors.any():  # a stream of its own: the floor moves no other draw
            deviations = np.sqrt(self.floors)[labels, None]
            images += deviations * _normal(seed, "mixture/floor", chunk, images.shape)
        return images


def make_mixture(spec: MixtureSpec) -> Mixture:
    """Draws a mixture of image-like Gaussians of exactly the given rank (floors 0).

    Means and bases are random sums of cosines with amplitudes (1 + f^2)^(-3/2) at frequency f. The
    means are orthogonal, with a largest |pixel| of 0.4, and the weights equal. The variances are
    proportional to 1, 1/2, 1/3, ...: the j-th cosine in two dimensions has f^2 ~ j, so this is the
    1 / f^2 spectrum of natural images. They are as large as a union bound over pixels allows
    when less than 1e-3 of the images may leave [-1, 1].

    Returns:
        The mixture, the same on every machine but for the last bits of its linear algebra.
    """
    means = _smooth(spec, "mixture/means", 0, spec.components).T
    means = MEAN_PEAK * means / np.abs(means).max(1, keepdims=True)
    bases = [_smooth(spec, "mixture/bases", k, spec.rank) for k in range(spec.components)]
    bases = np.stack(bases)
    decay = 1.0 / np.arange(1, spec.rank + 1)
    # P(|pixel| > 1) <= exp(-reach^2 / 2) if reach deviations fit between the mean and 1.
    reach = np.sqrt(2 * np.log(spec.dimension / CLIPPED))
    deviations = np.sqrt(np.einsum("kdr,r->kd", bases**2, decay))
    scale = ((1 - np.abs(means)) / (reach * deviations)).min()
    variances = np.tile(scale**2 * decay, (spec.components, 1))
    weights = np.full(spec.components, 1 / spec.components)
    return Mixture(spec, weights, means, bases, variances, np.zeros(spec.components))


def _smooth(spec: MixtureSpec, name: str, index: int, columns: int) -> np.ndarray:
    """Smooth orthonormal columns, float64 `[d, columns]`, drawn from a named stream."""
    frequencies = np.arange(spec.size)
    squares = frequencies[:, None] ** 2 + frequencies[None, :] ** 2
    shape = (columns, spec.size, spec.size, spec.channels)
    amplitudes = _normal(spec.seed, name, index, shape) / ((1 + squares) ** 1.5)[None, :, :, None]
    cosines = np.cos(np.pi * (frequencies[:, None] + 0.5) * frequencies[None, :] / spec.size)
    fields = np.einsum("yu,xv,kuvc->yxck", cosines, cosines, amplitudes, optimize=True)
    # The nearest orthonormal columns: no column is rougher for coming last, as it is in QR, and no
    # sign is left to the library.
    left, _, right = np.linalg.svd(fields.reshape(spec.dimension, columns), full_matrices=False)
    return left @ right


def _chunks(n: int, start: int) -> Iterator[tuple[int, slice, slice]]:
    """(chunk, its rows that are wanted, where they go) for images start to start + n - 1."""
    for chunk in range(start // CHUNK, -(-(start + n) // CHUNK)):
        first, last = max(start, chunk * CHUNK), min(start + n, (chunk + 1) * CHUNK)
        rows = slice(first - chunk * CHUNK, last - chunk * CHUNK)
        yield chunk, rows, slice(first - start, last - start)


def _uniform(seed: int, name: str, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform float64 inside (0, 1): 52 bits and a half, so that neither end is reached."""
    bits = host_bits(seed, name, index, int(np.prod(shape)))
    return (((bits >> np.uint64(12)) + 0.5) * 2.0**-52).reshape(shape)


def _normal(seed: int, name: str, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float64 by inversion: NumPy's own normals may change between versions."""
    return ndtri(_uniform(seed, name, index, shape))


def _einsum(subscripts: str, *arrays: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, *arrays, precision=jax.lax.Precision.HIGHEST)


def _require_shapes(arrays: dict[str, np.ndarray]) -> None:
    if arrays["bases"].ndim != 3 or arrays["bases"].shape[2] > arrays["bases"].shape[1]:
        allowed = "it must be [k, d, r] with r at most d"
        raise InputError("mixture.bases", arrays["bases"].shape, allowed)
    k, d, r = arrays["bases"].shape
    shapes = {"weights": (k,), "means": (k, d), "variances": (k, r), "floors": (k,)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            allowed = f"beside bases of shape {(k, d, r)} it must have shape {shape}"
            raise InputError(f"mixture.{name}", arrays[name].shape, allowed)


def _require_values(
    weights: np.ndarray,
    means: np.ndarray,
    bases: np.ndarray,
    variances: np.ndarray,
    floors: np.ndarray,
) -> None:
    """Written so that a NaN fails each check."""
    if not (np.all(weights > 0) and abs(weights.sum() - 1) <= 1e-6):
        raise InputError("mixture.weights", weights, "they must be above 0 and sum to 1")
    if not np.isfinite(means).all():
        raise InputError("mixture.means", means, "they must be finite")
    gram = np.einsum("kdr,kds->krs", bases, bases, optimize=True)
    gap = np.abs(gram - np.eye(bases.shape[2])).max(initial=0.0)
    if not gap <= ORTHONORMAL:
        allowed = f"columns must be orthonormal, |U^T U - I| at most {ORTHONORMAL:g}"
        raise InputError("mixture.bases", f"a basis that is off by {gap:.3g}", allowed)
    for name, array in (("variances", variances), ("floors", floors)):
        if not (np.isfinite(array).all() and np.all(array >= 0)):
            raise InputError(f"mixture.{name}", array, "they must be finite and at least 0")
