"""What a network is and how it must be used: the same words for every origin."""

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

# What a file states is built before its tensors are looked at, so a hostile one may not state more.
MAX_NUMBER, MAX_COUNT, MAX_SIDE = 1 << 16, 128, 4096
COUNTS = ("num_blocks", "depth")
KINDS = ("network", "flow_map")  # a denoiser, or a consistency model


@dataclass(frozen=True)
class ModelFacts:
    """A network without its parameters.

    Args:
        family: of the networks.
        network: (keyword, value) pairs of the family.
        image_shape: (h, w, c).
        kernel: perturbation kernel it was trained under.
        preconditioning: its coefficients.
        sigma_data: of these.
        kind: "network" or "flow_map".
        objective: what it was trained on, or "" where that is not known.
        source: JSON values that say where it comes from.

    Raises:
        InputError: an unknown name, or a number outside its range.
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
            raise InputError("image_shape", shape, "three positive numbers (h, w, c)")
        if max(shape) > MAX_SIDE:
            raise InputError("image_shape", shape, f"sides of at most {MAX_SIDE}")
        require_choice("kind", self.kind, KINDS)
        if type(self.sigma_data) not in (int, float):
            raise InputError("sigma_data", self.sigma_data, "a number")
        require_number("sigma_data", self.sigma_data, above=0)
        self.precondition()
        defaults = network_defaults(self.family)
        for name, value in self.network:
            _check_keyword(name, value, defaults.get(name))

    def build(self) -> Network:
        """The network, computing in float32."""
        return build_network(self.family, self.image_shape, dict(self.network))

    def shapes(self) -> Any:
        """Shapes of its parameters, a nested dict, without allocating them."""
        return param_shapes(self.build(), self.image_shape)

    def precondition(self) -> Preconditioning:
        """Its coefficients, bound to its kernel."""
        return Preconditioning(self.preconditioning, make_kernel(self.kernel), self.sigma_data)


def _check_keyword(name: str, value: Any, default: Any) -> None:
    """Raises InputError unless a keyword is of its default's type and not absurdly large."""
    if default is None:
        return  # unknown: the family says what there is
    number = (int, float) if isinstance(default, float) else (int,)
    if isinstance(default, tuple):
        number = (int, float) if any(isinstance(v, float) for v in default) else (int,)
        fits = type(value) is tuple and len(value) <= MAX_COUNT
        fits = fits and all(type(v) in number for v in value)
    else:
        fits = type(value) in ((str,) if isinstance(default, str) else number)
    if not fits:
        raise InputError(f"network.{name}", value, f"a value such as {default!r}")
    most = MAX_COUNT if name in COUNTS else MAX_NUMBER
    if not isinstance(default, str) and np.max(value, initial=0) > most:
        raise InputError(f"network.{name}", value, f"at most {most}")


@dataclass(frozen=True)
class ForeignModel:
    """A network as another code base stored it.

    Args:
        facts: what it is in our words.
        tensors: by their foreign names.
        rules: from each of our parameters to foreign tensors.
        dropped: (foreign name, why) of what has no place in our network.
    """

    facts: ModelFacts
    tensors: Mapping[str, np.ndarray]
    rules: tuple[Rule, ...]
    dropped: tuple[tuple[str, str], ...] = ()
