"""The optimal denoiser of a mixture of Gaussians, of full or low rank, in closed form."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from reprojax.data.mixture import Mixture
from reprojax.denoisers.base import Denoiser
from reprojax.errors import InputError

ORTHONORMAL = 1e-5  # the largest allowed entry of |U^T U - I|, which float32 bases do not exceed


@struct.dataclass
class MixtureDenoiser(Denoiser):
    """E[x0 | x] of the mixture sum_k w_k N(mu_k, C_k), C_k = U_k diag(v_k) U_k^T + f_k I.

    D(x; sigma) = sum_k pi_k [mu_k + U_k diag((v_k + f_k) / (v_k + f_k + sigma^2)) U_k^T r_k
    + f_k / (f_k + sigma^2) (r_k - U_k U_k^T r_k)], where r_k = x - mu_k and pi_k is the probability
    of component k given x, softmax_k(log w_k + log N(x; mu_k, C_k + sigma^2 I)). For low rank
    (r < d) see arXiv 2409.02426; full Gaussians have r = d. Make one with `mixture_denoiser`, which
    checks the parameters.

    Args:
        weights: The weights w, `[k]`, > 0, with sum 1.
        means: The means mu, `[k, d]`.
        bases: The bases U with orthonormal columns, `[k, d, r]`.
        variances: The variances v along the columns, without the floor, `[k, r]`, >= 0.
        floors: The isotropic variances f, `[k]`, >= 0; 0 for components of exactly low rank.
    """

    weights: jax.Array
    means: jax.Array
    bases: jax.Array
    variances: jax.Array
    floors: jax.Array

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: Any = None) -> jax.Array:
        """Denoises as a DenoiseFn does, in the dtype of ``x``. The condition is ignored."""
        means, bases = self.means.astype(x.dtype), self.bases.astype(x.dtype)
        floors, noise = self.floors.astype(x.dtype)[None, :], sigma.astype(x.dtype)[:, None] ** 2
        outer = floors + noise
        variances = self.variances.astype(x.dtype)[None, :, :]
        inner = variances + outer[:, :, None]
        centred = x.reshape(x.shape[0], 1, -1) - means[None, :, :]
        parts = _einsum("bkd,kdr->bkr", centred, bases)
        # Subtracted as vectors, since |r|^2 - |U^T r|^2 would lose its digits at small sigma.
        rest = centred - _einsum("bkr,kdr->bkd", parts, bases)
        posterior = jax.nn.softmax(self._log_joint(parts, rest, noise), axis=1)
        gain = (variances + floors[:, :, None]) / inner
        parts = parts * gain * posterior[:, :, None]
        out = _einsum("bk,kd->bd", posterior, means) + _einsum("bkr,kdr->bd", parts, bases)
        out = out + _einsum("bk,bkd->bd", posterior * (floors / outer), rest)
        return out.reshape(x.shape)

    def _log_joint(self, parts: jax.Array, rest: jax.Array, noise: jax.Array) -> jax.Array:
        """Returns log w_k + log N(x; mu_k, C_k + sigma^2 I) up to a constant in k, `[b, k]`.

        d log(min f + sigma^2) is subtracted from the log determinant, which is
        r log(v + f + sigma^2) + (d - r) log(f + sigma^2). That part is the same for all k. In
        images of many pixels it is in the thousands and would cost digits.
        """
        variances = self.variances.astype(parts.dtype)[None, :, :]
        floors = self.floors.astype(parts.dtype)[None, :]
        outer, lowest = floors + noise, floors.min()
        squares = (parts**2 / (variances + outer[:, :, None])).sum(2) + (rest**2).sum(2) / outer
        log_det = jnp.log1p(variances / outer[:, :, None]).sum(2)
        log_det = log_det + rest.shape[2] * jnp.log1p((floors - lowest) / (lowest + noise))
        return jnp.log(self.weights.astype(parts.dtype))[None, :] - 0.5 * (squares + log_det)


def mixture_denoiser(
    weights: np.ndarray,
    means: np.ndarray,
    bases: np.ndarray,
    variances: np.ndarray,
    floors: np.ndarray,
) -> MixtureDenoiser:
    """Checks the parameters of a mixture and makes its denoiser.

    Args:
        weights: The weights, `[k]`, > 0, with sum 1 (within 1e-6).
        means: The means, `[k, d]`.
        bases: The bases, `[k, d, r]`, r <= d, with orthonormal columns (within 1e-5).
        variances: The variances along the columns, without the floor, `[k, r]`, >= 0.
        floors: The isotropic variances, `[k]`, >= 0.

    Returns:
        The denoiser, float64 under ``jax.enable_x64`` and float32 otherwise.

    Raises:
        InputError: A shape or a value is not as above.
    """
    values = dict(weights=weights, means=means, bases=bases, variances=variances, floors=floors)
    arrays = {name: np.asarray(value, np.float64) for name, value in values.items()}
    _require_shapes(arrays)
    _require_values(**arrays)
    return MixtureDenoiser(**{name: jnp.asarray(array) for name, array in arrays.items()})


def population_denoiser(mixture: Mixture) -> MixtureDenoiser:
    """Makes the denoiser of a mixture's whole population; see `mixture_denoiser`."""
    return mixture_denoiser(
        mixture.weights, mixture.means, mixture.bases, mixture.variances, mixture.floors
    )


def _einsum(subscripts: str, *arrays: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, *arrays, precision=jax.lax.Precision.HIGHEST)


def _require_shapes(arrays: dict[str, np.ndarray]) -> None:
    if arrays["bases"].ndim != 3 or arrays["bases"].shape[2] > arrays["bases"].shape[1]:
        requirement = "must be [k, d, r] with r at most d"
        raise InputError("mixture.bases", arrays["bases"].shape, requirement)
    k, d, r = arrays["bases"].shape
    shapes = {"weights": (k,), "means": (k, d), "variances": (k, r), "floors": (k,)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            requirement = f"must have the shape {shape}, since the bases have {(k, d, r)}"
            raise InputError(f"mixture.{name}", arrays[name].shape, requirement)


def _require_values(
    weights: np.ndarray,
    means: np.ndarray,
    bases: np.ndarray,
    variances: np.ndarray,
    floors: np.ndarray,
) -> None:
    """Raises InputError unless all values are in range. A NaN fails each check."""
    if not (np.all(weights > 0) and abs(weights.sum() - 1) <= 1e-6):
        raise InputError("mixture.weights", weights, "must be above 0 and sum to 1")
    if not np.isfinite(means).all():
        raise InputError("mixture.means", means, "must be finite")
    gram = np.einsum("kdr,kds->krs", bases, bases, optimize=True)
    gap = np.abs(gram - np.eye(bases.shape[2])).max(initial=0.0)
    if not gap <= ORTHONORMAL:
        requirement = (
            f"must have orthonormal columns; |U^T U - I| is {gap:.3g}, above {ORTHONORMAL:g}"
        )
        raise InputError("mixture.bases", None, requirement)
    for name, array in (("variances", variances), ("floors", floors)):
        if not (np.isfinite(array).all() and np.all(array >= 0)):
            raise InputError(f"mixture.{name}", array, "must be finite and at least 0")
