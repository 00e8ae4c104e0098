"""What a study is: frozen descriptions of cells, and the identity that their artefacts carry."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reprojax.data.source import SourceSpec
from reprojax.diffusion.grids import GridSpec
from reprojax.diffusion.karras import RHO
from reprojax.diffusion.kernels import make_kernel
from reprojax.diffusion.losses.base import Objective
from reprojax.diffusion.losses.table import is_flow_map, make_objective, needs_teacher
from reprojax.diffusion.preconditioning import Preconditioning
from reprojax.errors import InputError, choices, require_choice, require_number, require_seed
from reprojax.models.families import FAMILIES
from reprojax.runtime.files import content_hash
from reprojax.sampling.flow import SamplerSpec
from reprojax.study.analyses.specs import AnalysisSpec
from reprojax.training.spec import LoopSpec, TrainingSpec

SCHEMA = 1  # raised when the meaning of a cell's description changes
CLOSED_FORMS = ("optimum", "gaussian", "population")


@dataclass(frozen=True)
class DataSpec:
    """Images of a study and how they are divided.

    Args:
        source: where they come from.
        n_train: training images, 0 for all that are not held out.
        n_heldout: held-out images.
        seed: of the permutation behind subsets.
        part: "all", or the disjoint halves "A" and "B".
        dedup: whether near-duplicates are removed first.
    """

    source: SourceSpec
    n_train: int = 0
    n_heldout: int = 0
    seed: int = 0
    part: str = "all"
    dedup: bool = False

    def __post_init__(self):
        require_seed("data.seed", self.seed)


@dataclass(frozen=True)
class Cell:
    """One model of a study.

    Args:
        name: unique in the study.
        family: a network family, or a closed form: "optimum" and "gaussian" of its training images,
            or "population", the distribution itself where the data source has one ("mixture").
        data: its training images.
        network: sorted (keyword, value) pairs of the family.
        kernel: perturbation kernel it is trained under.
        preconditioning: its coefficients.
        objective: what it minimises.
        options: sorted (keyword, value) pairs of the objective, where it has any.
        teacher: name of an earlier cell of the study with the same network, which this one starts
            from (and distils, where its objective does), or "".
        sigma_data: of preconditioning and weights.
        seed: of initialisation, batches and noise.
        training: the budget.
        weights: a safetensors file in place of training, or "".
        sampler: its own, in place of the study's, or None.
    """

    name: str
    family: str
    data: DataSpec
    network: tuple[tuple[str, Any], ...] = ()
    kernel: str = "edm"
    preconditioning: str = "edm"
    objective: str = "edm"
    options: tuple[tuple[str, Any], ...] = ()
    teacher: str = ""
    sigma_data: float = 0.5
    seed: int = 0
    training: TrainingSpec = field(default_factory=TrainingSpec)
    weights: str = ""
    sampler: SamplerSpec | None = None

    def __post_init__(self):
        require_choice("family", self.family, [*FAMILIES, *CLOSED_FORMS])
        require_seed("seed", self.seed)
        require_number("sigma_data", self.sigma_data, above=0)
        self.precondition(), self.make_objective()
        if needs_teacher(self.objective) and not (self.teacher or self.weights):
            allowed = f"the name of the model that the objective {self.objective!r} distils"
            raise InputError("teacher", self.teacher, allowed)

    @property
    def kind(self) -> str:
        """The contract's kind."""
        if self.family in CLOSED_FORMS:
            return "closed_form"
        return "flow_map" if is_flow_map(self.objective) else "network"

    @property
    def num_classes(self) -> int:
        """Classes whose labels it is given in training and sampling; 0 for none."""
        return dict(self.network).get("num_classes", 0)

    def weights_facts(self) -> dict[str, Any]:
        """How exported weights must be used; stored with them and checked when they are read."""
        names = ("family", "kernel", "preconditioning", "sigma_data")
        facts = {name: getattr(self, name) for name in names}
        return facts | ({"kind": self.kind} if self.kind == "flow_map" else {})

    def precondition(self) -> Preconditioning:
        """The network's coefficients, bound to its kernel."""
        return Preconditioning(self.preconditioning, make_kernel(self.kernel), self.sigma_data)

    def make_objective(self) -> Objective:
        """The training objective, bound to its kernel."""
        kernel, steps = make_kernel(self.kernel), self.training.steps
        return make_objective(self.objective, kernel, self.sigma_data, steps, dict(self.options))

    def hash(self, data_fingerprint: str, teacher_hash: str = "") -> str:
        """16 hex digits over what decides the result: not name, paths, devices or workers.

        Args:
            data_fingerprint: of the very training images.
            teacher_hash: of the cell's teacher, if it has one.
        """
        identity = {"schema": SCHEMA, "family": self.family, "data": data_fingerprint}
        if self.kind != "closed_form":
            identity |= {
                "network": dict(self.network),
                "kernel": self.kernel,
                "preconditioning": self.preconditioning,
                "sigma_data": self.sigma_data,
            }
            if self.weights:
                digest = hashlib.sha256(Path(self.weights).read_bytes()).hexdigest()
                identity |= {
                    "weights": digest,
                    **({"kind": self.kind} if self.kind == "flow_map" else {}),
                }
            else:
                identity |= {
                    "objective": self.objective,
                    "seed": self.seed,
                    "training": asdict(self.training),
                }
                if self.options:
                    identity |= {"options": dict(self.options)}
                if teacher_hash:
                    identity |= {"teacher": teacher_hash}
        return content_hash(identity)


@dataclass(frozen=True)
class ScoringSpec:
    """How samples are scored.

    Args:
        descriptor: a key of the descriptors.
        rp_rate: share of random pairs of training images that exceed the RP threshold.
        gl_target: GL that held-out images have at the GL threshold.
    """

    descriptor: str = "pixels"
    rp_rate: float = 1e-3
    gl_target: float = 0.95

    def __post_init__(self):
        for name in ("rp_rate", "gl_target"):
            require_number(f"scoring.{name}", getattr(self, name), above=0, below=1)


@dataclass(frozen=True)
class NoiseSpec:
    """The noise bank: ``n`` noises of ``seed``, or the first ``n`` of the file at ``path``."""

    seed: int = 0
    n: int = 512
    path: str = ""

    def __post_init__(self):
        require_seed("noise.seed", self.seed)
        require_number("noise.n", self.n, at_least=2)


@dataclass(frozen=True)
class Study:
    """A list of cells, sampled from one noise bank by one sampler and scored together.

    Args:
        name: of the config.
        data: images; cells may change ``n_train`` and ``part`` only.
        cells: at least one, with distinct names.
        noise: the bank.
        sampler: of all cells that have none of their own.
        scoring: thresholds and descriptor.
        loop: how training is watched and saved; not part of the identity.
        analyses: (name, settings) of what is measured beyond the scores; each file of theirs has an
            identity of its own.
    """

    name: str
    data: DataSpec
    cells: tuple[Cell, ...]
    noise: NoiseSpec = field(default_factory=NoiseSpec)
    sampler: SamplerSpec = field(default_factory=SamplerSpec)
    scoring: ScoringSpec = field(default_factory=ScoringSpec)
    loop: LoopSpec = field(default_factory=LoopSpec)
    analyses: tuple[tuple[str, AnalysisSpec], ...] = ()

    def __post_init__(self):
        if not self.cells:
            raise InputError("models", {}, "a study needs at least one model")
        names = [cell.name for cell in self.cells]
        for analysis, spec in self.analyses:
            for name in spec.cells:
                require_choice(f"analyses.{analysis}.cells", name, names)
        for i, cell in enumerate(self.cells):
            if cell.family == "population" and self.data.source.name != "mixture":
                allowed = "only of data.source 'mixture' is the population known"
                raise InputError(f"models.{cell.name}.family", cell.family, allowed)
            if cell.teacher and not cell.weights:
                _check_teacher(cell, {c.name: c for c in self.cells[:i]})
            sampler = self.sampler_of(cell)
            if sampler.flow_map != (cell.kind == "flow_map"):
                kinds = "flow maps have 'consistency', denoisers the others"
                raise InputError(f"models.{cell.name}.sampling.solver", sampler.solver, kinds)
            if cell.objective == "progressive" and not cell.weights:
                _check_few_steps(cell, sampler)

    def cell(self, name: str) -> Cell:
        """The cell of that name."""
        return next(cell for cell in self.cells if cell.name == name)

    def sampler_of(self, cell: Cell) -> SamplerSpec:
        """The cell's own sampler, or the study's."""
        return cell.sampler or self.sampler

    def conditions(self, noise_fingerprint: str, heldout_fingerprint: str) -> str:
        """Identity of all but the cells: a study that only gains cells keeps it."""
        return content_hash(
            {
                "schema": SCHEMA,
                "noise": noise_fingerprint,
                "sampler": self.sampler.identity(),
                "scoring": asdict(self.scoring),
                "heldout": heldout_fingerprint,
            }
        )

    def cell_marks(self, cell_hashes: dict[str, str]) -> dict[str, str]:
        """Per cell its hash, and beside it that of its own sampler, where it has one."""
        own = {c.name: content_hash(c.sampler.identity(), 8) for c in self.cells if c.sampler}
        return {name: f"{h} {own.get(name, '')}".strip() for name, h in cell_hashes.items()}

    def hash(self, cell_hashes: list[str], noise_fingerprint: str, heldout_fingerprint: str) -> str:
        """Identity of the scores: cells, noise, sampler, thresholds and held-out images."""
        own = {c.name: c.sampler.identity() for c in self.cells if c.sampler}
        return content_hash(
            {
                "schema": SCHEMA,
                **({"samplers": own} if own else {}),
                "cells": [[c.name, h] for c, h in zip(self.cells, cell_hashes, strict=True)],
                "noise": noise_fingerprint,
                "sampler": self.sampler.identity(),
                "scoring": asdict(self.scoring),
                "heldout": heldout_fingerprint,
            }
        )


def _check_few_steps(cell: Cell, sampler: SamplerSpec) -> None:
    """Raises InputError unless a progressively distilled student is sampled by its own steps."""
    loss = cell.make_objective()
    low, high = map(float, loss.kernel.ends())
    grid = GridSpec("karras", loss.last_steps, low, high, RHO, end="sigma_min")
    own = SamplerSpec("ddim", grid, dtype=sampler.dtype).identity()
    for name, value in sampler.identity().items():
        wanted = own.get(name, value)
        words = isinstance(wanted, str)
        if not (value == wanted if words else math.isclose(value, wanted, rel_tol=1e-5)):
            allowed = f"must be {wanted if words else f'{wanted:g}'}: a student knows no others"
            raise InputError(f"models.{cell.name}.sampling.{name}", value, allowed)


def _check_teacher(cell: Cell, before: dict[str, Cell]) -> None:
    """Raises InputError unless the cell's teacher is an earlier denoiser with the same network."""
    field = f"models.{cell.name}.teacher"
    if cell.teacher not in before:
        allowed = f"a model that stands before it; {choices(before, cell.teacher)}"
        raise InputError(field, cell.teacher, allowed)
    teacher = before[cell.teacher]
    if teacher.kind != "network":
        raise InputError(field, cell.teacher, "a denoising network")
    if (teacher.family, teacher.network) != (cell.family, cell.network):
        allowed = f"a model with the very network of {cell.name}, which starts as its copy"
        raise InputError(field, cell.teacher, allowed)
    parametrised = (teacher.preconditioning, teacher.kernel, teacher.sigma_data)
    own = (cell.preconditioning, cell.kernel, cell.sigma_data)
    if cell.kind == "network" and parametrised != own:
        raise InputError(field, cell.teacher, f"a model with {cell.name}'s preconditioning, kernel")
