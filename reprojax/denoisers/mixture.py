"""Mixtures of (low-rank) Gaussians: data whose population denoiser is known in closed form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from reprojax.data.mixture import Mixture
from reprojax.errors import InputError

ORTHONORMAL = 1e-5  # the largest entry of |U^T U - I| that is accepted; float32 bases pass


@struct.dataclass
class MixtureDenoiser:
    """E[x0 | x] of data sum_k w_k N(mu_k, U_k diag(v_k) U_k^T + f_k I).

    D(x; sigma) = sum_k pi_k [mu_k + U_k diag((v_k + f_k) / (v_k + f_k + sigma^2)) U_k^T r_k
    + f_k / (f_k + sigma^2) (r_k - U_k U_k^T r_k)] with r_k = x - mu_k and pi_k the probability of
    component k given x, softmax_k(log w_k + log N(x; mu_k, C_k + sigma^2 I)): arXiv 2409.02426
    for low rank (r < d); full Gaussians have r = d. Made by `mixture_denoiser`, which validates.

    Args:
        weights: `[k]`, > 0, sum 1.
        means: `[k, d]`.
        bases: `[k, d, r]`, orthonormal columns.
        variances: `[k, r]`, >= 0, in the basis and without the floor.
        floors: `[k]`, >= 0, the isotropic variance; 0 for exactly low rank.
    """

    weights: jax.Array
    means: jax.Array
    bases: jax.Array
    variances: jax.Array
    floors: jax.Array

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: jax.Array | None = None) -> jax.Array:
        """See DenoiseFn; computes in the dtype of ``x`` and does not read ``cond``."""
        means, bases = self.means.astype(x.dtype), self.bases.astype(x.dtype)
        floors, noise = self.floors.astype(x.dtype)[None, :], sigma.astype(x.dtype)[:, None] ** 2
        outer = floors + noise
        variances = self.variances.astype(x.dtype)[None, :, :]
        inner = variances + outer[:, :, None]
        centred = x.reshape(x.shape[0], 1, -1) - means[None, :, :]
        parts = _einsum("bkd,kdr->bkr", centred, bases)
        # Subtracted as vectors: |r|^2 - |U^T r|^2 cancels where sigma is small.
        rest = centred - _einsum("bkr,kdr->bkd", parts, bases)
        posterior = jax.nn.softmax(self._log_joint(parts, rest, noise), axis=1)
        gain = (variances + floors[:, :, None]) / inner
        parts = parts * gain * posterior[:, :, None]
        out = _einsum("bk,kd->bd", posterior, means) + _einsum("bkr,kdr->bd", parts, bases)
        out = out + _einsum("bk,bkd->bd", posterior * (floors / outer), rest)
        return out.reshape(x.shape)

    def _log_joint(self, parts: jax.Array, rest: jax.Array, noise: jax.Array) -> jax.Array:
        """Log w_k + log N(x; mu_k, C_k + sigma^2 I) up to what is the same for all k, `[b, k]`.

        log det = r log(v + f + sigma^2) + (d - r) log(f + sigma^2) is taken relative to
        d log(min f + sigma^2): the shared part is thousands in many pixels, and would cost digits.
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
        weights: `[k]`, > 0, sum 1 (within 1e-6).
        means: `[k, d]`.
        bases: `[k, d, r]`, r <= d, orthonormal columns (within 1e-5).
        variances: `[k, r]`, >= 0.
        floors: `[k]`, >= 0.

    Returns:
        The denoiser, float64 under ``jax.enable_x64`` and float32 otherwise.

    Raises:
        InputError: a shape or a value that is not as above, naming it.
    """
    given = dict(weights=weights, means=means, bases=bases, variances=variances, floors=floors)
    arrays = {name: np.asarray(value, np.float64) for name, value in given.items()}
    _require_shapes(arrays)
    _require_values(**arrays)
    return MixtureDenoiser(**{name: jnp.asarray(array) for name, array in arrays.items()})


def population_denoiser(mixture: Mixture) -> MixtureDenoiser:
    """Makes the denoiser of a mixture's whole population, see `mixture_denoiser`."""
    return mixture_denoiser(
        mixture.weights, mixture.means, mixture.bases, mixture.variances, mixture.floors
    )


def _einsum(subscripts: str, *arrays: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, *arrays, precision=jax.lax.Precision.HIGHEST)


def _require_shapes(arrays: dict[str, np.ndarray]) -> None:
    if arrays["bases"].ndim != 3 or arrays["bases"].shape[2] > arrays["bases"].shape[1]:
        allowed = "must be [k, d, r] with r at most d"
        raise InputError("mixture.bases", arrays["bases"].shape, allowed)
    k, d, r = arrays["bases"].shape
    shapes = {"weights": (k,), "means": (k, d), "variances": (k, r), "floors": (k,)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            allowed = f"beside bases of shape {(k, d, r)} it must have shape {shape}"
            raise InputError(f"mixture.{name}", arrays[name].shape, allowed)


def _require_values(
    weights: np.ndarray,
    means: np.ndarray,
    bases: np.ndarray,
    variances: np.ndarray,
    floors: np.ndarray,
) -> None:
    """Written so that a NaN fails each check."""
    if not (np.all(weights > 0) and abs(weights.sum() - 1) <= 1e-6):
        raise InputError("mixture.weights", weights, "must be above 0 and sum to 1")
    if not np.isfinite(means).all():
        raise InputError("mixture.means", means, "must be finite")
    gram = np.einsum("kdr,kds->krs", bases, bases, optimize=True)
    gap = np.abs(gram - np.eye(bases.shape[2])).max(initial=0.0)
    if not gap <= ORTHONORMAL:
        allowed = f"columns must be orthonormal, |U^T U - I| at most {ORTHONORMAL:g}"
        raise InputError("mixture.bases", f"a basis that is off by {gap:.3g}", allowed)
    for name, array in (("variances", variances), ("floors", floors)):
        if not (np.isfinite(array).all() and np.all(array >= 0)):
            raise InputError(f"mixture.{name}", array, "must be finite and at least 0")
