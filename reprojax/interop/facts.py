"""Describes a network and how it is used, in the same terms for every origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reprojax.diffusion.kernels import make_kernel
from reprojax.diffusion.preconditioning import Preconditioning
from reprojax.errors import InputError, require_choice, require_number
from reprojax.interop.mapping import Rule
from reprojax.models.families import Network, build_network, network_defaults, param_shapes

# Limits for a hostile file: its network is built before anyone looks at the tensors.
MAX_NUMBER, MAX_COUNT, MAX_SIDE = 1 << 16, 128, 4096
COUNTS = ("num_blocks", "depth")
KINDS = ("network", "flow_map")  # a denoiser, or a consistency model


@dataclass(frozen=True)
class ModelFacts:
    """A description of a network without its parameters.

    Args:
        family: The family of networks, e.g. "unet".
        network: The network's keywords, as (keyword, value) pairs.
        image_shape: The shape (h, w, c) of the images.
        kernel: The perturbation kernel that the network was trained under.
        preconditioning: The name of the preconditioning.
        sigma_data: The standard deviation of the data, in data units, for the preconditioning.
        kind: "network" for a denoiser, "flow_map" for a consistency model.
        objective: The training objective, or "" if it is not known.
        source: JSON values that say where the network comes from.

    Raises:
        InputError: A name is unknown, or a number is out of range.
    """

    family: str
    network: tuple[tuple[str, Any], ...]
    image_shape: tuple[int, int, int]
    kernel: str
    preconditioning: str
    sigma_data: float = 0.5
    kind: str = "network"
    objective: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        shape = self.image_shape
        if len(shape) != 3 or any(type(n) is not int or n < 1 for n in shape):
            raise InputError("image_shape", shape, "must be three positive numbers (h, w, c)")
        if max(shape) > MAX_SIDE:
            raise InputError("image_shape", shape, f"must have sides of at most {MAX_SIDE}")
        require_choice("kind", self.kind, KINDS)
        if type(self.sigma_data) not in (int, float):
            raise InputError("sigma_data", self.sigma_data, "must be a number")
        require_number("sigma_data", self.sigma_data, above=0)
        self.precondition()
        defaults = network_defaults(self.family)
        for name, value in self.network:
            _check_keyword(name, value, defaults.get(name))

    def build(self) -> Network:
        """Returns the network, which computes in float32."""
        return build_network(self.family, self.image_shape, dict(self.network))

    def shapes(self) -> Any:
        """Returns the shapes of the parameters, a nested dict, without allocating them."""
        return param_shapes(self.build(), self.image_shape)

    def precondition(self) -> Preconditioning:
        """Returns the preconditioning, bound to the kernel."""
        return Preconditioning(self.preconditioning, make_kernel(self.kernel), self.sigma_data)


def _check_keyword(name: str, value: Any, default: Any) -> None:
    """Raises InputError unless a keyword has its default's type and is not absurdly large."""
    if default is None:
        return  # an unknown keyword, which the family reports with the names that it takes
    number = (int, float) if isinstance(default, float) else (int,)
    if isinstance(default, tuple):
        number = (int, float) if any(isinstance(v, float) for v in default) else (int,)
        fits = type(value) is tuple and len(value) <= MAX_COUNT
        fits = fits and all(type(v) in number for v in value)
    else:
        fits = type(value) in ((str,) if isinstance(default, str) else number)
    if not fits:
        raise InputError(f"network.{name}", value, f"must be a value such as {default!r}")
    limit = MAX_COUNT if name in COUNTS else MAX_NUMBER
    if not isinstance(default, str) and np.max(value, initial=0) > limit:
        raise InputError(f"network.{name}", value, f"must be at most {limit}")


@dataclass(frozen=True)
class ForeignModel:
    """A network as another code base stored it.

    Args:
        facts: The description of the network in our terms.
        tensors: The tensors by foreign name.
        rules: One rule for each of our parameters, which makes it of foreign tensors.
        unused: The foreign name of, and the reason for, each tensor that our network has no
            place for.
    """

    facts: ModelFacts
    tensors: Mapping[str, np.ndarray]
    rules: tuple[Rule, ...]
    unused: tuple[tuple[str, str], ...] = ()
