"""A mixture of low-rank Gaussians as a data set, whose optimal denoiser has a closed form.

To compare networks with the population's denoiser, train them on
``SourceSpec("mixture", dataset="8x4")`` (8 components of rank 4), and sample
``population_denoiser(mixture_of(spec))`` of `reprojax.denoisers.mixture` from the same noises.
Images from number `IMAGES` on, ``mixture_of(spec).sample(n, IMAGES)``, are new draws from the same
population.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from reprojax.data.transform import to_uint8
from reprojax.errors import InputError, require_number, require_seed
from reprojax.rng import host_bits

if TYPE_CHECKING:
    from reprojax.data.source import SourceSpec

IMAGES = 60_000
SIZE, CHANNELS = 8, 1  # the layout if the spec's is 0
SEED = 0
BLOCK = 4096  # float64 images in memory at a time
ROUNDING = (2 / 255) ** 2 / 12  # variance of rounding to steps of 2/255
CHUNK = 1024  # images per stream; a chunk is always drawn whole, so that image i never changes
MEAN_PEAK = 0.4  # the largest |pixel| of every component's mean
CLIPPED = 1e-3  # bound on the share of images with a pixel outside [-1, 1]


@dataclass(frozen=True)
class MixtureSpec:
    """The five numbers that define a mixture of image-like low-rank Gaussians.

    Attributes:
        components: The number of Gaussians, 1 to size^2 channels (their means are orthogonal).
        rank: The number of dimensions of each Gaussian, 1 to size^2 channels.
        size: The side of the images in pixels.
        channels: The number of colour channels.
        seed: The seed of the parameters and of the images.

    Raises:
        InputError: A number is outside its range.
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
                requirement = f"must be 1 to {self.dimension}, the number of pixel values"
                raise InputError(f"mixture.{name}", getattr(self, name), requirement)
        require_seed("mixture.seed", self.seed)

    @property
    def dimension(self) -> int:
        """The number of pixel values of an image, d."""
        return self.size**2 * self.channels


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of Gaussians, from which images are drawn on the host.

    The parameters are those of `reprojax.denoisers.mixture.mixture_denoiser`.

    Attributes:
        spec: The numbers that the mixture is made from. The seed also draws the images.
        weights: The weights of the components, float64 `[k]`.
        means: The means of the components, float64 `[k, d]`.
        bases: Orthonormal columns that span each component, float64 `[k, d, r]`.
        variances: The variances along the columns, without the floor, float64 `[k, r]`.
        floors: The isotropic variance of each component, float64 `[k]`.
    """

    spec: MixtureSpec
    weights: np.ndarray
    means: np.ndarray
    bases: np.ndarray
    variances: np.ndarray
    floors: np.ndarray

    def sample(self, n: int, start: int = 0) -> np.ndarray:
        """Draws images ``start`` to ``start + n - 1`` of an endless series, float64 `[n, h, w, c]`.

        Image i depends on the parameters, the seed and i alone, to the bit. Nothing is clipped.
        """
        images = np.empty((n, self.spec.dimension))
        for chunk, rows, places in _chunks(n, start):
            images[places] = self._chunk(chunk)[rows]
        return images.reshape(n, self.spec.size, self.spec.size, self.spec.channels)

    def components(self, n: int, start: int = 0) -> np.ndarray:
        """Returns the component of each image of ``sample(n, start)``, int32 `[n]`."""
        labels = np.empty(n, np.int32)
        for chunk, rows, places in _chunks(n, start):
            labels[places] = self._chunk_components(chunk)[rows]
        return labels

    def _chunk_components(self, chunk: int) -> np.ndarray:
        u = _uniform(self.spec.seed, "mixture/components", chunk, (CHUNK,))
        return np.searchsorted(np.cumsum(self.weights)[:-1], u, side="right").astype(np.int32)

    def _chunk(self, chunk: int) -> np.ndarray:
        """Draws all images of a chunk, float64 `[CHUNK, d]`.

        A chunk is never drawn in part, because the last bit of a product depends on its shape.
        """
        seed, labels = self.spec.seed, self._chunk_components(chunk)
        parts = _normal(seed, "mixture/parts", chunk, (CHUNK, self.variances.shape[1]))
        parts *= np.sqrt(self.variances)[labels]
        images = self.means[labels]
        for k, basis in enumerate(self.bases):
            # Not a BLAS product: its threads are very slow when the cores are busy.
            images[labels == k] += np.einsum("nr,dr->nd", parts[labels == k], basis)
        if self.floors.any():  # from a stream of its own, so that a floor changes no other draw
            deviations = np.sqrt(self.floors)[labels, None]
            images += deviations * _normal(seed, "mixture/floor", chunk, images.shape)
        return images


def make_mixture(spec: MixtureSpec) -> Mixture:
    """Draws the parameters of a mixture of image-like Gaussians of exactly the spec's rank.

    Means and bases are random sums of cosines with amplitudes (1 + f^2)^(-3/2) at frequency f. The
    means are orthogonal and have a largest |pixel| of 0.4. The weights are equal and the floors 0.
    The variances are proportional to 1, 1/2, 1/3, ...: in two dimensions the j-th cosine has
    f^2 ~ j, so this is the 1 / f^2 spectrum of natural images. They are as large as a union bound
    over pixels allows if less than 1e-3 of the images may leave [-1, 1].

    Args:
        spec: The numbers that define the mixture.

    Returns:
        The mixture. Between machines only the last bits of its linear algebra differ.
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
    """Draws smooth orthonormal columns, float64 `[d, columns]`, from a named stream."""
    frequencies = np.arange(spec.size)
    squares = frequencies[:, None] ** 2 + frequencies[None, :] ** 2
    shape = (columns, spec.size, spec.size, spec.channels)
    amplitudes = _normal(spec.seed, name, index, shape) / ((1 + squares) ** 1.5)[None, :, :, None]
    cosines = np.cos(np.pi * (frequencies[:, None] + 0.5) * frequencies[None, :] / spec.size)
    fields = np.einsum("yu,xv,kuvc->yxck", cosines, cosines, amplitudes, optimize=True)
    # The nearest orthonormal columns. With QR the later columns would be rougher, and the library
    # would choose the signs.
    left, _, right = np.linalg.svd(fields.reshape(spec.dimension, columns), full_matrices=False)
    return left @ right


def _chunks(n: int, start: int) -> Iterator[tuple[int, slice, slice]]:
    """Yields each chunk of images start to start + n - 1, its rows, and their places among n."""
    for chunk in range(start // CHUNK, -(-(start + n) // CHUNK)):
        first, last = max(start, chunk * CHUNK), min(start + n, (chunk + 1) * CHUNK)
        rows = slice(first - chunk * CHUNK, last - chunk * CHUNK)
        yield chunk, rows, slice(first - start, last - start)


def _uniform(seed: int, name: str, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Draws uniform float64 in (0, 1), of 52 bits plus a half so that neither end occurs."""
    bits = host_bits(seed, name, index, int(np.prod(shape)))
    return (((bits >> np.uint64(12)) + 0.5) * 2.0**-52).reshape(shape)


def _normal(seed: int, name: str, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Draws standard normal float64 by inversion, since NumPy may change its normals."""
    return ndtri(_uniform(seed, name, index, shape))


def mixture_of(spec: SourceSpec) -> Mixture:
    """Returns the population of a source's images, so that a study can make its denoiser.

    The floors are the variance of rounding to uint8, (2/255)^2 / 12 (deviation 0.0023). The images
    have that variance, and the low-rank mixture that they are drawn from does not. The rounding is
    uniform, not Gaussian, so the denoiser is an approximation where sigma is not well above 2/255.

    Args:
        spec: A source with the name "mixture".

    Raises:
        InputError: ``spec.dataset`` is not KxR, or has more components or dimensions than an image
            has pixel values.
    """
    mixture = _unrounded_mixture(spec)
    return dataclasses.replace(mixture, floors=np.full(len(mixture.weights), ROUNDING))


def read_mixture(spec: SourceSpec) -> tuple[np.ndarray, np.ndarray]:
    """Draws the images of a source.

    Args:
        spec: A source with the name "mixture".

    Returns:
        Images, uint8 `[60000, h, w, c]`, and the component of each, int32 `[60000]`.

    Raises:
        InputError: As for `mixture_of`.
    """
    mixture = _unrounded_mixture(spec)
    starts = range(0, IMAGES, BLOCK)
    blocks = [to_uint8(mixture.sample(min(BLOCK, IMAGES - start), start)) for start in starts]
    return np.concatenate(blocks), mixture.components(IMAGES)


def _unrounded_mixture(spec: SourceSpec) -> Mixture:
    """Returns the mixture of a source's images before they are rounded, exactly low-rank."""
    match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", spec.dataset)
    if match is None:
        raise InputError("data.dataset", spec.dataset, "must be COMPONENTSxRANK, e.g. 8x4")
    components, rank = map(int, match.groups())
    size, channels = spec.size or SIZE, spec.channels or CHANNELS
    try:
        return make_mixture(MixtureSpec(components, rank, size, channels, SEED))
    except InputError as error:
        raise InputError(
            "data.dataset", spec.dataset, f"{error.field}: {error.requirement}"
        ) from error
