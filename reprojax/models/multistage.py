"""The multistage U-Net, which has a decoder per interval of noise levels (arXiv 2312.09181)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from reprojax.errors import InputError, require_choice, require_number
from reprojax.models.unet import UNet, check_unet

SHARED = ("encoder", "none")


class Decoder(UNet):
    """The way up of a U-Net as a module of its own, so that its parameters have a scope."""

    @nn.compact
    def __call__(
        self, x: jax.Array, skips: list[jax.Array], emb: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """Decodes the features, skips and embedding of a `UNet` to float32 `[b, h, w, c]`."""
        return self._decode(x, skips, emb, train=train)


class Multistage(UNet):
    """A U-Net with a decoder for each interval of noise levels.

    Interval k is `boundaries[k - 1] <= c_noise < boundaries[k]`; the first and the last interval
    have no other end. The parameters of interval k are in the scope `stage{k}`. All decoders have
    the same size.

    Args: those of `UNet`, and
        boundaries: The values of the network's noise input c_noise at which the intervals meet,
            rising. c_noise is log(sigma) / 4 with EDM preconditioning (the defaults are sigma of
            about .5 and 5) and 999 t in the VP family.
        shared: What the intervals share: "encoder" (with the middle and the embedding), or "none",
            which gives each interval a U-Net of its own.
    """

    boundaries: tuple[float, ...] = (-0.17, 0.4)
    shared: str = "encoder"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        c_noise: jax.Array,
        cond: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        """Maps its inputs, which are those of `UNet.__call__`, to float32 `[b, h, w, c]`."""
        stages = range(len(self.boundaries) + 1)
        if self.shared == "encoder":
            emb = self._embed(c_noise, cond)
            features = (*self._encode(x, emb, train=train), emb)
            outputs = [self._stage(Decoder, k)(*features, train=train) for k in stages]
        else:
            outputs = [self._stage(UNet, k)(x, c_noise, cond, train=train) for k in stages]
        # A batch mixes noise levels. Every stage therefore computes every image, and each image
        # keeps the output of its own stage, at K times the cost of a decoder. A batch per stage
        # would be cheaper, but its size is not known when the step is compiled.
        out = outputs[0]
        for boundary, later in zip(self.boundaries, outputs[1:], strict=True):
            out = jnp.where((c_noise >= boundary)[:, None, None, None], later, out)
        return out

    def _stage(self, kind: type[UNet], k: int) -> UNet:
        linen_fields = {"parent", "name"}
        names = [f.name for f in dataclasses.fields(UNet) if f.name not in linen_fields]
        return kind(**{n: getattr(self, n) for n in names}, name=f"stage{k}")


def check_multistage(size: int, network: dict[str, Any]) -> None:
    """Raises InputError as `check_unet` does, and unless the boundaries make intervals."""
    check_unet(size, network)
    require_choice("network.shared", network["shared"], SHARED)
    boundaries = network["boundaries"]
    for boundary in boundaries:
        require_number("network.boundaries", boundary)
    if not boundaries or any(np.diff(np.asarray(boundaries, np.float32)) <= 0):
        requirement = "must be one or more rising values of c_noise, distinct in float32"
        raise InputError("network.boundaries", boundaries, requirement)
