"""Compares models sampled by their native samplers with the same models under one solver.

If each family has its own sampler, samples of two families differ for two reasons. This analysis
samples every denoiser with the study's sampler from the same noises as well, and compares all pairs
both ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reprojax.analyses.common import float_samples, lazy_denoiser, progress, study_ruler
from reprojax.data.transform import to_uint8
from reprojax.errors import InputError, require_choice
from reprojax.scoring.pairs import MAE_THRESHOLD
from reprojax.scoring.published import PAPER_MODELS, published_pairs
from reprojax.scoring.scores import plain
from reprojax.scoring.summary import pair_rows, summarise
from reprojax.study.cells import Cell
from reprojax.study.context import Context
from reprojax.study.images import Images
from reprojax.study.models import Imported, NetworkModel
from reprojax.study.study import AnalysisSettings, Study

Row = Mapping[str, Any]


@dataclass(frozen=True)
class SharedSolver(AnalysisSettings):
    """Settings for all pairs with native samplers, and with the study's sampler for all models.

    Attributes:
        cells: The models, in the order in which figures show them.
        n: The number of noises.
        ceiling: The two seeds of one model among the cells, or (). Summaries of a group of models
            leave the second one out.
        paper: For each cell the model of arXiv 2310.05264 to compare it with, or "" for none; or
            () for no comparison.
    """

    n: int = 1024
    ceiling: tuple[str, ...] = ()
    paper: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        if len(set(self.cells)) < max(2, len(self.cells)):
            raise InputError("cells", self.cells, "must be two or more different models")
        if self.ceiling and (len(self.ceiling) != 2 or len(set(self.ceiling)) != 2):
            raise InputError("ceiling", self.ceiling, "must be two seeds of one model, or empty")
        for name in self.ceiling:
            require_choice("ceiling", name, self.cells)
        self._check_paper()

    def _check_paper(self) -> None:
        if self.paper and len(self.paper) != len(self.cells):
            requirement = f"must have {len(self.cells)} names, one for each cell"
            raise InputError("paper", self.paper, requirement)
        names = [name for name in self.paper if name]
        for name in names:
            require_choice("paper", name, PAPER_MODELS)
            if names.count(name) > 1:
                raise InputError("paper", name, "must not be named for two cells")
        if any(c in self.ceiling[1:] and p for c, p in zip(self.cells, self.paper)):
            requirement = f"must be '' for the second seed, {self.ceiling[1]}"
            raise InputError("paper", self.paper, requirement)


def keeps_own(cell: Cell) -> bool:
    """Returns True if a model keeps its own sampler, because no other solver can sample it.

    A flow map is not a denoiser, and a progressively distilled student is a denoiser only at the
    few levels that it was trained for.
    """
    model = cell.model
    distilled = isinstance(model, NetworkModel) and model.objective == "progressive"
    return distilled or model.samples != "denoiser"


def is_resampled(study: Study, cell: Cell) -> bool:
    """Returns True if the cell has another sampler than the study's, which could replace it."""
    native = study.sampler_of(cell).identity()
    return not keeps_own(cell) and native != study.sampler.identity()


def check_shared_solver(study: Study, images: Images, settings: SharedSolver) -> None:
    """Raises InputError unless the cells can be sampled and compared as the settings ask."""
    cells = [study.cell(name) for name in settings.cells]
    if study.sampler.flow_map and not all(map(keeps_own, cells)):
        requirement = "must be a solver for denoisers, for the analysis 'shared_solver'"
        raise InputError("sampling.solver", study.sampler.solver, requirement)
    for cell in cells:
        if cell.model.samples == "map":
            requirement = "must be a denoiser, a flow map or samples; this is a contrast model"
            raise InputError("analyses.shared_solver.cells", cell.name, requirement)
    for cell, paper in zip(cells, settings.paper):
        if paper and cell.kind == "closed_form":
            requirement = f"must be '' for {cell.name}, which is not a trained model"
            raise InputError("analyses.shared_solver.paper", paper, requirement)
    if settings.ceiling:
        # weights may be given as files, and students of two seeds have teachers of two seeds
        first, second = (_without_seed(study.cell(name)) for name in settings.ceiling)
        if first != second:
            requirement = "must be two networks that differ in nothing but their seed"
            raise InputError("analyses.shared_solver.ceiling", settings.ceiling, requirement)


def _without_seed(cell: Cell) -> Cell:
    """Returns a cell that is the same for every seed of its network."""
    model = cell.model
    if isinstance(model, NetworkModel):
        model = replace(model, seed=0, teacher="teacher")
    if isinstance(model, Imported):
        model = replace(model, weights="")
    return replace(cell, name="", model=model)


def shared_solver(context: Context, settings: SharedSolver, identity: str) -> dict[str, Any]:
    """Compares all pairs of cells with native samplers and with one sampler for all.

    Returns:
        ``native`` and ``shared``: a row per pair with RP and MAE score, intervals and chances;
        ``samplers`` per cell; ``paper``: the published scores of pairs of the paper's models, or
        None; ``summary``: for each of these, and for the pairs that the paper has too.
    """
    study, ruler = context.study, study_ruler(context, identity)
    cells = context.cells_named(settings.cells)
    pairs = len(cells) * (len(cells) - 1) // 2
    total = 2 * pairs + sum(is_resampled(study, cell) for cell in cells)
    with progress(context, "shared_solver", total, "samplings and pairs") as step:
        native, shared, samplers = {}, {}, {}
        for cell in cells:
            result = _images(context, cell, settings.n)
            native[cell.name], shared[cell.name], samplers[cell.name] = result
            if is_resampled(study, cell):
                step()
        groups = _groups(context, cells, settings.n)
        tables = {
            "native": pair_rows(ruler, native, step, groups),
            "shared": pair_rows(ruler, shared, step, groups),
        }
    paper = published_pairs(dict(zip(settings.cells, settings.paper)))
    return {
        "n": len(native[settings.cells[0]]),
        "descriptor": ruler.descriptor.name,
        "threshold": ruler.tau,
        "mae_threshold": MAE_THRESHOLD,
        "solver": study.sampler.identity(),
        "cells": list(settings.cells),
        "closed": [cell.name for cell in cells if cell.kind == "closed_form"],
        "ceiling": list(settings.ceiling),
        "samplers": samplers,
        **tables,
        "paper": paper,
        "summary": _summaries(tables, paper, cells, settings.ceiling),
    }


def _images(context: Context, cell: Cell, n: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Returns a cell's samples with its native and with the shared sampler, and both samplers.

    Returns:
        The samples, uint8 `[n, h, w, c]` twice, and ``{"native", "shared", "own"}``: the identities
        of the samplers with their evaluations, and whether the second is not the shared sampler.
    """
    study = context.study
    images, nfe = context.samples(cell)
    native = shared = images[:n].copy()  # a view would keep the whole bank's images in memory
    if cell.model.samples == "arrays":
        unknown = {"solver": "", "nfe": nfe}
        return native, shared, {"native": unknown, "shared": unknown, "own": True}
    before = after = {**study.sampler_of(cell).identity(), "nfe": nfe}
    if is_resampled(study, cell):
        denoiser = lazy_denoiser(context, cell)
        images, nfe = float_samples(context, cell, study.sampler, n, denoiser)
        shared, after = to_uint8(images), {**study.sampler.identity(), "nfe": nfe}
    own = {**after, "nfe": None} != {**study.sampler.identity(), "nfe": None}
    return native, shared, {"native": before, "shared": after, "own": own}


def _groups(context: Context, cells: Sequence[Cell], n: int) -> dict[str, np.ndarray | None]:
    """Returns the groups of noises with the same condition for conditional cells, by name."""
    banks = {cell.name: context.conditions(cell) for cell in cells}
    return {name: None if bank is None else bank.first(n).groups() for name, bank in banks.items()}


def _summaries(
    tables: Mapping[str, Sequence[Row]],
    paper: Mapping[str, Any] | None,
    cells: Sequence[Cell],
    seeds: Sequence[str],
) -> dict[str, Any]:
    """Returns the summary of each table, and of its pairs that the paper has too."""
    peers = {cell.name for cell in cells if cell.kind != "closed_form"} - set(seeds[1:])
    summary = {name: summarise(rows, peers, seeds) for name, rows in tables.items()}
    if paper:
        names = set(paper["models"])
        for name, rows in tables.items():
            summary[f"{name}_counterparts"] = summarise(rows, names, seeds)
        summary["paper"] = summarise(paper["rows"], names)
    return plain(summary)
