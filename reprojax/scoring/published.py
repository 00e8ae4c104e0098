"""Agreement that the paper reports between its models, to be set beside one's own.

arXiv 2310.05264, figure 6: models trained on CIFAR-10 and sampled from the same noises, each with
its own sampler. RP there is the share with an SSCD similarity above .6, the MAE score that of
images which differ by less than 15 grey levels of 255 on average. Its grid of capacity and number
of training images is read off the curves by eye, to about .015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from reprojax.errors import InputError, require_choice

PAPER_MODELS = ("DDPMv4", "DDPMv6", "Multistagev1", "EDMv1", "UViT", "CT", "Progressivev1")
# rows of the figure's upper triangle: row i holds the pairs of model i with those after it
_RP = (
    (0.89, 0.86, 0.83, 0.81, 0.81, 0.88),
    (0.84, 0.83, 0.78, 0.80, 0.87),
    (0.78, 0.80, 0.76, 0.86),
    (0.74, 0.76, 0.85),
    (0.70, 0.82),
    (0.91,),
)
_MAE = (
    (0.92, 0.85, 0.85, 0.84, 0.75, 0.88),
    (0.87, 0.87, 0.82, 0.77, 0.90),
    (0.81, 0.76, 0.77, 0.87),
    (0.76, 0.72, 0.86),
    (0.68, 0.84),
    (0.83,),
)


class PublishedPair(NamedTuple):
    """Two scores of one pair of models, each a share from 0 to 1."""

    rp: float
    mae: float


def published_pair(a: str, b: str) -> PublishedPair:
    """What the paper reports for two of its models, in either order.

    Args:
        a: a name of `PAPER_MODELS`.
        b: another one.

    Raises:
        InputError: an unknown name, or the same one twice.
    """
    for name in (a, b):
        require_choice("paper", name, PAPER_MODELS)
    if a == b:
        raise InputError("paper", a, "two different models of the paper")
    i, j = sorted(map(PAPER_MODELS.index, (a, b)))
    return PublishedPair(_RP[i][j - i - 1], _MAE[i][j - i - 1])


@dataclass(frozen=True)
class PublishedGrid:
    """Curves over the number of training images, each a share from 0 to 1 per size.

    Attributes:
        source: where they are from.
        sizes: training images, CIFAR-10, nested.
        models: names of the networks, the smallest first.
        params: their parameters.
        rp: RP of two models by their places.
        gl: GL of each model by its place.
        theory: RP with the empirical optimum by the model's place.
    """

    source: str
    sizes: tuple[int, ...]
    models: tuple[str, ...]
    params: tuple[float, ...]
    rp: dict[tuple[int, int], tuple[float, ...]]
    gl: dict[int, tuple[float, ...]]
    theory: dict[int, tuple[float, ...]]


PAPER_GRID = PublishedGrid(
    source="arXiv 2310.05264, CIFAR-10, read off its curves by eye (about ±.015)",
    sizes=(64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768),
    models=("UNet-64", "UNet-128", "UNet-256"),
    params=(14.0e6, 55.7e6, 222.8e6),
    rp={
        (0, 1): (0.69, 0.65, 0.59, 0.53, 0.46, 0.42, 0.34, 0.18, 0.45, 0.67),
        (0, 2): (0.62, 0.63, 0.55, 0.47, 0.37, 0.30, 0.10, 0.02, 0.49, 0.61),
        (1, 2): (0.65, 0.63, 0.56, 0.48, 0.41, 0.33, 0.17, 0.17, 0.45, 0.85),
    },
    gl={
        0: (0.0, 0.0, 0.0, 0.0, 0.0, 0.22, 0.87, 0.99, 1.0, 1.0),
        1: (0.0, 0.0, 0.0, 0.0, 0.0, 0.01, 0.28, 0.82, 0.98, 0.99),
        2: (0.0, 0.0, 0.0, 0.0, 0.02, 0.01, 0.05, 0.29, 0.98, 0.98),
    },
    theory={
        0: (0.48, 0.46, 0.37, 0.28, 0.20, 0.12, 0.03, 0.0, 0.0, 0.0),
        2: (0.51, 0.46, 0.40, 0.33, 0.27, 0.21, 0.15, 0.10, 0.0, 0.0),
    },
)
