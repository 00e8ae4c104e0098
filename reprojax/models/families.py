"""The table of model families. A new family is a new file and one entry here."""

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
Network = nn.Module  # so that other packages need not import Flax to name its type
_NOT_KEYWORDS = {"parent", "name", "out_channels", "dtype"}


class Family(NamedTuple):
    """A network class and the function that checks its keywords for an image size."""

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
    """Returns the keywords of a family with their defaults, which are of the paper's scale.

    Args:
        family: A key of `FAMILIES`.

    Raises:
        InputError: ``family`` is not a key of `FAMILIES`.
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
    """Makes a network without parameters.

    Args:
        family: A key of `FAMILIES`.
        image_shape: The shape (h, w, c) of the images, h == w.
        network: The keywords of the family that differ from `network_defaults`.
        dtype: The dtype of the computation, a key of `DTYPES`.

    Returns:
        A hashable Linen module. Equal arguments give equal modules.

    Raises:
        InputError: The family, a keyword or the dtype is unknown, or the keywords do not fit the
            size of the images.
    """
    keywords = network_defaults(family)
    for name, value in network.items():
        if name not in keywords:
            raise InputError("network." + name, value, choices(keywords, name))
        keywords[name] = tuple(value) if isinstance(value, list) else value
    require_choice("training.dtype", dtype, DTYPES)
    if image_shape[0] != image_shape[1]:
        raise InputError("data.size", image_shape, "must be square for a network")
    FAMILIES[family].check(image_shape[0], keywords)
    return FAMILIES[family].module(out_channels=image_shape[2], dtype=DTYPES[dtype], **keywords)


def init_params(module: nn.Module, image_shape: tuple[int, int, int], key: jax.Array) -> Any:
    """Draws the initial parameters of a network. This function may be traced.

    Args:
        module: A network from `build_network`.
        image_shape: The shape (h, w, c) of the images.
        key: The PRNG key.

    Returns:
        The parameters, a pytree of float32 arrays.
    """
    x = jnp.zeros((1, *image_shape), jnp.float32)
    cond = jnp.zeros((1,), jnp.int32) if module.num_classes else None
    return module.init({"params": key}, x, jnp.zeros((1,), jnp.float32), cond)["params"]


@cache
def param_shapes(module: nn.Module, image_shape: tuple[int, int, int]) -> Any:
    """Returns the shapes of a network's parameters, a nested dict, without allocating them."""
    return jax.eval_shape(lambda key: init_params(module, image_shape, key), jax.random.key(0))


def count_params(module: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Returns the number of a network's parameters, without allocating them."""
    return sum(x.size for x in jax.tree.leaves(param_shapes(module, image_shape)))
