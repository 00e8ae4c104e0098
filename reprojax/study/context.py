"""What all stages of a study share: its cells, images, banks and devices, and one worker."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jax.sharding import Mesh

from reprojax.denoisers.closed_forms import Sources
from reprojax.runtime.claims import Claims
from reprojax.runtime.console import Reporter
from reprojax.runtime.files import content_hash
from reprojax.runtime.stop import StopRequest
from reprojax.runtime.workdir import Workdir
from reprojax.sampling.conditions import ConditionBank, image_conditions
from reprojax.sampling.noise import NoiseBank
from reprojax.scoring.descriptors import Descriptor
from reprojax.scoring.scores import GIVEN_FEATURES
from reprojax.study.artefacts import CellFiles
from reprojax.study.cells import Cell
from reprojax.study.images import Images
from reprojax.study.models import External, Imported
from reprojax.study.study import Study
from reprojax.training.weights import load_weights


@dataclass(frozen=True)
class Banks:
    """What every cell of a study is sampled from.

    Attributes:
        noise: The noise bank; None where samples are given and their noise is not known.
        conditions: The condition bank, or None where no model is conditional.
        n: The number of noises.
        record: What ``scores.json`` says of the noise bank, or None.
    """

    noise: NoiseBank | None
    conditions: ConditionBank | None
    n: int
    record: dict[str, Any] | None

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprints of the banks that there are, by name."""
        noise = {"noise": self.record["fingerprint"] if self.record else ""}
        if self.conditions is None:
            return noise
        return noise | {"conditions": self.conditions.fingerprint()}


@dataclass
class Context:
    """What all stages of a study share.

    Attributes:
        study: The study.
        images: Its images.
        workdir: Its folder, claimed.
        banks: Its noises and conditions.
        hashes: The content hash of every cell, by cell name.
        mesh: The devices that a stage runs on.
        reporter: Takes lines and progress.
        stop: The request to stop, which is looked at between units of work and before each write.
        claims: The claims of this worker.
    """

    study: Study
    images: Images
    workdir: Workdir
    banks: Banks
    hashes: dict[str, str]
    mesh: Mesh
    reporter: Reporter
    stop: StopRequest
    claims: Claims

    @property
    def noise(self) -> NoiseBank:
        """The noise bank."""
        return self.banks.noise

    def claim_name(self, cell: Cell) -> str:
        """Returns the name under which a cell is claimed; its folder has the same."""
        return f"{cell.name}-{self.hashes[cell.name][:8]}"

    def files(self, cell: Cell) -> CellFiles:
        """Returns the files of a cell."""
        sampler = self.study.sampler_of(cell)
        prints = self.banks.fingerprints
        identity = [prints["noise"], sampler.identity()]
        if cell.model.num_classes:
            identity.append(prints["conditions"])
        folder = f"cells/{self.claim_name(cell)}"
        return CellFiles(self.workdir, folder, content_hash(identity, 8))

    def conditions(self, cell: Cell) -> ConditionBank | None:
        """Returns the condition bank for a conditional model, None for another."""
        return self.banks.conditions if cell.model.num_classes else None

    def image_conditions(self, cell: Cell, labels: np.ndarray | None) -> ConditionBank | None:
        """Returns the conditions of real images for a conditional model, None for another.

        Args:
            cell: The model.
            labels: int32 `[n]`, the class labels of the images, or None.
        """
        classes = cell.model.num_classes
        return image_conditions(labels, classes) if classes else None

    def cells_named(self, names: tuple[str, ...]) -> list[Cell]:
        """Returns the cells of these names, in this order."""
        return [self.study.cell(name) for name in names]

    def params(self, cell: Cell) -> Any:
        """Returns the trained or given parameters of a model, empty where it has none."""
        model, shape = cell.model, self.images.shape
        path = model.weights if isinstance(model, Imported) else self.files(cell).weights
        like = model.param_shapes(shape)
        return load_weights(path, like, f"models.{cell.name}.weights") if like else {}

    def function(self, cell: Cell, params: Any = None) -> Any:
        """Returns what makes a cell's samples: a DenoiseFn, a FlowMapFn, or a map from z to x.

        Args:
            cell: The model.
            params: Parameters in place of the cell's own (those of a snapshot), or None.
        """
        # An adaptive solver runs a batch on each device, with all training images on each.
        mesh = None if self.study.sampler_of(cell).adaptive else self.mesh
        source = self.study.data.source if self.study.data else None
        params = self.params(cell) if params is None else params
        sources = Sources(self.images.train(cell), source, mesh)
        return cell.model.function(params, sources, self.images.shape)

    def samples(self, cell: Cell) -> tuple[np.ndarray | None, float] | None:
        """Returns a cell's images and evaluations per image; None before sampling.

        Returns:
            uint8 `[n, h, w, c]` (None for given features without images), and a number, 0
            for samples that are given.
        """
        if isinstance(cell.model, External):
            images = cell.model.images.images
            return None if images is None else images[: self.banks.n], 0.0
        return self.files(cell).read_samples()

    def features(self, cell: Cell, descriptor: Descriptor) -> np.ndarray:
        """Returns the features of a described cell, float32 `[n, d]`."""
        if descriptor.name == GIVEN_FEATURES:
            return cell.model.images.features[: self.banks.n]
        with np.load(self.files(cell).features(descriptor)) as data:
            return data["features"]
