"""Every file that a cell leaves in its folder: where it is, and how it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from reprojax.runtime.files import content_hash, read_json, remove
from reprojax.runtime.workdir import Workdir
from reprojax.scoring.descriptors import Descriptor
from reprojax.training.checkpoints import FOLDER as CHECKPOINTS
from reprojax.training.checkpoints import newest_step
from reprojax.training.metrics import METRICS, PARAMETERS, read_metrics
from reprojax.training.snapshots import FOLDER as SNAPSHOTS
from reprojax.training.snapshots import snapshots


class CellFiles:
    """The files of one cell.

    Args:
        workdir: The folder of the study.
        folder: The cell's folder in it, relative.
        samples_id: The identity of noise, conditions and sampler.
    """

    def __init__(self, workdir: Workdir, folder: str, samples_id: str):
        self._workdir, self._folder, self._samples_id = workdir, folder, samples_id

    @property
    def path(self) -> Path:
        """The cell's folder."""
        return self._workdir.path / self._folder

    @property
    def weights(self) -> Path:
        """The exported EMA weights."""
        return self.path / "weights.safetensors"

    @property
    def facts(self) -> Path:
        """What training writes about a cell: parameters, device, version."""
        return self.path / "cell.json"

    @property
    def metrics(self) -> Path:
        """The rows of training and evaluation."""
        return self.path / METRICS

    @property
    def failure(self) -> Path:
        """What went wrong, in a cell that failed."""
        return self.path / "failed.json"

    @property
    def history(self) -> Path:
        """A line for each stage that was finished, with its time."""
        return self.path / "history.jsonl"

    @property
    def samples(self) -> Path:
        """The samples of all noises."""
        return self.path / f"samples-{self._samples_id}.npz"

    @property
    def parts(self) -> Path:
        """The folder of the samples of the first noises, while sampling goes on."""
        return self.path / f"parts-{self._samples_id}"

    def features(self, descriptor: Descriptor) -> Path:
        """Returns the file of the features of the samples under a descriptor."""
        tag = content_hash([descriptor.name, descriptor.identity()], 8)
        return self.path / f"features-{self._samples_id}-{tag}.npz"

    def own(self, *paths: Path) -> None:
        """Lists files or folders of this cell in the study's manifest."""
        for path in paths:
            self._workdir.own(f"{self._folder}/{path.name}")

    def own_training(self, *, with_snapshots: bool) -> None:
        """Lists what training leaves in the manifest, and makes the folder."""
        parameters, checkpoints = self.path / PARAMETERS, self.path / CHECKPOINTS
        self.own(checkpoints, self.metrics, parameters, self.facts, self.weights)
        if with_snapshots:
            self.own(self.path / SNAPSHOTS)
        self.path.mkdir(parents=True, exist_ok=True)

    def steps_done(self) -> int:
        """Returns the step that training would go on from."""
        return newest_step(self.path / CHECKPOINTS)

    def snapshots(self) -> dict[int, Path]:
        """Returns the weights that were kept along training, by step."""
        return snapshots(self.path)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Returns the rows of training and evaluation, none where nothing was trained."""
        return read_metrics(self.metrics)

    def read_facts(self) -> dict[str, Any]:
        """Returns what training wrote about the cell, or nothing."""
        return read_json(self.facts) or {}

    def read_failure(self) -> dict[str, Any] | None:
        """Returns what went wrong, or None."""
        return read_json(self.failure)

    def read_history(self) -> list[dict[str, Any]]:
        """Returns the stages that were finished; a line torn by a kill is left out."""
        try:
            text = self.history.read_text()
        except FileNotFoundError:
            return []
        rows = []
        for line in text.splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows

    def read_samples(self) -> tuple[np.ndarray, float] | None:
        """Returns images uint8 `[n, h, w, c]` and evaluations per image; None before sampling."""
        if not self.samples.exists():
            return None
        with np.load(self.samples, allow_pickle=False) as data:
            return data["images"], float(data["nfe"])

    def read_parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images sampled so far, uint8 `[m, h, w, c]`, and the evaluations of each."""
        images, nfe = [], [np.zeros(0)]
        for path in sorted(self.parts.glob("*.npz")):
            with np.load(path, allow_pickle=False) as data:
                images.append(data["images"])
                nfe.append(data["nfe"])
        return np.concatenate(images) if images else np.zeros(0, np.uint8), np.concatenate(nfe)

    def remove_parts(self) -> None:
        """Removes the parts of a sampled cell: a run killed before it could leaves them."""
        remove(self.parts)

    def remove_temporaries(self) -> None:
        """Removes what a worker that was killed left half-written."""
        for path in (*self.path.glob(".*.tmp"), *self.path.glob("*/.*.tmp")):
            path.unlink(missing_ok=True)
