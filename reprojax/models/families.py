"""The model families by name. A new family is a new file and one entry here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from reprojax.errors import InputError, choices, require_choice
from reprojax.models.ddpm import DDPM
from reprojax.models.multistage import Multistage, check_multistage
from reprojax.models.ncsnpp import NCSNpp
from reprojax.models.unet import ConvUNet, UNet, check_conv_unet, check_unet
from reprojax.models.uvit import UViT, check_uvit

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
Network = nn.Module  # the one name by which other packages speak of a Linen module
_NOT_KEYWORDS = {"parent", "name", "out_channels", "dtype"}


class Family(NamedTuple):
    """A network class and the check of its keywords against the image size."""

    module: type[nn.Module]
    check: Callable[[int, dict], None]


FAMILIES: dict[str, Family] = {
    "unet": Family(UNet, check_unet),
    "conv_unet": Family(ConvUNet, check_conv_unet),
    "ddpm": Family(DDPM, check_unet),
    "ncsnpp": Family(NCSNpp, check_unet),
    "multistage": Family(Multistage, check_multistage),
    "uvit": Family(UViT, check_uvit),
}


def network_defaults(family: str) -> dict[str, Any]:
    """The family's keywords with their defaults (paper scale).

    Raises:
        InputError: unknown family.
    """
    require_choice("family", family, FAMILIES)
    fields = dataclasses.fields(FAMILIES[family].module)
    return {f.name: f.default for f in fields if f.name not in _NOT_KEYWORDS}


def build_network(
    family: str,
    image_shape: tuple[int, int, int],
    network: Mapping[str, Any],
    dtype: str = "float32",
) -> nn.Module:
    """Makes a network (no parameters yet).

    Args:
        family: a key of `FAMILIES`.
        image_shape: (h, w, c), h == w.
        network: keywords of the family; what is absent takes its default.
        dtype: of the computation, a key of `DTYPES`.

    Returns:
        A hashable Linen module; two calls with equal arguments compare equal.

    Raises:
        InputError: unknown family, keyword or dtype, or a size that does not fit.
    """
    keywords = network_defaults(family)
    for name, value in network.items():
        if name not in keywords:
            raise InputError("network." + name, value, choices(keywords, name))
        keywords[name] = tuple(value) if isinstance(value, list) else value
    require_choice("training.dtype", dtype, DTYPES)
    if image_shape[0] != image_shape[1]:
        raise InputError("data.size", image_shape, "networks take square images")
    FAMILIES[family].check(image_shape[0], keywords)
    return FAMILIES[family].module(out_channels=image_shape[2], dtype=DTYPES[dtype], **keywords)


def init_params(module: nn.Module, image_shape: tuple[int, int, int], key: jax.Array) -> Any:
    """Initial parameters, a pytree of float32 arrays; traceable."""
    x = jnp.zeros((1, *image_shape), jnp.float32)
    cond = jnp.zeros((1,), jnp.int32) if module.num_classes else None
    return module.init({"params": key}, x, jnp.zeros((1,), jnp.float32), cond)["params"]


@cache
def param_shapes(module: nn.Module, image_shape: tuple[int, int, int]) -> Any:
    """Shapes of a network's parameters, a nested dict, without allocating them."""
    return jax.eval_shape(lambda key: init_params(module, image_shape, key), jax.random.key(0))


def count_params(module: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Number of parameters, without allocating them."""
    return sum(x.size for x in jax.tree.leaves(param_shapes(module, image_shape)))
