"""Scores that the paper reports for its models, to compare with one's own.

They are from figure 6 of arXiv 2310.05264: models trained on CIFAR-10 and sampled from the same
noises, each with its own sampler. RP is the share of pairs with an SSCD similarity above .6, the
MAE score the share that differs by less than 15 grey levels of 255 on average. The grid of network
size and number of training images is read off the paper's curves by eye, to about .015.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, NamedTuple

from reprojax.errors import InputError, require_choice

PAPER_MODELS = ("DDPMv4", "DDPMv6", "Multistagev1", "EDMv1", "UViT", "CT", "Progressivev1")
# The upper triangle of the figure: row i holds the pairs of model i with those after it.
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
    """The paper's two scores of a pair of models, each a share from 0 to 1."""

    rp: float
    mae: float


def published_pair(a: str, b: str) -> PublishedPair:
    """Returns the scores that the paper reports for two of its models, in either order.

    Args:
        a: The name of a model, one of `PAPER_MODELS`.
        b: The name of another one.

    Raises:
        InputError: A name is unknown, or the two are the same.
    """
    for name in (a, b):
        require_choice("paper", name, PAPER_MODELS)
    if a == b:
        raise InputError("paper", a, "must be two different models of the paper")
    i, j = sorted(map(PAPER_MODELS.index, (a, b)))
    return PublishedPair(_RP[i][j - i - 1], _MAE[i][j - i - 1])


def published_pairs(names: Mapping[str, str]) -> dict[str, Any] | None:
    """Returns the published scores of one's own models that the paper has too.

    Args:
        names: By the name of one's own model that of the paper's, or "" where it has none.

    Returns:
        ``models``, the names that are not empty, and ``rows``, a row for each pair under one's own
        names; None where fewer than two models have a counterpart.
    """
    models = {own: name for own, name in names.items() if name}
    if len(models) < 2:
        return None
    rows = [
        {"a": a, "b": b, **published_pair(models[a], models[b])._asdict()}
        for a, b in combinations(models, 2)
    ]
    return {"models": models, "rows": rows}


@dataclass(frozen=True)
class PublishedGrid:
    """The paper's curves over the number of training images, with a share from 0 to 1 per size.

    Attributes:
        source: The source of the curves.
        sizes: The numbers of training images, nested subsets of CIFAR-10.
        models: The names of the networks, the smallest first.
        params: The number of parameters of each network.
        rp: The RP of two models, by their indices in ``models``.
        gl: The GL of each model, by its index.
        theory: The RP of each model with the empirical optimum, by its index.
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


def paper_grid() -> dict[str, Any]:
    """Returns the paper's curves as JSON, in which a pair cannot be a key."""
    grid = asdict(PAPER_GRID)
    return {
        **grid,
        "rp": [{"a": a, "b": b, "values": values} for (a, b), values in grid["rp"].items()],
        "gl": [grid["gl"][i] for i in sorted(grid["gl"])],
        "theory": [{"model": i, "values": values} for i, values in grid["theory"].items()],
    }
