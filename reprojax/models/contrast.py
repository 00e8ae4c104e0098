"""Generators that are no diffusion models, for contrast: maps from noise z to an image x."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reprojax.errors import InputError, require_choice, require_number
from reprojax.rng import host_bits

Blocks = Iterable[np.ndarray]  # float32 `[b, h, w, c]` in [-1, 1], one at a time
Options = Mapping[str, Any]
Shape = tuple[int, int, int]


class ContrastFamily(NamedTuple):
    """A generator by its functions.

    Attributes:
        defaults: The options with their defaults.
        fit: From (blocks of training images, seed, options) to parameters, a nested dict of arrays.
        param_shapes: From (image shape, options) to the shapes of these parameters. It raises
            InputError if the options do not fit the images.
        generate: From (parameters, noises `[b, h, w, c]`) to images `[b, h, w, c]` in about
            [-1, 1]; traceable.
    """

    defaults: Options
    fit: Callable[[Blocks, int, Options], dict[str, Any]]
    param_shapes: Callable[[Shape, Options], dict[str, Any]]
    generate: Callable[[Any, jax.Array], jax.Array]


def fit_ppca(blocks: Blocks, seed: int, options: Options) -> dict[str, np.ndarray]:
    """Fits probabilistic PCA by maximum likelihood (Tipping and Bishop 1999).

    It is the optimum of a linear VAE (arXiv 1911.02469): x = mean + W z with
    W = U_k (Lambda_k - s^2 I)^(1/2) R, where s^2 is the mean of the variances that are left out.
    The likelihood does not decide the rotation R, so that each seed draws its own: two models of
    the same quality then disagree on every noise.

    Args:
        blocks: The training images.
        seed: The seed of the rotation.
        options: ``latent``, the number of latent dimensions.

    """
    count, total, square = 0, 0.0, 0.0
    for block in blocks:
        rows = np.asarray(block, np.float64).reshape(len(block), -1)
        count, total, square = count + len(rows), total + rows.sum(0), square + rows.T @ rows
    mean = total / count
    variances, basis = np.linalg.eigh(square / count - np.outer(mean, mean))
    k, d = int(options["latent"]), len(mean)
    rest = float(np.mean(variances[: d - k])) if k < d else 0.0
    scale = np.sqrt(np.maximum(variances[d - k :] - rest, 0.0))
    bits = host_bits(seed, "contrast/ppca", 0, k * k).reshape(k, k)
    rotation = np.linalg.qr((bits >> np.uint64(11)) * 2.0**-53 - 0.5)[0]
    loading = (basis[:, d - k :] * scale) @ rotation
    return {"mean": mean.astype(np.float32), "loading": loading.astype(np.float32)}


def _ppca_shapes(shape: Shape, options: Options) -> dict[str, Any]:
    d, k = shape[0] * shape[1] * shape[2], int(options["latent"])
    if not 0 < k <= d:
        raise InputError("options.latent", k, f"must be 1 to {d}, the number of pixel values")
    sizes = {"mean": (d,), "loading": (d, k)}
    return {name: jax.ShapeDtypeStruct(size, jnp.float32) for name, size in sizes.items()}


def generate_ppca(params: Any, z: jax.Array) -> jax.Array:
    """Maps noises `[b, h, w, c]`, of which the first k values are the latent, to images."""
    latent = z.reshape(len(z), -1)[:, : params["loading"].shape[1]]
    images = jnp.matmul(latent, params["loading"].T, precision=jax.lax.Precision.HIGHEST)
    return (params["mean"][None] + images).reshape(z.shape)


CONTRAST_FAMILIES: dict[str, ContrastFamily] = {
    "ppca": ContrastFamily({"latent": 16}, fit_ppca, _ppca_shapes, generate_ppca),
}


def contrast_options(family: str) -> dict[str, Any]:
    """Returns the options of a family with their defaults; raises InputError if it is unknown."""
    require_choice("family", family, CONTRAST_FAMILIES)
    return dict(CONTRAST_FAMILIES[family].defaults)


def check_contrast(family: str, options: Options) -> None:
    """Raises InputError unless the family exists and has these options."""
    defaults = contrast_options(family)
    for name, value in options.items():
        require_choice(f"options.{name}", name, defaults)
        if isinstance(defaults[name], int):
            require_number(f"options.{name}", value, at_least=1)
