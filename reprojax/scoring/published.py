"""Agreement that the paper reports between its models, to be set beside one's own.

arXiv 2310.05264, figure 6: models trained on CIFAR-10 and sampled from the same noises, each with
its own sampler. RP there is the share with an SSCD similarity above .6, the MAE score that of
images which differ by less than 15 grey levels of 255 on average.
"""

from __future__ import annotations

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
