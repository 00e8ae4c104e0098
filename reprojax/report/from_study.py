"""The report of a study: gathers what its cells left in the workdir."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import jax

import reprojax
from reprojax.files import content_hash, write_json
from reprojax.report.inputs import ReportInputs
from reprojax.report.tables import print_scores
from reprojax.report.write import write_report
from reprojax.scoring.descriptors import PixelDescriptor
from reprojax.scoring.scoreboard import TrainSet, nearest
from reprojax.study.images import image_blocks
from reprojax.study.runner import cell_samples_for_report, require_scores
from reprojax.study.stages import Context, cell_facts
from reprojax.training.metrics import read_metrics

STAMP = "report/report.json"
ROWS = 64  # samples a cell keeps ready for the figures


def report_study(
    context: Context,
    identity: str,
    *,
    command: str,
    title: str,
    columns: int,
    again: bool = False,
) -> None:
    """Prints the tables, and draws figures and page unless they are there.

    Args:
        context: a scored study.
        identity: its hash.
        command: to cite.
        title: heading of the page.
        columns: noises in the sample grid.
        again: draw even if the report is up to date.
    """
    scores = require_scores(context, identity)
    print_scores(scores, context.reporter.console)
    page = context.workdir.path / "report" / "index.html"
    stamp = {"scores": content_hash(scores), "reprojax": reprojax.__version__, "columns": columns}
    if not again and page.exists() and _read_stamp(context) == stamp:
        context.reporter.say(f"report: up to date at {page}")
        return
    inputs = ReportInputs(
        title=title,
        command=command,
        scores=scores,
        samples=cell_samples_for_report(context, max(ROWS, columns)),
        nearest=_nearest_images(context, max(ROWS, columns)),
        metrics=_metrics(context),
        facts=_facts(context),
    )
    for path in write_report(inputs, context.workdir.path):
        context.workdir.own(str(path))
    write_json(context.workdir.own(STAMP), stamp)
    context.reporter.say(f"report: {page}")


def _read_stamp(context: Context) -> dict | None:
    path = context.workdir.path / STAMP
    return json.loads(path.read_text()) if path.exists() else None


def _nearest_images(context: Context, count: int) -> dict:
    """Per cell, the image of its training set nearest to each of its first samples."""
    images = context.images
    descriptor = PixelDescriptor.fit(image_blocks(images.split(images.largest).train))
    found = {}
    for name, samples in cell_samples_for_report(context, count).items():
        cell = next(c for c in context.study.cells if c.name == name)
        subset = images.train(cell)
        train = TrainSet(None, descriptor(subset.images()), len(subset))
        index, _ = nearest(descriptor(samples), train)
        found[name] = subset.take(index)
    return found


def _metrics(context: Context) -> dict[str, list[dict]]:
    folders = {c.name: context.workdir.path / context.folder(c) for c in context.study.cells}
    rows = {name: read_metrics(Path(folder, "metrics.jsonl")) for name, folder in folders.items()}
    return {name: found for name, found in rows.items() if found}


def _facts(context: Context) -> dict[str, str]:
    study, device = context.study, jax.devices()[0]
    facts = {
        "data": f"{study.data.source.name} {context.images.shape}",
        "noises": f"{context.bank.n} of seed {context.bank.seed}",
        "sampler": f"{study.sampler.solver}, {study.sampler.dtype}, "
        f"sigma {study.sampler.grid.sigma_max:g} to {study.sampler.grid.sigma_min:g}",
        "device": f"{len(context.mesh.devices.flat)} x {device.device_kind}",
        "versions": f"reprojax {reprojax.__version__}, jax {jax.__version__}, "
        f"Python {platform.python_version()}",
    }
    for cell in study.cells:
        seconds = cell_facts(context, cell).get("train_seconds")
        if seconds is not None:
            facts[f"training {cell.name}"] = f"{seconds:,.0f} s"
    return facts
