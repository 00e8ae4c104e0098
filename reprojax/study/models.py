"""What a model of a study is: trained, imported, a closed form, given samples, or a contrast.

Each kind knows its identity, what it costs, and how its samples come, so that nothing else has to
ask which kind it is.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax

from reprojax.data.subset import Subset
from reprojax.data.transform import to_float
from reprojax.denoisers.closed_forms import CLOSED_FORMS, Sources
from reprojax.denoisers.network import network_function
from reprojax.diffusion.kernels import make_kernel
from reprojax.diffusion.losses.base import Objective
from reprojax.diffusion.losses.table import (
    OBJECTIVES,
    is_flow_map,
    make_objective,
    needs_teacher,
)
from reprojax.diffusion.preconditioning import Preconditioning
from reprojax.errors import InputError, require_choice, require_number, require_seed
from reprojax.interop.samples import ImageSet, read_image_set
from reprojax.models.contrast import CONTRAST_FAMILIES, check_contrast, contrast_options
from reprojax.models.costs import BACKWARD, network_cost
from reprojax.models.families import (
    FAMILIES,
    Network,
    build_network,
    count_params,
    param_shapes,
)
from reprojax.training.loop import check_devices
from reprojax.training.spec import LoopSpec, TrainingSpec
from reprojax.training.weights import load_weights, weights_metadata
from reprojax.types import DenoiseFn

CLOSED_FORM_SIZE = 1000  # counted as its parameters: a closed form costs little beside a network

Shape = tuple[int, int, int]
Pairs = tuple[tuple[str, Any], ...]


class Cost(NamedTuple):
    """What a model costs.

    Attributes:
        params: The number of parameters, 0 for none.
        forward_flops: FLOPs of one image through it.
        train_flops: FLOPs of the whole training.
        train_bytes: An estimate of the memory of training on one device, 0 for none.
    """

    params: int = 0
    forward_flops: float = 0.0
    train_flops: float = 0.0
    train_bytes: float = 0.0


class Model(ABC):
    """One model of a study.

    Attributes:
        samples: How its samples come: "denoiser" and "flow_map" through a sampler, "map" straight
            from the noise, "arrays" from a file.
        trains: Whether its parameters have to be trained or fitted first.
        family: The name of a network family, a closed form or a contrast family, or "external".
        seed: The seed of initialisation, batches and noise.
        teacher: The name of the cell that it starts from, or "".
        num_classes: The number of classes that it is conditioned on, 0 for none.
    """

    samples: ClassVar[str] = "denoiser"
    trains: ClassVar[bool] = False
    family: str
    seed: int = 0
    teacher: str = ""
    num_classes: int = 0

    @property
    @abstractmethod
    def kind(self) -> str:
        """The kind as ``scores.json`` names it."""

    @abstractmethod
    def identity(self, teacher_hash: str) -> dict[str, Any]:
        """Returns what decides its samples, beside the training images, the noise and the sampler.

        Args:
            teacher_hash: The hash of its teacher's cell, or "".
        """

    @abstractmethod
    def facts(self, shape: Shape) -> dict[str, Any]:
        """Returns the fields of its `CellRow` that are not those of its data or sampler."""

    def cost(self, shape: Shape, n_train: int, loop: LoopSpec, devices: int) -> Cost:
        """Returns its cost for images of a shape, trained on so many devices."""
        return Cost()

    def size(self, shape: Shape) -> int:
        """Returns its number of parameters, or what stands for it in the forecast of a time."""
        return 0

    @property
    def images_seen(self) -> int:
        """The number of images that pass through it in training."""
        return 0

    def check(self, shape: Shape, train: Subset | None, devices: int) -> None:
        """Raises InputError where it cannot be made of these images on so many devices."""
        self.param_shapes(shape)

    def param_shapes(self, shape: Shape) -> Any:
        """Returns the shapes of its parameters, a nested dict; empty where it has none."""
        return {}

    def weights_metadata(self) -> dict[str, Any]:
        """Returns what is stored with its weights."""
        return {}

    @abstractmethod
    def function(self, params: Any, sources: Sources, shape: Shape) -> Any:
        """Returns what makes its samples: a DenoiseFn, a FlowMapFn, or a map from z to x."""


@dataclass(frozen=True)
class NetworkModel(Model):
    """A network of ours, whose parameters are trained here or were given.

    Attributes:
        family: A network family.
        network: Sorted (keyword, value) pairs of the family.
        kernel: The perturbation kernel.
        preconditioning: The name of its coefficients.
        sigma_data: The standard deviation of the data in preconditioning and weights.
        seed: The seed of initialisation, batches and noise.
        teacher: The name of an earlier cell with the same network, which this one starts from (and
            distils, where its objective does), or "".
        objective: What it is trained on. Of given weights it says how they are used: as a denoiser,
            a flow map, or a student with few steps.
    """

    family: str
    network: Pairs = ()
    kernel: str = "edm"
    preconditioning: str = "edm"
    sigma_data: float = 0.5
    seed: int = 0
    teacher: str = ""
    objective: str = "edm"

    def __post_init__(self):
        require_choice("family", self.family, FAMILIES)
        require_choice("objective", self.objective, OBJECTIVES)
        require_seed("seed", self.seed)
        require_number("sigma_data", self.sigma_data, above=0)
        self.precondition()

    @property
    def kind(self) -> str:
        """See `Model`."""
        return "flow_map" if is_flow_map(self.objective) else "network"

    @property
    def samples(self) -> str:
        """Whether a solver or a flow map's own sampler makes the samples."""
        return "flow_map" if self.kind == "flow_map" else "denoiser"

    @property
    def num_classes(self) -> int:
        """The number of classes that the network is conditioned on, 0 for none."""
        return dict(self.network).get("num_classes", 0)

    def precondition(self) -> Preconditioning:
        """Returns the network's coefficients, bound to its kernel."""
        return Preconditioning(self.preconditioning, make_kernel(self.kernel), self.sigma_data)

    def module(self, shape: Shape, dtype: str = "float32") -> Network:
        """Returns the network for images of a shape.

        Training may compute in another dtype; sampling is float32 for all, for a fair comparison.
        """
        return build_network(self.family, shape, dict(self.network), dtype)

    def param_shapes(self, shape: Shape) -> Any:
        """See `Model`."""
        return param_shapes(self.module(shape), shape)

    def size(self, shape: Shape) -> int:
        """See `Model`."""
        return count_params(self.module(shape), shape)

    def identity(self, teacher_hash: str) -> dict[str, Any]:
        """See `Model`."""
        return {"network": dict(self.network), **self._use()}

    def facts(self, shape: Shape) -> dict[str, Any]:
        """See `Model`."""
        return {
            "kind": self.kind,
            "family": self.family,
            "width": int(dict(self.network).get("width", 0)),
            "kernel": self.kernel,
            "seed": self.seed,
            "params": self.size(shape),
            "preconditioning": self.preconditioning,
            "teacher": self.teacher or None,
            "num_classes": self.num_classes or None,
        }

    def weights_facts(self) -> dict[str, Any]:
        """Returns how its weights must be used, which is checked when they are read."""
        return self._use() | ({"kind": self.kind} if self.kind == "flow_map" else {})

    def _use(self) -> dict[str, Any]:
        names = ("family", "kernel", "preconditioning", "sigma_data")
        return {name: getattr(self, name) for name in names}

    def weights_metadata(self) -> dict[str, Any]:
        """See `Model`."""
        return {**self.weights_facts(), "network": dict(self.network)}

    def check(self, shape: Shape, train: Subset | None, devices: int) -> None:
        """See `Model`."""
        if self.num_classes:
            labels = train.labels
            most = -1 if labels is None else int(labels.max())
            if not 0 <= most < self.num_classes:
                images = f"whose labels go up to {most}" if most >= 0 else "without labels"
                requirement = f"must fit the training images, {images}"
                raise InputError("network.num_classes", self.num_classes, requirement)
        self.param_shapes(shape)

    def function(self, params: Any, sources: Sources, shape: Shape) -> DenoiseFn:
        """See `Model`."""
        bind = network_function(self.kind)
        return bind(params, self.module(shape), self.precondition())


@dataclass(frozen=True)
class Trained(NetworkModel):
    """A network that the study trains.

    Attributes:
        options: Sorted (keyword, value) pairs of the objective, where it has any.
        training: The budget.
    """

    options: Pairs = ()
    training: TrainingSpec = field(default_factory=TrainingSpec)
    trains: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        self.make_objective()
        if needs_teacher(self.objective) and not self.teacher:
            requirement = f"must name the model that the objective {self.objective!r} distils"
            raise InputError("teacher", self.teacher, requirement)

    def make_objective(self) -> Objective:
        """Returns the training objective, bound to its kernel."""
        kernel, steps = make_kernel(self.kernel), self.training.steps
        return make_objective(self.objective, kernel, self.sigma_data, steps, dict(self.options))

    @property
    def images_seen(self) -> int:
        """See `Model`."""
        return self.training.steps * self.training.batch_size

    def identity(self, teacher_hash: str) -> dict[str, Any]:
        """See `Model`."""
        trained = {"objective": self.objective, "seed": self.seed}
        trained |= {"training": self.training.identity()}
        trained |= {"options": dict(self.options)} if self.options else {}
        trained |= {"teacher": teacher_hash} if teacher_hash else {}
        return super().identity(teacher_hash) | trained

    def facts(self, shape: Shape) -> dict[str, Any]:
        """See `Model`."""
        own = {"objective": self.objective, "steps": self.training.steps}
        return super().facts(shape) | own

    def cost(self, shape: Shape, n_train: int, loop: LoopSpec, devices: int) -> Cost:
        """See `Model`."""
        training, objective = self.training, self.make_objective()
        cost = network_cost(self.module(shape, training.dtype), shape)
        group = loop.fsdp if loop.fsdp > 1 else devices
        memory = cost.training_bytes(
            training.batch_size // training.accumulate // devices,
            teacher=objective.needs_teacher,
            shards=group if loop.state_sharding == "sharded" else 1,
        )
        passes = BACKWARD + objective.companion_passes
        train_flops = passes * cost.forward_flops * self.images_seen
        return Cost(cost.params, cost.forward_flops, train_flops, memory)

    def check(self, shape: Shape, train: Subset | None, devices: int) -> None:
        """See `Model`."""
        super().check(shape, train, devices)
        check_devices(self.training.batch_size, devices, self.training.accumulate)


@dataclass(frozen=True)
class Imported(NetworkModel):
    """A network whose weights were trained elsewhere, or by another study.

    Attributes:
        weights: A safetensors file.
    """

    weights: str = ""

    def identity(self, teacher_hash: str) -> dict[str, Any]:
        """See `Model`."""
        digest = hashlib.sha256(Path(self.weights).read_bytes()).hexdigest()
        return self.weights_metadata() | {"weights": digest}

    def facts(self, shape: Shape) -> dict[str, Any]:
        """See `Model`."""
        return super().facts(shape) | {"objective": "", "steps": 0}

    def cost(self, shape: Shape, n_train: int, loop: LoopSpec, devices: int) -> Cost:
        """See `Model`."""
        cost = network_cost(self.module(shape), shape)
        return Cost(cost.params, cost.forward_flops)

    def check(self, shape: Shape, train: Subset | None, devices: int) -> None:
        """See `Model`."""
        super().check(shape, train, devices)
        load_weights(self.weights, self.param_shapes(shape), "weights")
        stored, facts = weights_metadata(self.weights), self.weights_facts()
        for name, fact in facts.items():
            if stored.get(name, fact) != fact:
                requirement = (
                    f"were trained with {name} {stored[name]!r}; must be used with it, not with "
                    f"{fact!r}"
                )
                raise InputError("weights", self.weights, requirement)


@dataclass(frozen=True)
class ClosedForm(Model):
    """A denoiser that follows from the training images, or from their distribution.

    Attributes:
        family: "optimum" and "gaussian" of the training images, or "population", the distribution
            itself where the data source has one.
    """

    family: str
    kind: ClassVar[str] = "closed_form"

    def __post_init__(self):
        require_choice("family", self.family, CLOSED_FORMS)

    def identity(self, teacher_hash: str) -> dict[str, Any]:
        """See `Model`."""
        return {"family": self.family}

    def facts(self, shape: Shape) -> dict[str, Any]:
        """See `Model`."""
        return {"kind": self.kind, "family": self.family}

    def cost(self, shape: Shape, n_train: int, loop: LoopSpec, devices: int) -> Cost:
        """See `Model`."""
        pixels = shape[0] * shape[1] * shape[2]
        return Cost(forward_flops=4.0 * CLOSED_FORMS[self.family].rows(n_train, pixels) * pixels)

    def size(self, shape: Shape) -> int:
        """See `Model`."""
        return CLOSED_FORM_SIZE

    def function(self, params: Any, sources: Sources, shape: Shape) -> DenoiseFn:
        """See `Model`."""
        return CLOSED_FORMS[self.family].make(sources)


@dataclass(frozen=True)
class External(Model):
    """Somebody's samples, row i from noise i.

    Attributes:
        path: An ``.npz`` of images or features, a folder of images or a zip of one.
        option: The option or config field that names the path, for errors.
    """

    path: str
    option: str = field(default="path", compare=False)
    family: ClassVar[str] = "external"
    kind: ClassVar[str] = "external"
    samples: ClassVar[str] = "arrays"

    @cached_property
    def images(self) -> ImageSet:
        """The samples; read once."""
        return read_image_set(self.option, self.path)

    def identity(self, teacher_hash: str) -> dict[str, Any]:
        """See `Model`."""
        return {"family": self.family, "samples": self.images.hash}

    def facts(self, shape: Shape) -> dict[str, Any]:
        """See `Model`."""
        return {"kind": self.kind, "family": self.family}

    def function(self, params: Any, sources: Sources, shape: Shape) -> Any:
        """Raises TypeError: samples that are given are not made."""
        raise TypeError(f"the samples in {self.path} are given")


@dataclass(frozen=True)
class Contrast(Model):
    """A generator that is no diffusion model: a map from noise to image.

    Attributes:
        family: A key of `CONTRAST_FAMILIES`.
        options: Sorted (keyword, value) pairs of the family, completed by its defaults.
        seed: The seed of its training.
    """

    family: str
    options: Pairs = ()
    seed: int = 0
    kind: ClassVar[str] = "contrast"
    samples: ClassVar[str] = "map"
    trains: ClassVar[bool] = True

    def __post_init__(self):
        require_seed("seed", self.seed)
        check_contrast(self.family, dict(self.options))
        options = contrast_options(self.family) | dict(self.options)
        object.__setattr__(self, "options", tuple(sorted(options.items())))

    def identity(self, teacher_hash: str) -> dict[str, Any]:
        """See `Model`."""
        return {"family": self.family, "options": dict(self.options), "seed": self.seed}

    def facts(self, shape: Shape) -> dict[str, Any]:
        """See `Model`."""
        facts = {"kind": self.kind, "family": self.family, "seed": self.seed}
        return facts | {"params": self.size(shape)}

    def cost(self, shape: Shape, n_train: int, loop: LoopSpec, devices: int) -> Cost:
        """See `Model`."""
        size = self.size(shape)
        return Cost(size, 2.0 * size)

    def size(self, shape: Shape) -> int:
        """See `Model`."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.param_shapes(shape)))

    def param_shapes(self, shape: Shape) -> Any:
        """See `Model`."""
        return CONTRAST_FAMILIES[self.family].param_shapes(shape, dict(self.options))

    def weights_metadata(self) -> dict[str, Any]:
        """See `Model`."""
        return {"options": dict(self.options), "seed": self.seed}

    def fit(self, train: Subset) -> dict[str, Any]:
        """Returns its parameters for these training images."""
        blocks = (to_float(block) for block in train.blocks())
        return CONTRAST_FAMILIES[self.family].fit(blocks, self.seed, dict(self.options))

    def function(self, params: Any, sources: Sources, shape: Shape) -> Any:
        """See `Model`."""
        generate = jax.jit(CONTRAST_FAMILIES[self.family].generate)
        return lambda z: generate(params, z)
