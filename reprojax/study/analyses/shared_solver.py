"""Native samplers against one solver for all: what of the agreement is the models' own.

Where each family is sampled its own way, two samplers differ along with two networks. Here every
denoiser is solved by the study's sampler from the same noises as well, and all pairs are compared
both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np

from reprojax.data.transform import to_uint8
from reprojax.errors import InputError
from reprojax.scoring.pairs import MAE_THRESHOLD
from reprojax.scoring.published import published_pair
from reprojax.scoring.scoreboard import SampleSet, plain, score_all
from reprojax.study.analyses.common import (
    Ruler,
    cells_named,
    float_samples,
    lazy_denoiser,
    study_ruler,
)
from reprojax.study.analyses.specs import SharedSolver
from reprojax.study.cells import Cell, Study
from reprojax.study.images import StudyImages
from reprojax.study.stages import Context, read_samples

SCORES = {"rp": "chance", "mae": "mae_chance"}  # of a row: each score and the key of its chance

Row = Mapping[str, Any]


def keeps_own(cell: Cell) -> bool:
    """Whether no solver of the equation takes this model, so that it keeps its own sampler.

    A flow map is no denoiser, and a progressively distilled student is one only at the few levels
    that it was trained for.
    """
    return cell.kind == "flow_map" or cell.objective == "progressive"


def resampled(study: Study, cell: Cell) -> bool:
    """Whether the cell's stored samples are not those of the shared solver, and should be."""
    native = study.sampler_of(cell).identity()
    return not keeps_own(cell) and native != study.sampler.identity()


def check_shared_solver(study: Study, images: StudyImages, spec: SharedSolver) -> None:
    """Raises InputError where the cells cannot be sampled or compared as the settings say."""
    cells = [study.cell(name) for name in spec.cells]
    if study.sampler.flow_map and not all(map(keeps_own, cells)):
        allowed = "a solver for denoisers, for the analysis 'shared_solver'"
        raise InputError("sampling.solver", study.sampler.solver, allowed)
    for cell in cells:
        if cell.num_classes and resampled(study, cell):
            allowed = "unconditional models, or such as have no sampler of their own"
            raise InputError("analyses.shared_solver.cells", cell.name, allowed)
    for cell, paper in zip(cells, spec.paper):
        if paper and cell.kind == "closed_form":
            allowed = f"'' for {cell.name}, which is no trained model"
            raise InputError("analyses.shared_solver.paper", paper, allowed)
    if spec.ceiling:
        # weights may be given as files, and students of two seeds have teachers of two seeds
        same = {"name": "", "seed": 0, "weights": "", "teacher": "teacher"}
        first, second = (replace(study.cell(name), **same) for name in spec.ceiling)
        if first != second:
            allowed = "two models that differ in nothing but their seed"
            raise InputError("analyses.shared_solver.ceiling", spec.ceiling, allowed)


def shared_solver(context: Context, spec: SharedSolver, identity: str) -> dict[str, Any]:
    """Compares all pairs of cells with native samplers and with one; see `SharedSolver`.

    Returns:
        ``native`` and ``shared``: a row per pair with RP and MAE score, intervals and chances;
        ``samplers`` per cell; ``paper``: the published scores of the pairs that have any, or None;
        ``summary`` of each of these, and of the pairs with a counterpart in the paper.
    """
    ruler, cells = study_ruler(context, identity), cells_named(context, spec.cells)
    pairs = len(cells) * (len(cells) - 1) // 2
    total = 2 * pairs + sum(resampled(context.study, cell) for cell in cells)
    done = 0
    with context.reporter.task("analyse shared_solver", total, "samplings and pairs") as advance:

        def step(where: str) -> None:
            nonlocal done
            done += 1
            advance(done, total)
            context.stop.check(where)

        native, shared, samplers = {}, {}, {}
        for cell in cells:
            name = cell.name
            native[name], shared[name], samplers[name] = _images(context, cell, spec.n)
            if resampled(context.study, cell):
                step(f"after sampling {name} for an analysis")
        found = {"native": pair_rows(ruler, native, step), "shared": pair_rows(ruler, shared, step)}
    published = _published(spec)
    return {
        "n": len(native[spec.cells[0]]),
        "descriptor": ruler.descriptor.name,
        "threshold": ruler.tau,
        "mae_threshold": MAE_THRESHOLD,
        "solver": context.study.sampler.identity(),
        "cells": list(spec.cells),
        "closed": [cell.name for cell in cells if cell.kind == "closed_form"],
        "ceiling": list(spec.ceiling),
        "samplers": samplers,
        **found,
        "paper": published,
        "summary": _summaries(found, published, cells, spec.ceiling),
    }


def _images(context: Context, cell: Cell, n: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """A cell's samples with its native and with the shared sampler, and what these are.

    Returns:
        uint8 `[n, h, w, c]` twice, and ``{"native", "shared", "own"}``: the identities with their
        evaluations, and whether the shared one is in truth the cell's own.
    """
    sampler = context.study.sampler
    stored, nfe = read_samples(context, cell)
    native = used = stored[:n].copy()  # a view would keep the whole bank's images in memory
    before = after = {**context.study.sampler_of(cell).identity(), "nfe": nfe}
    if resampled(context.study, cell):
        images, nfe = float_samples(context, cell, sampler, n, lazy_denoiser(context, cell))
        used, after = to_uint8(images), {**sampler.identity(), "nfe": nfe}
    own = {**after, "nfe": None} != {**sampler.identity(), "nfe": None}
    return native, used, {"native": before, "shared": after, "own": own}


def pair_rows(
    ruler: Ruler, images: Mapping[str, np.ndarray], step: Callable[[str], None]
) -> list[dict[str, Any]]:
    """RP and MAE score of all pairs, as scores.json has them of the same images.

    Args:
        ruler: of the study.
        images: uint8 `[n, h, w, c]` by name, row i from noise i.
        step: called after each pair, with where that was.

    Returns:
        Rows ``{"a", "b", "rp", "ci95", "chance", "mae", "mae_ci95", "mae_chance"}``.
    """
    samples = [SampleSet(name, x, ruler.descriptor(x)) for name, x in images.items()]
    scored, _ = score_all(
        samples,
        {},
        None,
        ruler.descriptor.name,
        ruler.tau,
        ruler.tau,
        progress=lambda what, done, total: step(f"in comparing {what}"),
    )
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for record in scored:
        row = rows.setdefault((record["a"], record["b"]), {"a": record["a"], "b": record["b"]})
        prefix = "mae_" if record["score"] == "mae" else ""
        row[record["score"]] = record["value"]
        row |= {prefix + key: record[key] for key in ("ci95", "chance")}
    return list(rows.values())


def _published(spec: SharedSolver) -> dict[str, Any] | None:
    """The paper's scores of the cells that have a counterpart, under the cells' names."""
    models = {cell: name for cell, name in zip(spec.cells, spec.paper) if name}
    if len(models) < 2:
        return None
    rows = [
        {"a": a, "b": b, **published_pair(models[a], models[b])._asdict()}
        for a, b in combinations(models, 2)
    ]
    return {"models": models, "rows": rows}


def _summaries(
    found: Mapping[str, Sequence[Row]],
    published: Mapping[str, Any] | None,
    cells: Sequence[Cell],
    ceiling: Sequence[str],
) -> dict[str, Any]:
    """The summary of each table, and of those pairs of ours that the paper has too."""
    peers = {cell.name for cell in cells if cell.kind != "closed_form"} - set(ceiling[1:])
    summary = {name: summarise(rows, peers, ceiling) for name, rows in found.items()}
    if published:
        both = set(published["models"])
        for name, rows in found.items():
            summary[f"{name}_counterparts"] = summarise(rows, both, ceiling)
        summary["paper"] = summarise(published["rows"], both)
    return plain(summary)


def summarise(
    rows: Sequence[Row], names: Collection[str], ceiling: Sequence[str] = ()
) -> dict[str, Any]:
    """Mean and lowest score of the pairs within a group of models, against two seeds of one.

    Args:
        rows: with ``a``, ``b``, ``rp`` and ``mae``, and their chances where they are known.
        names: of the group; a pair counts if both of its models are among them.
        ceiling: the two seeds, whose pair need not be within the group, or nothing.

    Returns:
        ``num_pairs``, and for "rp" and "mae" each ``mean``, ``min``, ``min_pair``, ``chance`` (the
        highest), ``ceiling`` and ``of_ceiling`` (the mean over it); what is not known is None.
    """
    among = [row for row in rows if row["a"] in names and row["b"] in names]
    seeds = [row for row in rows if {row["a"], row["b"]} == set(ceiling)]
    found: dict[str, Any] = {"num_pairs": len(among)}
    for score, chance in SCORES.items():
        lowest = min(among, key=lambda row: row[score], default=None)
        mean = fmean(row[score] for row in among) if among else None
        limit = seeds[0][score] if seeds else None
        found[score] = {
            "mean": mean,
            "min": lowest and lowest[score],
            "min_pair": lowest and [lowest["a"], lowest["b"]],
            "chance": max((row[chance] for row in among if chance in row), default=None),
            "ceiling": limit,
            "of_ceiling": mean / limit if among and limit else None,
        }
    return found
