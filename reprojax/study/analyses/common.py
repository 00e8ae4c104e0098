"""What analyses share: samples of any sampler, kept in the workdir, and comparing them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from reprojax.data.transform import to_uint8
from reprojax.runtime.files import content_hash, write_npz
from reprojax.runtime.programs import make_room
from reprojax.sampling.flow import SamplerSpec, sample_batches
from reprojax.scoring.descriptors import Descriptor
from reprojax.scoring.pairs import mae_score, rp, rp_chance
from reprojax.scoring.stats import wilson
from reprojax.study.cells import Cell
from reprojax.study.scores import read_scores, study_descriptor
from reprojax.study.stages import Context, cell_denoiser
from reprojax.types import DenoiseFn

FOLDER = "analyses"


@dataclass(frozen=True)
class Ruler:
    """The study's descriptor and RP threshold."""

    descriptor: Descriptor
    tau: float

    def compare(self, a: np.ndarray, b: np.ndarray) -> dict:
        """RP with interval and chance, MAE score and PFD of two sets of images.

        Args:
            a: float32 `[n, h, w, c]`, about [-1, 1].
            b: float32 of the same shape, row i from the same noise (or image).
        """
        pixels = to_uint8(a), to_uint8(b)
        features = [self.descriptor(p) for p in pixels]
        value, n = rp(*features, self.tau), len(a)
        return {
            "rp": value,
            "ci95": list(wilson(round(value * n), n)),
            "chance": rp_chance(*features, self.tau),
            "mae": mae_score(*pixels),
            "pfd": grey_rms(a, b),
        }


def study_ruler(context: Context, identity: str) -> Ruler:
    """The ruler that the study's own scores were made with."""
    pairs = read_scores(context.workdir.path, identity)["pairs"]
    tau = next(p["threshold"] for p in pairs if p["score"] == "rp")
    return Ruler(study_descriptor(context), tau)


def grey_rms(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square difference on the 0-255 scale, of images not rounded to grey levels."""
    return float(127.5 * np.sqrt(np.mean((a.astype(np.float64) - b) ** 2)))


def lazy_denoiser(context: Context, cell: Cell) -> Callable[[], DenoiseFn]:
    """The cell's denoiser, made when it is first asked for and once."""
    return cache(lambda: cell_denoiser(context, cell))


def float_samples(
    context: Context,
    cell: Cell,
    sampler: SamplerSpec,
    n: int,
    make_denoiser: Callable[[], DenoiseFn],
    tag: str = "",
) -> tuple[np.ndarray, float]:
    """Images of the first noises, not rounded to uint8; kept, so that an analysis can go on.

    Args:
        context: of the study.
        cell: the model.
        sampler: any, not only the study's.
        n: noises.
        make_denoiser: of `lazy_denoiser`, or another in place of the cell's own; called only where
            there is something left to sample.
        tag: identity of another denoiser.

    Returns:
        float32 `[n, h, w, c]` and evaluations per image.
    """
    bank = context.bank.first(n)
    facts = [context.hashes[cell.name], tag, context.noise_fingerprint, bank.n, sampler.identity()]
    path = context.workdir.own(f"{FOLDER}/samples/{content_hash(facts)}.npz")
    if path.exists():
        with np.load(path, allow_pickle=False) as data:
            return data["images"], float(data["nfe"])
    make_room()
    images, nfe = [], []
    for batch, evaluations in sample_batches(make_denoiser(), bank, sampler, mesh=context.mesh):
        images.append(batch)
        nfe.append(evaluations)
        context.stop.check(f"in sampling {cell.name} for an analysis")
    images, mean = np.concatenate(images), float(np.mean(np.concatenate(nfe)))
    write_npz(path, images=images, nfe=np.float64(mean))
    return images, mean


def cells_named(context: Context, names: tuple[str, ...]) -> list[Cell]:
    """The study's cells of these names, in this order."""
    return [context.study.cell(name) for name in names]
