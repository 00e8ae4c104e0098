"""The report of a study: gathers what its cells left in the workdir."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import jax
import numpy as np

import reprojax
from reprojax.report.inputs import ReportInputs, Shows
from reprojax.report.tables import print_analyses, print_scores
from reprojax.report.write import write_report
from reprojax.runtime.files import content_hash, read_json, write_json
from reprojax.scoring.scores import GIVEN_FEATURES
from reprojax.scoring.similarity import max_cosine
from reprojax.study.analysing import read_analyses
from reprojax.study.cells import Cell
from reprojax.study.context import Context
from reprojax.study.scores import read_scores, study_descriptor

STAMP = "report/report.json"
ROWS = 64  # samples of a cell that are kept ready for the figures


def report_study(
    context: Context,
    identity: str,
    *,
    command: str,
    title: str,
    shows: Mapping[str, Shows],
    again: bool = False,
) -> None:
    """Prints the tables, and draws figures and page unless they are there.

    Args:
        context: The context of a scored study.
        identity: The identity of its scores.
        command: The command line to cite.
        title: The heading of the page.
        shows: What draws each analysis, by name.
        again: Whether to draw even if the report is up to date.
    """
    scores = read_scores(context.workdir.path, identity)
    analyses = read_analyses(context, identity)
    inputs = ReportInputs(title, command, scores, analyses=analyses)
    print_scores(scores, context.reporter.console)
    print_analyses(inputs, shows, context.reporter.console)
    page = context.workdir.path / "report" / "index.html"
    stamp = {
        "scores": content_hash([scores.to_json(), analyses]),
        "reprojax": reprojax.__version__,
        "title": title,
    }
    if not again and page.exists() and read_json(context.workdir.path / STAMP) == stamp:
        context.reporter.say(f"report: up to date at {page}")
        return
    samples = _samples(context)
    metrics = _metrics(context)
    inputs = replace(
        inputs,
        samples=samples,
        nearest=_nearest_images(context, samples),
        metrics=metrics,
        facts=_facts(context, metrics),
    )
    for folder in ("figures", "report"):
        context.workdir.own(folder)
    write_report(inputs, context.workdir.path, shows)
    write_json(context.workdir.path / STAMP, stamp)
    context.reporter.say(f"report: {page}")


def _samples(context: Context) -> dict[str, np.ndarray]:
    """Returns the first samples of the cells that have images, by name."""
    images = {cell.name: context.samples(cell)[0] for cell in context.study.cells}
    return {name: x[:ROWS] for name, x in images.items() if x is not None}


def _nearest_images(context: Context, samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns per cell the image of its training set nearest to each of its samples."""
    cells = [cell for cell in context.study.cells if cell.name in samples]
    sharing: dict[str, list[Cell]] = {}
    for cell in cells:
        if context.images.train(cell) is not None:
            sharing.setdefault(context.images.key(cell), []).append(cell)
    if not sharing:
        return {}
    descriptor = study_descriptor(context)
    if descriptor.name == GIVEN_FEATURES:
        return {}
    nearest = {}
    for group in sharing.values():
        names = [cell.name for cell in group]
        together = np.concatenate([samples[name] for name in names])
        real = context.images.real_set(group[0], descriptor)
        _, index = max_cosine(descriptor(together), real.features)
        rows = context.images.train(group[0]).take(index)
        pieces = np.split(rows, np.cumsum([len(samples[n]) for n in names])[:-1])
        nearest.update(zip(names, pieces, strict=True))
    return nearest


def _metrics(context: Context) -> dict[str, list[dict]]:
    rows = {cell.name: context.files(cell).read_metrics() for cell in context.study.cells}
    return {name: metrics for name, metrics in rows.items() if metrics}


def training_seconds(rows: list[dict]) -> float:
    """Returns the time in training steps, over all sessions of a run, from its metrics."""
    steps = [row for row in rows if "images_per_sec" in row]
    starts = [{"images": 0}, *steps]
    return sum((b["images"] - a["images"]) / b["images_per_sec"] for a, b in pairwise(starts))


def _facts(context: Context, metrics: dict[str, list[dict]]) -> dict[str, str]:
    study, device = context.study, jax.devices()[0]
    versions = f"reprojax {reprojax.__version__}, jax {jax.__version__}"
    facts = {
        "device": f"{len(jax.devices())} x {device.device_kind}",
        "versions": f"{versions}, Python {platform.python_version()}",
    }
    if context.noise is not None:
        grid = study.sampler.grid
        origin = study.noise.path or f"seed {study.noise.seed}"
        levels = f"sigma {grid.sigma_max:g} to {grid.sigma_min:g}"
        sampler = f"{study.sampler.solver}, {study.sampler.dtype} state, {levels}"
        noises = f"{context.noise.n} of {origin}"
        data = f"{context.images.source} {context.images.shape}"
        facts = {"data": data, "noises": noises, "sampler": sampler, **facts}
    for name, rows in metrics.items():
        facts[f"training {name}"] = f"{training_seconds(rows):,.0f} s in steps"
    for cell in study.cells:
        device = context.files(cell).read_facts().get("device")
        if device and cell.name in metrics:
            facts[f"training {cell.name}"] += f" on {device}"
    return facts
