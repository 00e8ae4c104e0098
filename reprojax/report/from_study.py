"""The report of a study: gathers what its cells left in the workdir."""

from __future__ import annotations

import json
import platform
from itertools import pairwise

import jax
import numpy as np

import reprojax
from reprojax.report.analysis_tables import print_analyses
from reprojax.report.inputs import ReportInputs
from reprojax.report.tables import print_scores
from reprojax.report.write import write_report
from reprojax.runtime.files import content_hash, write_json
from reprojax.scoring.scoreboard import nearest
from reprojax.study.analyses.run import read_analyses
from reprojax.study.cells import DataSpec
from reprojax.study.scores import read_scores, real_set, study_descriptor
from reprojax.study.stages import Context, cell_facts, read_samples
from reprojax.training.metrics import read_metrics

STAMP = "report/report.json"
ROWS = 64  # samples of a cell that are kept ready for the figures


def report_study(
    context: Context, identity: str, *, command: str, title: str, again: bool = False
) -> None:
    """Prints the tables, and draws figures and page unless they are there.

    Args:
        context: a scored study.
        identity: its hash.
        command: to cite.
        title: heading of the page.
        again: draw even if the report is up to date.
    """
    scores = read_scores(context.workdir.path, identity)
    print_scores(scores, context.reporter.console)
    page = context.workdir.path / "report" / "index.html"
    analyses = read_analyses(context, identity)
    print_analyses(analyses, context.reporter.console)
    stamp = {
        "scores": content_hash([scores, analyses]),
        "reprojax": reprojax.__version__,
        "title": title,
    }
    if not again and page.exists() and _read_stamp(context) == stamp:
        context.reporter.say(f"report: up to date at {page}")
        return
    samples = {c.name: read_samples(context, c)[0][:ROWS] for c in context.study.cells}
    metrics = _metrics(context)
    inputs = ReportInputs(
        title=title,
        command=command,
        scores=scores,
        samples=samples,
        nearest=_nearest_images(context, samples),
        metrics=metrics,
        facts=_facts(context, metrics),
        analyses=analyses,
    )
    for folder in ("figures", "report"):
        context.workdir.own(folder)
    write_report(inputs, context.workdir.path)
    write_json(context.workdir.path / STAMP, stamp)
    context.reporter.say(f"report: {page}")


def _read_stamp(context: Context) -> dict | None:
    path = context.workdir.path / STAMP
    return json.loads(path.read_text()) if path.exists() else None


def _nearest_images(context: Context, samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Per cell, the image of its training set nearest to each of its samples."""
    descriptor = study_descriptor(context)
    sharing: dict[DataSpec, list[str]] = {}
    for cell in context.study.cells:
        sharing.setdefault(cell.data, []).append(cell.name)
    found = {}
    for data, names in sharing.items():
        subset = context.images.split(data).train
        together = np.concatenate([samples[name] for name in names])
        index, _ = nearest(descriptor(together), real_set(subset, descriptor))
        pieces = np.split(subset.take(index), np.cumsum([len(samples[n]) for n in names])[:-1])
        found.update(zip(names, pieces, strict=True))
    return found


def _metrics(context: Context) -> dict[str, list[dict]]:
    folders = {c.name: context.workdir.path / context.folder(c) for c in context.study.cells}
    rows = {name: read_metrics(folder / "metrics.jsonl") for name, folder in folders.items()}
    return {name: found for name, found in rows.items() if found}


def training_seconds(rows: list[dict]) -> float:
    """Time in training steps, over all sessions of a run, from its metrics."""
    steps = [row for row in rows if "images_per_sec" in row]
    starts = [{"images": 0}, *steps]
    return sum((b["images"] - a["images"]) / b["images_per_sec"] for a, b in pairwise(starts))


def _facts(context: Context, metrics: dict[str, list[dict]]) -> dict[str, str]:
    study, device = context.study, jax.devices()[0]
    grid = study.sampler.grid
    origin = study.noise.path or f"seed {study.noise.seed}"
    facts = {
        "data": f"{study.data.source.name} {context.images.shape}",
        "noises": f"{context.bank.n} of {origin}",
        "sampler": f"{study.sampler.solver}, {study.sampler.dtype} state, "
        f"sigma {grid.sigma_max:g} to {grid.sigma_min:g}",
        "device": f"{len(jax.devices())} x {device.device_kind}",
        "versions": f"reprojax {reprojax.__version__}, jax {jax.__version__}, "
        f"Python {platform.python_version()}",
    }
    for name, rows in metrics.items():
        facts[f"training {name}"] = f"{training_seconds(rows):,.0f} s in steps"
    for cell in study.cells:
        trained_on = cell_facts(context, cell).get("device")
        if trained_on:
            facts[f"training {cell.name}"] += f" on {trained_on}"
    return facts
