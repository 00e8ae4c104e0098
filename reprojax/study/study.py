"""A study: cells that are sampled from one noise bank by one sampler and scored together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reprojax.data.subset import DataSpec
from reprojax.denoisers.closed_forms import CLOSED_FORMS
from reprojax.diffusion.grids import GridSpec
from reprojax.diffusion.karras import RHO
from reprojax.errors import InputError, require_choice, require_number
from reprojax.runtime.files import content_hash
from reprojax.sampling.flow import SamplerSpec
from reprojax.sampling.noise import NoiseSpec
from reprojax.scoring.calibration import ScoringSpec
from reprojax.study.cells import SCHEMA, Cell
from reprojax.study.models import ClosedForm, NetworkModel, Trained
from reprojax.training.spec import LoopSpec


@dataclass(frozen=True)
class AnalysisSettings:
    """Base of the settings of an analysis.

    Attributes:
        cells: Names of the study's cells that the analysis looks at.
        n: The number of noises (or images) that it uses, from the first on.
    """

    cells: tuple[str, ...] = ()
    n: int = 256

    def __post_init__(self):
        if not self.cells:
            raise InputError("cells", self.cells, "must name one or more models")
        require_number("n", self.n, at_least=2)


@dataclass(frozen=True)
class Study:
    """A list of cells, and how they are sampled, scored and analysed.

    Attributes:
        name: The name of the config.
        data: The images, of which cells may change ``n_train`` and ``part``; None where images
            are given otherwise.
        cells: The models, at least one, with distinct names.
        noise: The noise bank.
        sampler: The sampler of all cells that have none of their own.
        scoring: Thresholds and descriptor.
        loop: How training is watched and saved; not part of the identity.
        analyses: (name, settings) of what is measured beyond the scores. Each has an identity of
            its own.
    """

    name: str
    data: DataSpec | None
    cells: tuple[Cell, ...]
    noise: NoiseSpec = field(default_factory=NoiseSpec)
    sampler: SamplerSpec = field(default_factory=SamplerSpec)
    scoring: ScoringSpec = field(default_factory=ScoringSpec)
    loop: LoopSpec = field(default_factory=LoopSpec)
    analyses: tuple[tuple[str, AnalysisSettings], ...] = ()

    def __post_init__(self):
        if not self.cells:
            raise InputError("models", None, "must name at least one model")
        names = [cell.name for cell in self.cells]
        for analysis, settings in self.analyses:
            for name in settings.cells:
                require_choice(f"analyses.{analysis}.cells", name, names)
        for i, cell in enumerate(self.cells):
            self._check(cell, {c.name: c for c in self.cells[:i]})
        self._check_classes()

    def _check(self, cell: Cell, before: Mapping[str, Cell]) -> None:
        """Raises InputError unless a cell fits into the study behind the cells before it."""
        model, sampler = cell.model, self.sampler_of(cell)
        if isinstance(model, ClosedForm):
            source = CLOSED_FORMS[model.family].source
            if source and (self.data is None or self.data.source.name != source):
                requirement = f"must be used with data.source={source!r}"
                raise InputError(f"models.{cell.name}.family", model.family, requirement)
        if isinstance(model, Trained) and model.teacher:
            _check_teacher(cell, model, before)
        solved = model.samples in ("denoiser", "flow_map")
        if solved and sampler.flow_map != (model.samples == "flow_map"):
            requirement = "must be 'consistency' for a flow map, and another for a denoiser"
            name = f"models.{cell.name}.sampling.solver"
            raise InputError(name, sampler.solver, requirement)
        if isinstance(model, Trained) and model.objective == "progressive":
            _check_few_steps(cell, model, sampler)

    def _check_classes(self) -> None:
        """Raises InputError unless all conditional models have the same number of classes."""
        conditional = [cell for cell in self.cells if cell.model.num_classes]
        for cell in conditional[1:]:
            first = conditional[0]
            if cell.model.num_classes != first.model.num_classes:
                requirement = f"must be {first.model.num_classes}, as {first.name!r} has"
                name = f"models.{cell.name}.network.num_classes"
                raise InputError(name, cell.model.num_classes, requirement)

    @property
    def num_classes(self) -> int:
        """The number of classes of its conditional models, 0 where there are none."""
        return max(cell.model.num_classes for cell in self.cells)

    def expected_nfe(self, cell: Cell) -> int:
        """Returns the evaluations per sample of a cell: 1 for a map, else those of its sampler."""
        return 1 if cell.model.samples == "map" else self.sampler_of(cell).expected_nfe

    def cell(self, name: str) -> Cell:
        """Returns the cell of that name."""
        return next(cell for cell in self.cells if cell.name == name)

    def sampler_of(self, cell: Cell) -> SamplerSpec:
        """Returns the cell's own sampler, or the study's."""
        return cell.sampler or self.sampler

    def settings_hash(self, banks: Mapping[str, str]) -> str:
        """Returns the identity of all but the cells: a study that only gains cells keeps it.

        Args:
            banks: Fingerprints of what the cells share: "noise" and "heldout", and "conditions"
                where there are any.
        """
        return content_hash(self._settings(banks))

    def _settings(self, banks: Mapping[str, str]) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "sampler": self.sampler.identity(),
            "scoring": self.scoring.identity(),
            **banks,
        }

    def cell_marks(self, cell_hashes: Mapping[str, str]) -> dict[str, str]:
        """Returns by cell its hash, and beside it that of its own sampler, where it has one."""
        own = {c.name: content_hash(c.sampler.identity(), 8) for c in self.cells if c.sampler}
        return {name: f"{h} {own.get(name, '')}".strip() for name, h in cell_hashes.items()}

    def hash(self, cell_hashes: Mapping[str, str], banks: Mapping[str, str]) -> str:
        """Returns the identity of the scores: cells, banks, samplers and thresholds."""
        own = {c.name: c.sampler.identity() for c in self.cells if c.sampler}
        cells = [[c.name, cell_hashes[c.name]] for c in self.cells]
        samplers = {"samplers": own} if own else {}
        return content_hash({**self._settings(banks), "cells": cells, **samplers})


def _check_few_steps(cell: Cell, model: Trained, sampler: SamplerSpec) -> None:
    """Raises InputError unless a progressively distilled student is sampled by its own steps."""
    objective = model.make_objective()
    low, high = map(float, objective.kernel.ends())
    grid = GridSpec("karras", objective.last_steps, low, high, RHO, end="sigma_min")
    own = SamplerSpec("ddim", grid, dtype=sampler.dtype).identity()
    for name, value in sampler.identity().items():
        expected = own.get(name, value)
        words = isinstance(expected, str)
        if not (value == expected if words else math.isclose(value, expected, rel_tol=1e-5)):
            requirement = (
                f"must be {expected if words else f'{expected:g}'}: a student knows no others"
            )
            raise InputError(f"models.{cell.name}.sampling.{name}", value, requirement)


def _check_teacher(cell: Cell, model: Trained, before: Mapping[str, Cell]) -> None:
    """Raises InputError unless the teacher is an earlier denoiser with the same network."""
    name = f"models.{cell.name}.teacher"
    require_choice(name, model.teacher, before)
    teacher = before[model.teacher].model
    if not isinstance(teacher, NetworkModel) or teacher.kind != "network":
        raise InputError(name, model.teacher, "must be a denoising network")
    if (teacher.family, teacher.network) != (model.family, model.network):
        requirement = f"must have the network of {cell.name!r}, which starts as its copy"
        raise InputError(name, model.teacher, requirement)
    if model.kind == "network":
        facts = ("preconditioning", "kernel", "sigma_data")
        if any(getattr(teacher, fact) != getattr(model, fact) for fact in facts):
            requirement = (
                f"must have the same kernel, preconditioning and sigma_data as {cell.name!r}"
            )
            raise InputError(name, model.teacher, requirement)
