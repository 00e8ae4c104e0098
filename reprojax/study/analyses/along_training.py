"""Scores along training: when a network gets good, and when it memorizes (arXiv 2505.17638)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from reprojax.data.transform import to_uint8
from reprojax.denoisers.network import network_function
from reprojax.errors import InputError
from reprojax.models.families import param_shapes
from reprojax.rng import root_key, stream
from reprojax.scoring.crossing import crossing, first_fall
from reprojax.scoring.frechet import Projection, frechet_deviations, frechet_interval
from reprojax.scoring.models import is_memorized, is_new
from reprojax.scoring.pairs import rp, rp_chance
from reprojax.scoring.scoreboard import TrainSet, plain
from reprojax.scoring.stats import line_slope, wilson
from reprojax.study.analyses.common import Ruler, cells_named, float_samples, study_ruler
from reprojax.study.analyses.grid_layout import Layout, cell_rows, lay_out
from reprojax.study.analyses.specs import AlongTraining
from reprojax.study.cells import Cell, Study
from reprojax.study.images import StudyImages
from reprojax.study.scores import read_scores, real_set
from reprojax.study.stages import Context, cell_network, read_samples
from reprojax.training.loop import EVAL_SIGMAS
from reprojax.training.snapshots import snapshots
from reprojax.training.step import denoising_losses
from reprojax.training.weights import load_weights
from reprojax.types import DenoiseFn

FIELD = "analyses.along_training.cells"

Features = dict[int, np.ndarray]  # by step


class Course(NamedTuple):
    """What is seen of one cell along its training.

    Args:
        rows: scores at each snapshot.
        copied: bool `[snapshots, n]`, which samples are memorized.
        deviations: `[snapshots, g]` of the Fréchet distances, by the jackknife over noises.
    """

    rows: list[dict[str, Any]]
    copied: np.ndarray
    deviations: np.ndarray


class Tools(NamedTuple):
    """What all cells are measured with.

    Args:
        ruler: the study's descriptor and RP threshold.
        tau_gl: its GL threshold.
        projection: coordinates of the Fréchet distance.
        heldout: held-out images in them.
        references: GL of held-out images by cell.
    """

    ruler: Ruler
    tau_gl: float
    projection: Projection
    heldout: np.ndarray
    references: Mapping[str, float | None]


def check_along_training(study: Study, images: StudyImages, spec: AlongTraining) -> None:
    """Raises InputError where the cells leave nothing to be measured along their training."""
    lay_out(cell_rows(study, images, spec.cells), FIELD)
    if study.loop.snapshots < 2:
        allowed = "2 or more (12, say), for the analysis 'along_training'"
        raise InputError("loop.snapshots", study.loop.snapshots, allowed)
    if images.heldout is None or len(images.heldout) < 2:
        allowed = "2 or more, which the analysis 'along_training' compares samples with"
        raise InputError("data.n_heldout", study.data.n_heldout, allowed)
    for name in spec.cells:
        cell = study.cell(name)
        if cell.kind != "network" or cell.weights or cell.num_classes:
            raise InputError(FIELD, name, "unconditional networks that the study trains")
        if len(images.train(cell)) < 2:
            raise InputError(FIELD, name, "networks of 2 training images or more")


def along_training(context: Context, spec: AlongTraining, identity: str) -> dict[str, Any]:
    """Samples every snapshot and scores it as the study scores the last; see `AlongTraining`.

    Returns:
        ``cells``: per cell its scores at each step and its two times, ``pairs``: RP of two cells at
        each step, ``groups``: how the times grow with the number of training images.
    """
    cells = cells_named(context, spec.cells)
    paths = {cell.name: _snapshots(context, cell) for cell in cells}
    layout = lay_out(cell_rows(context.study, context.images, spec.cells))
    tools = _tools(context, identity)
    total, done = sum(map(len, paths.values())), 0
    courses: dict[str, Course] = {}
    pairs = []
    with context.reporter.task("analyse along_training", total, "snapshots") as advance:

        def step() -> None:
            nonlocal done
            done += 1
            advance(done, total)
            context.stop.check("in sampling snapshots for an analysis")

        for names in _same_images(layout):
            features: dict[str, Features] = {}
            for name in names:
                cell = context.study.cell(name)
                followed = _follow(context, cell, paths[name], spec, tools, step)
                courses[name], features[name] = followed
            pairs += [
                {**pair, "rows": _agreement(tools.ruler, features[pair["a"]], features[pair["b"]])}
                for pair in _partners(layout, names)
            ]
    found = [
        _cell(layout, cell, courses[cell.name], tools, spec, index)
        for index, cell in enumerate(cells)
    ]
    return plain(
        {
            "n": min(spec.n, context.bank.n),
            "descriptor": tools.ruler.descriptor.name,
            "threshold": tools.ruler.tau,
            "gl_threshold": tools.tau_gl,
            "memorized_share": spec.memorized_share,
            "quality": spec.quality,
            "cells": found,
            "pairs": pairs,
            "groups": list(growth(found)),
        }
    )


def _snapshots(context: Context, cell: Cell) -> dict:
    folder = context.workdir.path / context.folder(cell)
    found = snapshots(folder)
    if len(found) < 2:
        allowed = (
            f"{cell.name} was trained without snapshots in this folder: take another --workdir"
        )
        raise InputError("loop.snapshots", context.study.loop.snapshots, allowed)
    return found


def _tools(context: Context, identity: str) -> Tools:
    """As `reprojax.scoring.scoreboard.score_all` has them."""
    ruler = study_ruler(context, identity)
    models = read_scores(context.workdir.path, identity)["models"]
    scores = {row["name"]: row for row in models if row["score"] == "gl"}
    largest = real_set(context.images.split(context.images.largest).train, ruler.descriptor)
    projection = Projection.fit(largest.features)
    return Tools(
        ruler=ruler,
        tau_gl=next(iter(scores.values()))["threshold"],
        projection=projection,
        heldout=projection(ruler.descriptor(context.images.heldout.images())),
        references={name: row["reference"] for name, row in scores.items()},
    )


def _same_images(layout: Layout) -> list[list[str]]:
    """Names of the networks of each training set, the smallest set first."""
    sets: dict[tuple[int, str], list[str]] = {}
    for (_, n, subset, _), name in sorted(layout.networks.items()):
        sets.setdefault((n, subset), []).append(name)
    return [sets[key] for key in sorted(sets)]


def _partners(layout: Layout, names: list[str]) -> Iterator[dict[str, Any]]:
    """Of the networks of one training set, two that differ in capacity and two in their seed.

    Networks of two capacities have each the seed that is usual for theirs.
    """
    found = {}
    for a, b in combinations(names, 2):
        (c1, n, subset, s1), (c2, _, _, s2) = layout.place(a), layout.place(b)
        usual = (layout.seeds[c1], layout.seeds[c2])
        differ = "seed" if c1 == c2 else "capacity" if (s1, s2) == usual else ""
        if differ and differ not in found:
            found[differ] = {"a": a, "b": b, "differ": differ, "n_train": n, "subset": subset}
    yield from found.values()


def _follow(
    context: Context,
    cell: Cell,
    paths: Mapping[int, Any],
    spec: AlongTraining,
    tools: Tools,
    step_done: Callable[[], None],
) -> tuple[Course, Features]:
    """Samples and scores each snapshot of a cell; gives the features of its samples too."""
    train = real_set(context.images.train(cell), tools.ruler.descriptor)
    optimum = _optimum_features(context, cell, spec.n, tools.ruler)
    rows, copied, deviations, features = [], [], [], {}
    for step, path in paths.items():
        denoiser = _snapshot_denoiser(context, cell, path)
        images, _ = float_samples(
            context, cell, context.study.sampler_of(cell), spec.n, lambda d=denoiser: d, str(step)
        )
        pixels = to_uint8(images)
        features[step] = tools.ruler.descriptor(pixels)
        copied.append(is_memorized(pixels, train.images))
        row = {"step": step, **_shares(copied[-1], features[step], train, tools)}
        row["frechet"], spread = _frechet(features[step], tools)
        deviations.append(spread)
        row |= _losses(context, cell, denoiser)
        row["optimum"] = None if optimum is None else _rp(tools.ruler, features[step], optimum)
        rows.append(row)
        step_done()
    last = features[max(paths)]
    for row in rows:
        row["final"] = _rp(tools.ruler, features[row["step"]], last)
    return Course(rows, np.stack(copied), np.stack(deviations)), features


def _snapshot_denoiser(context: Context, cell: Cell, path: Any) -> DenoiseFn:
    """Equal modules compile once: a snapshot's weights are arguments of the same programs."""
    module = cell_network(cell, context.images.shape)
    params = load_weights(path, param_shapes(module, context.images.shape), "snapshots")
    return network_function(cell.kind)(params, module, cell.precondition())


def _optimum_features(context: Context, cell: Cell, n: int, ruler: Ruler) -> np.ndarray | None:
    """Of the samples of the empirical optimum of the cell's images, if the study has it."""
    for other in context.study.cells:
        if other.family == "optimum" and other.data == cell.data:
            return ruler.descriptor(read_samples(context, other)[0][:n])
    return None


def _shares(
    copied: np.ndarray, features: np.ndarray, train: TrainSet, tools: Tools
) -> dict[str, Any]:
    n, found = len(copied), {}
    flags = {"memorized": copied, "gl": is_new(features, train.features, tools.tau_gl)}
    for name, flag in flags.items():
        count = int(flag.sum())
        found[name] = {"value": count / n, "ci95": list(wilson(count, n)), "n": n}
    return found


def _frechet(features: np.ndarray, tools: Tools) -> tuple[dict[str, Any] | None, np.ndarray]:
    """The Fréchet distance with the jackknife's deviations; None with too few samples for it."""
    if len(features) < 3:  # a covariance, with a sample left out
        return None, np.zeros(0)
    value, deviations = frechet_deviations(tools.projection(features), tools.heldout)
    interval = list(frechet_interval(value, deviations))
    return {"value": value, "ci95": interval, "n": len(features)}, deviations


def _losses(context: Context, cell: Cell, denoiser: DenoiseFn) -> dict[str, list[float]]:
    """Denoising loss per noise level on training and held-out images, with one noise for all."""
    train, heldout = context.images.train(cell), context.images.heldout
    count = min(context.study.loop.eval_images, len(heldout))
    sigmas, key = jnp.asarray(EVAL_SIGMAS, jnp.float32), stream(root_key(0), "along-training")
    found = {}
    for name, subset in (("loss_train", train), ("loss_heldout", heldout)):
        losses = denoising_losses(denoiser, subset.take(subset.cycle(count)), None, sigmas, key)
        found[name] = np.asarray(losses, float).tolist()
    return found


def _rp(ruler: Ruler, a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    value, n = rp(a, b, ruler.tau), len(a)
    interval = list(wilson(round(value * n), n))
    return {"rp": value, "ci95": interval, "chance": rp_chance(a, b, ruler.tau), "n": n}


def _agreement(ruler: Ruler, a: Features, b: Features) -> list[dict[str, Any]]:
    """RP of two cells at the steps where both have a snapshot."""
    return [{"step": step, **_rp(ruler, a[step], b[step])} for step in a if step in b]


def _cell(
    layout: Layout, cell: Cell, course: Course, tools: Tools, spec: AlongTraining, index: int
) -> dict[str, Any]:
    """All of one cell, with the times that its rows tell."""
    capacity, n, subset, seed = layout.place(cell.name)
    return {
        "name": cell.name,
        "capacity": layout.label(capacity),
        "n_train": n,
        "subset": subset,
        "seed": seed,
        "batch_size": cell.training.batch_size,
        "gl_reference": tools.references.get(cell.name),
        **times(course, spec.memorized_share, spec.quality, index),
        "rows": course.rows,
    }


def times(course: Course, memorized_share: float, quality: float, index: int) -> dict[str, Any]:
    """When a network memorizes and when it is good, in steps.

    Args:
        course: of one network.
        memorized_share: reached at ``t_mem`` (arXiv 2505.17638, where it grows like N).
        quality: the Fréchet distance has fallen to this many times its lowest at ``t_gen`` (there
            it hardly depends on N).
        index: of random streams.

    Returns:
        ``t_mem`` and ``t_gen`` as a `Crossing` has them, ``best_step`` with the lowest Fréchet
        distance and ``best_loss_step`` with the lowest held-out loss (geometric mean over noise
        levels), both among the snapshots.
    """
    rows = course.rows
    steps = [row["step"] for row in rows]
    reached = crossing(steps, course.copied, memorized_share, index=2 * index)
    loss = [float(np.mean(np.log(row["loss_heldout"]))) for row in rows]
    found = {"t_mem": reached.as_dict(), "best_loss_step": steps[int(np.argmin(loss))]}
    curve = [row["frechet"] for row in rows if row.get("frechet")]
    if len(curve) < len(rows) or min(c["value"] for c in curve) <= 0:
        return {**found, "t_gen": None, "best_step": None}
    value = [c["value"] for c in curve]
    good = first_fall(steps, value, course.deviations, quality, index=2 * index + 1)
    return {**found, "t_gen": good.as_dict(), "best_step": steps[int(np.argmin(value))]}


def growth(cells: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """How the times of networks that differ in their number of images alone grow with it.

    Args:
        cells: with ``capacity``, ``subset``, ``seed``, ``n_train``, ``t_mem`` and ``t_gen``.

    Yields:
        per group its facts and, for each time, the slope of log time on log N with a 95 % interval,
        from networks that reach it within their budget, how many these are and how many not.
        Networks that never do would make a slope steeper, so it is a lower bound where there are
        any.
    """
    facts = ("capacity", "subset", "seed")
    for key in dict.fromkeys(tuple(cell[f] for f in facts) for cell in cells):
        group = [cell for cell in cells if tuple(cell[f] for f in facts) == key]
        group = sorted(group, key=lambda cell: cell["n_train"])
        row: dict[str, Any] = dict(zip(facts, key)) | {"names": [cell["name"] for cell in group]}
        for name in ("t_mem", "t_gen"):
            known = [(c["n_train"], c[name]) for c in group if c[name]]
            points = [(n, t["value"]) for n, t in known if t["value"] is not None]
            line = line_slope(*np.log(np.array(points).reshape(-1, 2)).T) if points else None
            row[name] = {
                "slope": line and line[0],
                "intercept": line and line[1],
                "ci95": line and line[2] and list(line[2]),
                "num_reached": len(points),
                "num_never": sum(t["censored"] == "above" for _, t in known),
                "num_at_once": sum(t["censored"] == "below" for _, t in known),
            }
        yield row
