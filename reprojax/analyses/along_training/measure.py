"""Measures along training when a network gets good and when it memorizes (arXiv 2505.17638)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from reprojax.analyses.common import cell_rows, float_samples, image_cond, progress, study_ruler
from reprojax.data.transform import to_uint8
from reprojax.errors import InputError, require_number
from reprojax.rng import root_key, stream
from reprojax.scoring.course import Course, growth, times
from reprojax.scoring.frechet import Projection, frechet_deviations, frechet_interval
from reprojax.scoring.layout import Layout, lay_out
from reprojax.scoring.models import is_memorized, is_new
from reprojax.scoring.ruler import Ruler
from reprojax.scoring.scores import plain
from reprojax.scoring.stats import wilson
from reprojax.study.analysing import networks_only
from reprojax.study.cells import Cell
from reprojax.study.context import Context
from reprojax.study.images import Images
from reprojax.study.scores import read_scores
from reprojax.study.study import AnalysisSettings, Study
from reprojax.training.loop import EVAL_SIGMAS
from reprojax.training.step import denoising_losses
from reprojax.training.weights import load_weights
from reprojax.types import DenoiseFn

FIELD = "analyses.along_training.cells"

Features = dict[int, np.ndarray]  # by step


@dataclass(frozen=True)
class AlongTraining(AnalysisSettings):
    """Settings for the scores of every snapshot of training.

    Attributes:
        cells: Trained networks.
        memorized_share: The share of memorized samples from which on a network counts as
            memorizing.
        quality: A network counts as good if its Fréchet distance to held-out images is at most
            this many times the lowest that it reaches.
    """

    memorized_share: float = 0.5
    quality: float = 1.1

    def __post_init__(self):
        super().__post_init__()
        require_number("memorized_share", self.memorized_share, above=0, below=1)
        require_number("quality", self.quality, above=1)


class Tools(NamedTuple):
    """The parts of the scoring that are the same for all cells.

    Attributes:
        ruler: The study's descriptor and RP threshold.
        tau_gl: The study's GL threshold.
        projection: The projection to the coordinates of the Fréchet distance.
        heldout: The held-out images in these coordinates, `[n_heldout, k]`.
        references: The GL of held-out images, by cell name.
    """

    ruler: Ruler
    tau_gl: float
    projection: Projection
    heldout: np.ndarray
    references: Mapping[str, float | None]


def check_along_training(study: Study, images: Images, settings: AlongTraining) -> None:
    """Raises InputError unless the cells can be measured along their training."""
    lay_out(cell_rows(study, images, settings.cells), FIELD)
    if study.loop.snapshots < 2:
        requirement = "must be at least 2 for the analysis 'along_training', e.g. 12"
        raise InputError("loop.snapshots", study.loop.snapshots, requirement)
    if images.heldout is None or len(images.heldout) < 2:
        requirement = "must be at least 2: the analysis 'along_training' compares samples with them"
        raise InputError("data.n_heldout", study.data.n_heldout, requirement)
    cells = [study.cell(name) for name in settings.cells]
    networks_only(FIELD, cells)
    for cell in cells:
        if not cell.model.trains:
            raise InputError(FIELD, cell.name, "must be a network that the study trains")
        if images.n_train(cell) < 2:
            raise InputError(FIELD, cell.name, "must have at least 2 training images")


def along_training(context: Context, settings: AlongTraining, identity: str) -> dict[str, Any]:
    """Samples every snapshot and scores it as the study scores the finished network.

    Returns:
        ``cells``: the scores of each cell at each step, and its two times. ``pairs``: RP of two
        cells at each step. ``groups``: how the times grow with the number of training images.
    """
    cells = context.cells_named(settings.cells)
    paths = {cell.name: _snapshots(context, cell) for cell in cells}
    layout = lay_out(cell_rows(context.study, context.images, settings.cells))
    tools = _tools(context, identity)
    courses: dict[str, Course] = {}
    pairs = []
    total = sum(map(len, paths.values()))
    with progress(context, "along_training", total, "snapshots") as step:
        for names in _networks_by_images(layout):
            features: dict[str, Features] = {}
            for name in names:
                cell = context.study.cell(name)
                result = _follow(context, cell, paths[name], settings.n, tools, step)
                courses[name], features[name] = result
            pairs += [
                {**pair, "rows": _agreement(context, tools.ruler, pair, features)}
                for pair in _partners(layout, names)
            ]
    rows = [
        {
            **_facts(layout, cell),
            "gl_reference": tools.references.get(cell.name),
            **times(courses[cell.name], settings.memorized_share, settings.quality, index),
            "rows": courses[cell.name].rows,
        }
        for index, cell in enumerate(cells)
    ]
    return plain(
        {
            "n": min(settings.n, context.noise.n),
            "descriptor": tools.ruler.descriptor.name,
            "threshold": tools.ruler.tau,
            "gl_threshold": tools.tau_gl,
            "memorized_share": settings.memorized_share,
            "quality": settings.quality,
            "cells": rows,
            "pairs": pairs,
            "groups": list(growth(rows)),
        }
    )


def _snapshots(context: Context, cell: Cell) -> dict[int, Path]:
    snapshots = context.files(cell).snapshots()
    if len(snapshots) < 2:
        requirement = f"{cell.name} was trained here without snapshots; give another --workdir"
        raise InputError("loop.snapshots", context.study.loop.snapshots, requirement)
    return snapshots


def _tools(context: Context, identity: str) -> Tools:
    ruler = study_ruler(context, identity)
    scores = read_scores(context.workdir.path, identity)
    projection = Projection.fit(context.images.largest_set(ruler.descriptor).features)
    return Tools(
        ruler=ruler,
        tau_gl=scores.threshold("gl"),
        projection=projection,
        heldout=projection(ruler.descriptor(context.images.heldout.images())),
        references={row.name: row.reference for row in scores.models if row.score == "gl"},
    )


def _networks_by_images(layout: Layout) -> list[list[str]]:
    """Returns the names of the networks of each training set, the smallest set first."""
    sets: dict[tuple[int, str], list[str]] = {}
    for (_, n, subset, _), name in sorted(layout.networks.items()):
        sets.setdefault((n, subset), []).append(name)
    return [sets[key] for key in sorted(sets)]


def _partners(layout: Layout, names: list[str]) -> Iterator[dict[str, Any]]:
    """Yields the first two networks of a training set that differ in capacity, and in seed.

    Networks of different capacities are compared with the seed that is usual for each.
    """
    pairs = {}
    for a, b in combinations(names, 2):
        (c1, n, subset, s1), (c2, _, _, s2) = layout.place(a), layout.place(b)
        usual = (layout.seeds[c1], layout.seeds[c2])
        differ = "seed" if c1 == c2 else "capacity" if (s1, s2) == usual else ""
        if differ and differ not in pairs:
            pairs[differ] = {"a": a, "b": b, "differ": differ, "n_train": n, "subset": subset}
    yield from pairs.values()


def _follow(
    context: Context,
    cell: Cell,
    paths: Mapping[int, Path],
    n: int,
    tools: Tools,
    step_done: Callable[[], None],
) -> tuple[Course, Features]:
    """Samples and scores each snapshot of a cell. Returns the features of its samples too."""
    ruler, sampler = tools.ruler, context.study.sampler_of(cell)
    train = context.images.real_set(cell, ruler.descriptor)
    optimum = _optimum_features(context, cell, n, ruler)
    rows, copied, deviations, features = [], [], [], {}
    for step, path in paths.items():
        # Weights are arguments of the compiled programs, so all snapshots use the same ones.
        params = load_weights(path, cell.model.param_shapes(context.images.shape), "snapshots")
        denoiser = context.function(cell, params)
        images, _ = float_samples(context, cell, sampler, n, lambda d=denoiser: d, str(step))
        pixels = to_uint8(images)
        features[step] = ruler.descriptor(pixels)
        copied.append(is_memorized(pixels, train.images))
        new = is_new(features[step], train.features, tools.tau_gl)
        frechet, spread = _frechet(features[step], tools)
        deviations.append(spread)
        row = {"step": step, "memorized": _share(copied[-1]), "gl": _share(new), "frechet": frechet}
        row |= _losses(context, cell, denoiser)
        row["optimum"] = None if optimum is None else ruler.agreement(features[step], optimum)
        rows.append(row)
        step_done()
    last, conditions = features[max(paths)], context.conditions(cell)
    for row in rows:
        row["final"] = ruler.agreement(features[row["step"]], last, conditions)
    return Course(rows, np.stack(copied), np.stack(deviations)), features


def _optimum_features(context: Context, cell: Cell, n: int, ruler: Ruler) -> np.ndarray | None:
    """Returns features of the optimum of the cell's images, or None if the study lacks it."""
    for other in context.study.cells:
        if other.model.family == "optimum" and other.data == cell.data:
            return ruler.descriptor(context.samples(other)[0][:n])
    return None


def _share(flags: np.ndarray) -> dict[str, Any]:
    count, n = int(flags.sum()), len(flags)
    return {"value": count / n, "ci95": list(wilson(count, n)), "n": n}


def _frechet(features: np.ndarray, tools: Tools) -> tuple[dict[str, Any] | None, np.ndarray]:
    """Returns the Fréchet distance and its deviations, or None with fewer than 3 samples."""
    if len(features) < 3:  # The jackknife leaves one out, and a covariance needs two.
        return None, np.zeros(0)
    value, deviations = frechet_deviations(tools.projection(features), tools.heldout)
    interval = list(frechet_interval(value, deviations))
    return {"value": value, "ci95": interval, "n": len(features)}, deviations


def _losses(context: Context, cell: Cell, denoiser: DenoiseFn) -> dict[str, list[float]]:
    """Returns losses by noise level on training and held-out images, with the same noise."""
    train, heldout = context.images.train(cell), context.images.heldout
    count = min(context.study.loop.eval_images, len(heldout))
    sigmas, key = jnp.asarray(EVAL_SIGMAS, jnp.float32), stream(root_key(0), "along-training")
    losses = {}
    for name, subset in (("loss_train", train), ("loss_heldout", heldout)):
        positions = subset.cycle(count)
        cond = image_cond(context, cell, subset, positions)
        values = denoising_losses(denoiser, subset.take(positions), cond, sigmas, key)
        losses[name] = np.asarray(values, float).tolist()
    return losses


def _agreement(
    context: Context, ruler: Ruler, pair: Mapping[str, Any], features: Mapping[str, Features]
) -> list[dict[str, Any]]:
    """Returns RP of two cells at the steps where both have a snapshot."""
    a, b = features[pair["a"]], features[pair["b"]]
    banks = [context.conditions(context.study.cell(pair[side])) for side in "ab"]
    conditions = None if None in banks else banks[0]
    steps = [step for step in a if step in b]
    return [{"step": s, **ruler.agreement(a[s], b[s], conditions)} for s in steps]


def _facts(layout: Layout, cell: Cell) -> dict[str, Any]:
    capacity, n, subset, seed = layout.place(cell.name)
    return {
        "name": cell.name,
        "capacity": layout.label(capacity),
        "n_train": n,
        "subset": subset,
        "seed": seed,
        "batch_size": cell.model.training.batch_size,
    }
