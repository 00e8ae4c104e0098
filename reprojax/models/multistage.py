"""Multistage U-Net: each interval of noise levels has its own decoder (arXiv 2312.09181)."""

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
    """A U-Net's way up alone, as a module, so that its parameters have a scope of their own."""

    @nn.compact
    def __call__(
        self, x: jax.Array, skips: list[jax.Array], emb: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """Features, skips and embedding of a `UNet`'s way down to float32 `[b, h, w, c]`."""
        return self._decode(x, skips, emb, train=train)


class Multistage(UNet):
    """A U-Net with a decoder for each interval of noise levels.

    Interval k is `boundaries[k - 1] <= c_noise < boundaries[k]`, the first and the last without
    end; its parameters are in the scope `stage{k}`. All decoders are of one size.

    Args: those of `UNet`, and
        boundaries: where the intervals meet, rising, in the network's noise input c_noise: with
            EDM preconditioning log(sigma) / 4 (the default: sigma about .5 and 5), in the VP
            family 999 t.
        shared: between intervals: "encoder" (with the middle and the embedding) or "none", which
            makes every interval a U-Net of its own.
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
        """x `[b, h, w, c]`, c_noise `[b]`, cond int32 `[b]` or None to float32 `[b, h, w, c]`."""
        stages = range(len(self.boundaries) + 1)
        if self.shared == "encoder":
            emb = self._embed(c_noise, cond)
            features = (*self._encode(x, emb, train=train), emb)
            outputs = [self._stage(Decoder, k)(*features, train=train) for k in stages]
        else:
            outputs = [self._stage(UNet, k)(x, c_noise, cond, train=train) for k in stages]
        # A batch mixes noise levels, so every stage sees every image and each image takes its own
        # stage's answer: K times a decoder's cost, where picking per image would need a batch per
        # stage, of a size that is not known when the step is compiled.
        out = outputs[0]
        for boundary, later in zip(self.boundaries, outputs[1:], strict=True):
            out = jnp.where((c_noise >= boundary)[:, None, None, None], later, out)
        return out

    def _stage(self, kind: type[UNet], k: int) -> UNet:
        own = {"parent", "name"}
        names = [f.name for f in dataclasses.fields(UNet) if f.name not in own]
        return kind(**{n: getattr(self, n) for n in names}, name=f"stage{k}")


def check_multistage(size: int, network: dict[str, Any]) -> None:
    """Raises InputError as `check_unet` does, and unless the intervals can be told apart."""
    check_unet(size, network)
    require_choice("network.shared", network["shared"], SHARED)
    boundaries = network["boundaries"]
    for boundary in boundaries:
        require_number("network.boundaries", boundary)
    if not boundaries or any(np.diff(np.asarray(boundaries, np.float32)) <= 0):
        raise InputError("network.boundaries", boundaries, "one or more rising values of c_noise")
