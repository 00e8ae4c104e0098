"""The closed forms by name: a new one is a new file and one row here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jax.sharding import Mesh

from reprojax.data.mixture import mixture_of
from reprojax.data.source import SourceSpec
from reprojax.data.subset import Subset
from reprojax.data.transform import to_float
from reprojax.denoisers.gaussian import gaussian_denoiser
from reprojax.denoisers.mixture import population_denoiser
from reprojax.denoisers.optimum import empirical_optimum
from reprojax.types import DenoiseFn

SPLIT_BYTES = 1 << 30  # of training images, from which on devices share the optimum's


class Sources(NamedTuple):
    """What a closed form is made from.

    Attributes:
        train: The training images.
        source: The description of where they come from.
        mesh: The devices that may share a large training set, or None for each to hold all of it.
    """

    train: Subset
    source: SourceSpec
    mesh: Mesh | None = None


class Recipe(NamedTuple):
    """How a closed form is made.

    Attributes:
        make: From the sources of its samples to a DenoiseFn.
        rows: From the number of training images and of pixel values to the rows of the matrix
            that an evaluation multiplies with twice: its cost.
        source: The only data source that it is known for, or "" where any will do.
    """

    make: Callable[[Sources], DenoiseFn]
    rows: Callable[[int, int], int]
    source: str = ""


def _optimum(sources: Sources) -> DenoiseFn:
    images = to_float(sources.train.images())
    shared = sources.mesh is not None and sources.mesh.devices.size > 1
    large = shared and images.nbytes >= SPLIT_BYTES  # worth the exchange between devices
    return empirical_optimum(images, mesh=sources.mesh if large else None)


def _gaussian(sources: Sources) -> DenoiseFn:
    return gaussian_denoiser(to_float(block) for block in sources.train.blocks())


def _population(sources: Sources) -> DenoiseFn:
    return population_denoiser(mixture_of(sources.source))


CLOSED_FORMS: dict[str, Recipe] = {
    "optimum": Recipe(_optimum, lambda n, pixels: n),
    "gaussian": Recipe(_gaussian, lambda n, pixels: pixels),
    "population": Recipe(_population, lambda n, pixels: pixels, source="mixture"),
}
