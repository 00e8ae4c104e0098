"""The two kinds of function that everything else is built from."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax


class DenoiseFn(Protocol):
    """E[x0 | x] at noise level sigma: a trained network or a closed form.

    Implementations are pytrees (their parameters are leaves), so that they pass through ``jax.jit``
    as arguments: two networks of one architecture share one compiled sampler.
    """

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: jax.Array | None = None) -> jax.Array:
        """Denoises.

        Args:
            x: `[b, h, w, c]` in unscaled coordinates (x_t / scale(t)), i.e. x0 + sigma * z.
            sigma: `[b]` noise level in data units, > 0.
            cond: `[b]` int32 class labels, or None.

        Returns:
            `[b, h, w, c]`, the denoised image, in the dtype of ``x``.
        """
        ...


class FlowMapFn(Protocol):
    """The end point x0 of the probability-flow path through (x, sigma): a consistency model.

    The same shape as a DenoiseFn with another meaning, so an ODE solver refuses it.
    """

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: jax.Array | None = None) -> jax.Array:
        """Maps (x, sigma), shaped as for a DenoiseFn, to x0 `[b, h, w, c]`."""
        ...


class Companions(NamedTuple):
    """What a training loss may call beside the network that it trains; none is differentiated.

    Args:
        ema: the moving average of the network.
        teacher: the network that is distilled, or None.
        step: int32 scalar, steps done.
    """

    ema: DenoiseFn
    teacher: DenoiseFn | None
    step: jax.Array
