"""A mixture of low-rank Gaussians as a data set: images whose best denoiser is known.

How to set networks against the truth: train them on ``SourceSpec("mixture", dataset="8x4")`` (8
components of rank 4), and sample ``mixture_of(spec).denoiser()`` from the same noises. Images from
number `IMAGES` on, ``mixture_of(spec).sample(n, IMAGES)``, are new draws from the same population.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import numpy as np

from reprojax.data.transform import to_uint8
from reprojax.denoisers.mixture import Mixture, MixtureSpec, make_mixture
from reprojax.errors import InputError

if TYPE_CHECKING:
    from reprojax.data.source import SourceSpec

IMAGES = 60_000
SIZE, CHANNELS = 8, 1  # where the spec says 0
SEED = 0
BLOCK = 4096  # float64 images held at a time
ROUNDING = (2 / 255) ** 2 / 12  # variance of rounding to a step of 2/255


def mixture_of(spec: SourceSpec) -> Mixture:
    """The population of ``spec``'s images, so that a study can make its denoiser.

    The floors are the variance of rounding to uint8, (2/255)^2 / 12 (deviation 0.0023), which the
    images have and the low-rank mixture that they are drawn from has not. That rounding is uniform,
    not Gaussian: where sigma is no longer well above 2/255 the denoiser is an approximation.

    Raises:
        InputError: ``spec.dataset`` is not KxR, or asks for more components or dimensions than
            an image has pixel values.
    """
    mixture = _drawn_from(spec)
    return dataclasses.replace(mixture, floors=np.full(len(mixture.weights), ROUNDING))


def read_mixture(spec: SourceSpec) -> tuple[np.ndarray, np.ndarray]:
    """Draws the data set.

    Returns:
        Images, uint8 `[60000, h, w, c]`, and the component of each, int32 `[60000]`.

    Raises:
        InputError: as for `mixture_of`.
    """
    mixture = _drawn_from(spec)
    starts = range(0, IMAGES, BLOCK)
    blocks = [to_uint8(mixture.sample(min(BLOCK, IMAGES - start), start)) for start in starts]
    return np.concatenate(blocks), mixture.components(IMAGES)


def _drawn_from(spec: SourceSpec) -> Mixture:
    """The mixture before rounding: exactly low-rank."""
    match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", spec.dataset)
    if match is None:
        allowed = "COMPONENTSxRANK, as in 8x4"
        raise InputError("data.dataset", spec.dataset or "an empty name", allowed)
    components, rank = map(int, match.groups())
    size, channels = spec.size or SIZE, spec.channels or CHANNELS
    try:
        return make_mixture(MixtureSpec(components, rank, size, channels, SEED))
    except InputError as error:
        raise InputError("data.dataset", spec.dataset, f"{error.field}: {error.allowed}") from error
