"""Sorts the cells of a study into a grid of capacity and number of training images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reprojax.errors import InputError
from reprojax.scoring.scores import CellRow

DISJOINT = {"A": "B", "B": "A"}  # parts of the data that share no image
# Networks are of one capacity if they agree in these fields.
FIELDS = ("params", "width", "family", "kernel", "preconditioning")

Rows = Mapping[str, CellRow]
Key = tuple[int, int, str, int]  # index of the capacity, training images, part, seed


@dataclass(frozen=True)
class Layout:
    """A grid of cells.

    Attributes:
        capacities: The facts of each capacity, ``{"label", *FIELDS}``, ordered by the number of
            parameters.
        sizes: The numbers of training images, ascending.
        subset: The part of the data that most networks are trained on.
        seeds: For each capacity the seed that most of its networks in that part have, the smallest
            of equally frequent ones.
        networks: The names of the networks by (index of the capacity, training images, part,
            seed).
        closed: The names of the closed forms by (family, training images, part).
    """

    capacities: tuple[dict[str, Any], ...]
    sizes: tuple[int, ...]
    subset: str
    seeds: tuple[int, ...]
    networks: Mapping[Key, str]
    closed: Mapping[tuple[str, int, str], str]

    def network(self, capacity: int, n: int, subset: str = "", seed: int | None = None):
        """Returns the name of a network, of the main part and seed by default, or None."""
        seed = self.seeds[capacity] if seed is None else seed
        return self.networks.get((capacity, n, subset or self.subset, seed))

    def label(self, capacity: int) -> str:
        """Returns the label of a capacity."""
        return self.capacities[capacity]["label"]

    def place(self, name: str) -> Key:
        """Returns the place of a network in the grid."""
        return next(key for key, other in self.networks.items() if other == name)


def lay_out(rows: Rows, field: str = "cells") -> Layout:
    """Sorts cells into a grid by what is recorded of them, whatever their names.

    Args:
        rows: The rows of the grid's cells in ``scores.json``, by cell name.
        field: The name of the cells' field, for errors.

    Raises:
        InputError: Two networks have the same place in the grid, or there are no networks.
    """
    networks = {name: row for name, row in rows.items() if row.kind != "closed_form"}
    if not networks:
        raise InputError(field, tuple(rows), "must have at least one network")
    keys = {name: _capacity(row) for name, row in networks.items()}
    order = sorted(set(keys.values()))
    placed: dict[Key, str] = {}
    for name, row in networks.items():
        key = (order.index(keys[name]), row.n_train, row.subset, row.seed)
        if key in placed:
            requirement = f"must differ from {placed[key]} in network, images or seed"
            raise InputError(field, name, requirement)
        placed[key] = name
    subset = Counter(key[2] for key in placed).most_common(1)[0][0]
    seeds = tuple(_usual_seed(placed, c, subset) for c in range(len(order)))
    closed = {
        (row.family, row.n_train, row.subset): name
        for name, row in rows.items()
        if row.kind == "closed_form"
    }
    main = {key for key in placed if key[2:] == (subset, seeds[key[0]])}
    return Layout(
        capacities=tuple(_labelled([dict(zip(FIELDS, key)) for key in order])),
        sizes=tuple(sorted({n for _, n, _, _ in main})),
        subset=subset,
        seeds=seeds,
        networks=placed,
        closed=closed,
    )


def _capacity(row: CellRow) -> tuple[int, int, str, str, str]:
    """Returns the values of `FIELDS`."""
    words = (str(getattr(row, field)) for field in FIELDS[2:])
    return (row.params or 0, row.width or 0, *words)


def _usual_seed(placed: Mapping[Key, str], capacity: int, subset: str) -> int:
    counts = Counter(key[3] for key in placed if key[0] == capacity and key[2] == subset)
    return min(counts, key=lambda seed: (-counts[seed], seed), default=0)


def _labelled(facts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds distinct labels to facts: family and width, and the kernel if there are several."""
    kernels = len({fact["kernel"] for fact in facts}) > 1
    labels = []
    for fact in facts:
        text = f"{fact['family']}-{fact['width']}" if fact["width"] else fact["family"]
        labels.append(f"{text} {fact['kernel']}" if kernels else text)
    labels = [t if labels.count(t) == 1 else f"{t} ({i + 1})" for i, t in enumerate(labels)]
    return [{"label": text, **fact} for text, fact in zip(labels, facts)]
