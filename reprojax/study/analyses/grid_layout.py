"""Which cells of a study stand where in a grid of capacity and number of training images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reprojax.errors import InputError
from reprojax.models.families import count_params
from reprojax.study.cells import Study
from reprojax.study.images import StudyImages
from reprojax.study.stages import cell_network

DISJOINT = {"A": "B", "B": "A"}  # parts of the data that share no image
FIELDS = ("params", "width", "family", "kernel", "preconditioning")  # what makes a capacity

Rows = Mapping[str, Mapping[str, Any]]
Key = tuple[int, int, str, int]


@dataclass(frozen=True)
class Layout:
    """Cells by their facts.

    Attributes:
        capacities: rows of facts ``{"label", "params", "width", "family", "kernel"}``, the network
            with the fewest parameters first.
        sizes: numbers of training images, ascending.
        subset: the part of the data that most networks are trained on.
        seeds: per capacity the seed that most of its networks in that part have, the smallest of
            equally frequent ones.
        networks: names by (place of the capacity, training images, part, seed).
        closed: names of closed forms by (family, training images, part).
    """

    capacities: tuple[dict[str, Any], ...]
    sizes: tuple[int, ...]
    subset: str
    seeds: tuple[int, ...]
    networks: Mapping[Key, str]
    closed: Mapping[tuple[str, int, str], str]

    def network(self, capacity: int, n: int, subset: str = "", seed: int | None = None):
        """The network of a place in the grid, of the main part and seed by default, or None."""
        seed = self.seeds[capacity] if seed is None else seed
        return self.networks.get((capacity, n, subset or self.subset, seed))

    def label(self, capacity: int) -> str:
        """The name of a capacity."""
        return self.capacities[capacity]["label"]

    def place(self, name: str) -> Key:
        """Where a network stands."""
        return next(key for key, other in self.networks.items() if other == name)


def lay_out(rows: Rows, field: str = "cells") -> Layout:
    """Sorts cells into a grid by what is recorded of them, whatever their names.

    Args:
        rows: of scores.json's ``cells``, those that belong to the grid.
        field: named in errors.

    Raises:
        InputError: two networks have one place in the grid, or there is none.
    """
    networks = {name: row for name, row in rows.items() if row["kind"] != "closed_form"}
    if not networks:
        raise InputError(field, tuple(rows), "networks, beside closed forms if you like")
    keys = {name: tuple(row.get(f) or 0 for f in FIELDS[:2]) for name, row in networks.items()}
    keys = {n: (*k, *(str(networks[n].get(f)) for f in FIELDS[2:])) for n, k in keys.items()}
    order = sorted(set(keys.values()))
    placed: dict[Key, str] = {}
    for name, row in networks.items():
        key = (order.index(keys[name]), row["n_train"], row["subset"], row["seed"])
        if key in placed:
            allowed = f"a network that differs from {placed[key]} in size, images or seed"
            raise InputError(field, name, allowed)
        placed[key] = name
    subset = Counter(key[2] for key in placed).most_common(1)[0][0]
    seeds = tuple(_usual_seed(placed, c, subset) for c in range(len(order)))
    closed = {
        (row["family"], row["n_train"], row["subset"]): name
        for name, row in rows.items()
        if row["kind"] == "closed_form"
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


def _usual_seed(placed: Mapping[Key, str], capacity: int, subset: str) -> int:
    counts = Counter(key[3] for key in placed if key[0] == capacity and key[2] == subset)
    return min(counts, key=lambda seed: (-counts[seed], seed), default=0)


def _labelled(facts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Facts with labels that tell them apart: family and width, kernel where it differs."""
    kernels = len({fact["kernel"] for fact in facts}) > 1
    labels = []
    for fact in facts:
        text = f"{fact['family']}-{fact['width']}" if fact["width"] else fact["family"]
        labels.append(f"{text} {fact['kernel']}" if kernels else text)
    labels = [t if labels.count(t) == 1 else f"{t} ({i + 1})" for i, t in enumerate(labels)]
    return [{"label": text, **fact} for text, fact in zip(labels, facts)]


def cell_rows(study: Study, images: StudyImages, names: Sequence[str]) -> dict[str, dict]:
    """What scores.json will record of cells, as far as a grid needs it, before anything runs."""
    rows = {}
    for name in names:
        cell = study.cell(name)
        row = {
            "kind": cell.kind,
            "family": cell.family,
            "width": int(dict(cell.network).get("width", 0)),
            "n_train": len(images.train(cell)),
            "subset": cell.data.part,
            "seed": cell.seed,
        }
        if cell.kind != "closed_form":
            row["params"] = count_params(cell_network(cell, images.shape), images.shape)
            row |= {"kernel": cell.kernel, "preconditioning": cell.preconditioning}
        rows[name] = row
    return rows
