"""Does locality explain a convolutional network's samples? The local score machine beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from reprojax.data.transform import to_float, to_uint8
from reprojax.denoisers.local import MAX_IMAGES, calibrate_radii, local_score_machine
from reprojax.errors import InputError
from reprojax.rng import root_key
from reprojax.runtime.files import content_hash, write_json
from reprojax.scoring.distances import determination, per_image_r2
from reprojax.scoring.stats import mean_interval, median
from reprojax.study.analyses.common import FOLDER, cells_named, float_samples, lazy_denoiser
from reprojax.study.analyses.specs import LocalScores
from reprojax.study.cells import Cell, Study
from reprojax.study.images import StudyImages
from reprojax.study.stages import Context
from reprojax.types import DenoiseFn

SHOWN = 10  # images per model that the figure gets


def check_local(study: Study, images: StudyImages, spec: LocalScores) -> None:
    """Raises InputError where the first cell is no network of few images, or none are held out."""
    network = study.cell(spec.cells[0])
    if network.kind != "network" or len(images.train(network)) > MAX_IMAGES:
        allowed = f"first a network of at most {MAX_IMAGES} training images"
        raise InputError("analyses.local.cells", network.name, allowed)
    if images.heldout is None:
        raise InputError("data.n_heldout", 0, "images to calibrate the local score machine on")


def local_scores(context: Context, spec: LocalScores, identity: str) -> dict[str, Any]:
    """Samples a machine calibrated on the first cell from the same noises, and compares.

    Returns:
        ``models``: per-image r² with the network's samples, of the machine and of the other cells;
        ``differences`` of the machine to each, paired by noise; ``calibration``; ``images``.
    """
    network, *others = cells_named(context, spec.cells)
    subset = context.images.train(network)
    train = to_float(subset.images())
    own = lazy_denoiser(context, network)
    calibration = _calibration(context, spec, network, own, train)
    sampler = context.study.sampler
    target, _ = float_samples(context, network, sampler, spec.n, own)
    machine = local_score_machine(
        train, calibration["chosen"], calibration["edges"], spec.equivariant
    )
    tag = content_hash([calibration["chosen"], calibration["edges"], spec.equivariant])
    context.reporter.say(f"local score machine: radii {calibration['chosen']}")
    sampled = {"local": float_samples(context, network, sampler, spec.n, lambda: machine, tag)[0]}
    for cell in others:
        denoiser = lazy_denoiser(context, cell)
        sampled[cell.name] = float_samples(context, cell, sampler, spec.n, denoiser)[0]
    r2 = {name: per_image_r2(to_uint8(x), to_uint8(target)) for name, x in sampled.items()}
    shown = {network.name: target, **sampled}
    return {
        "cell": network.name,
        "n": len(target),
        "n_train": len(subset),
        "equivariant": spec.equivariant,
        "models": [_row(name, r2[name], x, target) for name, x in sampled.items()],
        "differences": [_difference(r2, name) for name in r2 if name != "local"],
        "calibration": calibration,
        "images": {name: to_uint8(x[:SHOWN]).tolist() for name, x in shown.items()},
    }


def _calibration(
    context: Context,
    spec: LocalScores,
    network: Cell,
    make_denoiser: Callable[[], DenoiseFn],
    train: np.ndarray,
) -> dict[str, Any]:
    """Radii by noise level, chosen on held-out images; kept, since it takes minutes."""
    facts = [context.hashes[network.name], context.images.heldout.fingerprint, asdict(spec)]
    path = context.workdir.own(f"{FOLDER}/samples/radii-{content_hash(facts)}.json")
    if path.exists():
        return json.loads(path.read_text())
    real = to_float(context.images.heldout.images(0, spec.calibrate_on))
    found = calibrate_radii(
        make_denoiser(),
        train,
        real,
        spec.sigmas,
        spec.radii,
        root_key(network.seed),
        spec.equivariant,
    )
    calibration = {
        "sigmas": found.sigmas.tolist(),
        "radii_tried": list(found.candidates),
        "chosen": list(found.radii),
        "edges": list(found.edges),
        "errors": found.errors.tolist(),
        "r2": found.r2.tolist(),
    }
    write_json(path, calibration)
    return calibration


def _row(name: str, r2: np.ndarray, images: np.ndarray, target: np.ndarray) -> dict[str, Any]:
    middle, middle_interval = median(r2)
    mean, interval = mean_interval(r2)
    return {
        "name": name,
        "r2_median": middle,
        "r2_median_ci95": list(middle_interval),
        "r2_mean": mean,
        "r2_mean_ci95": list(interval),
        "determination_mean": float(np.mean(determination(to_uint8(images), to_uint8(target)))),
        "values": [round(float(v), 6) for v in r2],
    }


def _difference(r2: dict[str, np.ndarray], name: str) -> dict[str, Any]:
    mean, interval = mean_interval(r2["local"] - r2[name])
    return {"name": f"local - {name}", "mean": mean, "ci95": list(interval)}
