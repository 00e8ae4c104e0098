"""Measures how well a local score machine predicts a network's samples (arXiv 2412.20292)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reprojax.analyses.common import float_samples, image_cond, lazy_denoiser
from reprojax.data.transform import to_float, to_uint8
from reprojax.denoisers.local import MAX_IMAGES, calibrate_radii, local_score_machine
from reprojax.errors import InputError, require_number
from reprojax.rng import root_key
from reprojax.runtime.files import content_hash, write_json
from reprojax.scoring.distances import determination, per_image_r2
from reprojax.scoring.stats import mean_interval, median
from reprojax.study.analysing import FOLDER, networks_only
from reprojax.study.cells import Cell
from reprojax.study.context import Context
from reprojax.study.images import Images
from reprojax.study.study import AnalysisSettings, Study
from reprojax.types import DenoiseFn

SHOWN = 10  # images per model for the figure


@dataclass(frozen=True)
class LocalScores(AnalysisSettings):
    """Settings for a network's samples beside those of a local score machine and other models.

    Attributes:
        cells: The network, whose training images the machine uses, and then the cells to compare.
        n: The number of noises.
        calibrate_on: The number of held-out images that the patch sizes are calibrated on.
        radii: The patch radii to choose from. A patch has the side 2 r + 1.
        sigmas: The noise levels at which a radius is chosen, in data units.
        equivariant: Whether patches are compared across positions.
    """

    n: int = 64
    calibrate_on: int = 16
    radii: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 8, 12, 15)
    sigmas: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
    equivariant: bool = True

    def __post_init__(self):
        super().__post_init__()
        require_number("calibrate_on", self.calibrate_on, at_least=1)
        for radius in self.radii:
            require_number("radii", radius, at_least=0)
        for sigma in self.sigmas:
            require_number("sigmas", sigma, above=0)


def check_local(study: Study, images: Images, settings: LocalScores) -> None:
    """Raises InputError unless the first cell is a network of few images and some are held out."""
    network = study.cell(settings.cells[0])
    networks_only("analyses.local.cells", [network])
    if images.n_train(network) > MAX_IMAGES:
        requirement = f"must have at most {MAX_IMAGES} training images, as the first cell"
        raise InputError("analyses.local.cells", network.name, requirement)
    if images.heldout is None:
        requirement = "must be above 0: the local score machine is calibrated on held-out images"
        raise InputError("data.n_heldout", 0, requirement)


def local_scores(context: Context, settings: LocalScores, identity: str) -> dict[str, Any]:
    """Samples a machine calibrated on the first cell from the same noises, and compares.

    Returns:
        ``models``: r² per image of the machine's and the other cells' samples with the network's.
        ``differences``: the machine's r² less each other cell's, paired by noise. ``calibration``.
        ``images``: the first samples of each.
    """
    network, *others = context.cells_named(settings.cells)
    sampler, n = context.study.sampler, settings.n
    subset = context.images.train(network)
    train = to_float(subset.images())
    own = lazy_denoiser(context, network)
    calibration = _calibration(context, settings, network, own, train)
    target, _ = float_samples(context, network, sampler, n, own)
    choice = calibration["chosen"], calibration["edges"], settings.equivariant
    machine, tag = local_score_machine(train, *choice), content_hash(list(choice))
    context.reporter.say(f"local score machine: radii {calibration['chosen']}")
    samples = {"local": float_samples(context, network, sampler, n, lambda: machine, tag)[0]}
    for cell in others:
        denoiser = lazy_denoiser(context, cell)
        samples[cell.name] = float_samples(context, cell, sampler, n, denoiser)[0]
    r2 = {name: per_image_r2(to_uint8(x), to_uint8(target)) for name, x in samples.items()}
    shown = {network.name: target, **samples}
    return {
        "cell": network.name,
        "n": len(target),
        "n_train": len(subset),
        "equivariant": settings.equivariant,
        "models": [_row(name, r2[name], x, target) for name, x in samples.items()],
        "differences": [_difference(r2, name) for name in r2 if name != "local"],
        "calibration": calibration,
        "images": {name: to_uint8(x[:SHOWN]).tolist() for name, x in shown.items()},
    }


def _calibration(
    context: Context,
    settings: LocalScores,
    network: Cell,
    make_denoiser: Callable[[], DenoiseFn],
    train: np.ndarray,
) -> dict[str, Any]:
    """Returns the radii by noise level. They are kept in a file, since choosing takes minutes."""
    heldout = context.images.heldout
    facts = [context.hashes[network.name], heldout.fingerprint, asdict(settings)]
    path = context.workdir.own(f"{FOLDER}/samples/radii-{content_hash(facts)}.json")
    if path.exists():
        return json.loads(path.read_text())
    real = to_float(heldout.images(0, settings.calibrate_on))
    result = calibrate_radii(
        make_denoiser(),
        train,
        real,
        settings.sigmas,
        settings.radii,
        root_key(network.model.seed),
        settings.equivariant,
        cond=image_cond(context, network, heldout, slice(len(real))),
    )
    calibration = {
        "sigmas": result.sigmas.tolist(),
        "radii_tried": list(result.candidates),
        "chosen": list(result.radii),
        "edges": list(result.edges),
        "errors": result.errors.tolist(),
        "r2": result.r2.tolist(),
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
