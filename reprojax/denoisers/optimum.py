"""The empirical optimum, which minimises the denoising loss on a finite training set exactly."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh, PartitionSpec

from reprojax.denoisers.base import Denoiser
from reprojax.runtime.job import place
from reprojax.runtime.mesh import BATCH_AXES, batch_devices, batch_sharding, replicated

BLOCK = 2048  # training images per step of the running softmax
TIES = 4  # the nearest images per sample whose logits are computed to the last digits
NARROW = 0.125  # a pixel whose range over the training set is at most this is centred


class _Softmax(NamedTuple):
    """A softmax over part of the training set. Scores are logits times sigma^2.

    Args:
        top: The largest score, or the lowest finite number if all images are padding, `[b]`.
        total: The sum of exp((score - top) / sigma^2), `[b]`.
        mean: The sum of exp((score - top) / sigma^2) y, `[b, d]`.
        scores: The k largest scores, falling, `[b, k]`; -inf if there are fewer images.
        indices: The indices of the images with these scores, int32 `[b, k]`.
    """

    top: jax.Array
    total: jax.Array
    mean: jax.Array
    scores: jax.Array
    indices: jax.Array


@struct.dataclass
class EmpiricalOptimum(Denoiser):
    """The optimal denoiser of a training set (arXiv 2310.05264, theorem 1).

    D*(x; sigma) = sum_i w_i y_i, w = softmax_i(-|x - y_i|^2 / (2 sigma^2)). Make one with
    `empirical_optimum`.

    The softmax runs over blocks of the training set with a running maximum, so that the block
    bounds the memory. The logits are (x.y - |y|^2 / 2) / sigma^2. They leave out |x|^2, which is
    the same for all i, because float32 is then exact at large sigma. At small sigma they have an
    error of about 1e-4 / sigma^2 in float32, which matters if several images are nearly equally
    close to x. The logits of the `TIES` closest images are therefore computed again from
    differences. Larger groups of images that differ by a few grey levels keep the error, unless
    the whole set is such a group. A float64 ``x`` has no such error.

    Args:
        images: The training images less ``centre``, padded with zeros, `[blocks, block, d]`
            float32.
        half_norms: |image|^2 / 2 as a rounded number (inf for padding) and its remainder,
            `[blocks, 2, block]` float32.
        centre: The values that are subtracted from the images, `[d]` float32.
        mesh: The devices that share the blocks, or None; static.
    """

    images: jax.Array
    half_norms: jax.Array
    centre: jax.Array
    mesh: Mesh | None = struct.field(pytree_node=False, default=None)

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: Any = None) -> jax.Array:
        """Denoises as a DenoiseFn does. The condition is ignored.

        It computes in the dtype of ``x``, with products at the highest precision.
        """
        arguments = (
            self.images,
            self.half_norms,
            self.centre.astype(x.dtype),
            x.reshape(x.shape[0], -1),
            1.0 / sigma**2,
        )
        # Inside a shard_map over the batch axes each device has all blocks and its own batch.
        manual = jax.sharding.get_abstract_mesh().manual_axes
        has_all_blocks = self.mesh is None or set(BATCH_AXES) <= set(manual)
        if has_all_blocks:
            return _denoise(*arguments).reshape(x.shape)
        split, whole = PartitionSpec(BATCH_AXES), PartitionSpec()
        denoise = jax.shard_map(
            _denoise_shard,
            mesh=self.mesh,
            in_specs=(split, split, whole, whole, whole),
            out_specs=whole,
            check_vma=False,
        )
        return denoise(*arguments).reshape(x.shape)

    def placement(self, mesh: Mesh) -> EmpiricalOptimum:
        """Returns where the arrays should lie on a mesh, for `jax.device_put`.

        Args:
            mesh: A mesh from `make_mesh`. It must be ``self.mesh`` unless that is None.

        Returns:
            An optimum with shardings as leaves. The blocks are split over the mesh if the optimum
            is made for one; otherwise all arrays are whole on every device.
        """
        whole = replicated(mesh)
        blocks = whole if self.mesh is None else batch_sharding(mesh)
        return self.replace(images=blocks, half_norms=blocks, centre=whole)


def empirical_optimum(
    images: np.ndarray, block: int = BLOCK, mesh: Mesh | None = None
) -> EmpiricalOptimum:
    """Makes the empirical optimum of a training set.

    Args:
        images: The training images, `[n, h, w, c]` float32 in [-1, 1], n >= 1.
        block: The largest number of images per block.
        mesh: The devices to split the training set over, with at least one block on each; None
            keeps it whole on every device.

    Returns:
        The closed-form denoiser.
    """
    flat = np.asarray(images, np.float32).reshape(len(images), -1)
    devices = 1 if mesh is None else batch_devices(mesh)
    block = min(block, -(-len(flat) // devices))
    padding = -len(flat) % (block * devices)
    low, high = flat.min(0), flat.max(0)
    # Centring makes the values of nearly equal images small, and so their inner products. A pixel
    # of wide range is not centred, because rounding the difference would change the images.
    centre = np.where(high - low <= NARROW, low + (high - low) / 2, 0).astype(np.float32)
    flat = flat - centre
    norms = 0.5 * np.einsum("nd,nd->n", flat, flat, dtype=np.float64)
    rounded = norms.astype(np.float32)
    half_norms = np.stack([rounded, (norms - rounded).astype(np.float32)])
    half_norms = np.pad(half_norms, ((0, 0), (0, padding)))
    half_norms[0, len(flat) :] = np.inf
    optimum = EmpiricalOptimum(
        np.pad(flat, ((0, padding), (0, 0))).reshape(-1, block, flat.shape[1]),
        np.ascontiguousarray(half_norms.reshape(2, -1, block).swapaxes(0, 1)),
        centre,
        mesh,
    )
    if mesh is None:
        return jax.tree.map(jnp.asarray, optimum)
    return place(optimum, optimum.placement(mesh))


def _denoise(images, half_norms, centre, x, precision):
    softmax = _scan_blocks(images, half_norms, x - centre[None, :], precision)
    ties = images.reshape(-1, images.shape[-1])[softmax.indices]
    return _settle_ties(softmax, ties, centre, x, precision)


def _denoise_shard(images, half_norms, centre, x, precision):
    """Computes `_denoise` on a mesh whose devices have different blocks."""
    part = _scan_blocks(images, half_norms, x - centre[None, :], precision)
    top = jax.lax.pmax(jax.lax.stop_gradient(part.top), BATCH_AXES)
    scale = jnp.exp((part.top - top) * precision)
    total = jax.lax.psum(part.total * scale, BATCH_AXES)
    mean = jax.lax.psum(part.mean * scale[:, None], BATCH_AXES)
    gathered = jax.lax.all_gather(part.scores, BATCH_AXES, axis=1, tiled=True)
    scores, places = jax.lax.top_k(gathered, TIES)
    owner, rank = places // TIES, places % TIES
    indices = jnp.take_along_axis(part.indices, rank, 1)
    ties = images.reshape(-1, images.shape[-1])[indices]
    is_here = owner == jax.lax.axis_index(BATCH_AXES)
    ties = jax.lax.psum(jnp.where(is_here[..., None], ties, 0), BATCH_AXES)
    return _settle_ties(_Softmax(top, total, mean, scores, indices), ties, centre, x, precision)


def _scan_blocks(images, half_norms, x, precision) -> _Softmax:
    """Computes the softmax over all blocks of this device.

    Args:
        images: See `EmpiricalOptimum`.
        half_norms: See `EmpiricalOptimum`.
        x: Noisy images less the centre, `[b, d]`.
        precision: 1 / sigma^2, `[b]`.
    """
    high = jax.lax.Precision.HIGHEST

    def block(carry, data):
        index, y, half_norm = data[0], data[1].astype(x.dtype), data[2].astype(x.dtype)
        scores = jnp.matmul(x, y.T, precision=high) - half_norm[:1] - half_norm[1:]
        top = jax.lax.stop_gradient(jnp.maximum(carry.top, scores.max(1)))
        weights = jnp.exp((scores - top[:, None]) * precision[:, None])
        old = jnp.exp((carry.top - top) * precision)
        total = carry.total * old + weights.sum(1)
        mean = carry.mean * old[:, None] + jnp.matmul(weights, y, precision=high)
        best, places = jax.lax.top_k(jnp.concatenate([carry.scores, scores], 1), TIES)
        earlier = jnp.take_along_axis(carry.indices, jnp.minimum(places, TIES - 1), 1)
        new = index * len(y) + places - TIES
        return _Softmax(top, total, mean, best, jnp.where(places < TIES, earlier, new)), None

    # Not -inf, because a device may have padding only, and -inf - -inf is not a number.
    lowest = jnp.full(len(x), jnp.finfo(x.dtype).min, x.dtype)
    none = jnp.full((len(x), TIES), -jnp.inf, x.dtype)
    start = _Softmax(
        lowest, jnp.zeros_like(lowest), jnp.zeros_like(x), none, jnp.zeros(none.shape, jnp.int32)
    )
    numbers = jnp.arange(len(images), dtype=jnp.int32)
    return jax.lax.scan(block, start, (numbers, images, half_norms))[0]


def _settle_ties(softmax, ties, centre, x, precision):
    """Returns the denoised images `[b, d]`, with exact logits for ``ties`` `[b, k, d]`."""
    ties = ties.astype(x.dtype)
    rounded = (softmax.scores - softmax.top[:, None]) * precision[:, None]
    # rounded[:, :1] is 0, but its derivative is not, because `top` is a constant there.
    exact = _leads(ties, centre, x) * precision[:, None] + rounded[:, :1]
    exact = jnp.where(jnp.isneginf(softmax.scores), -jnp.inf, exact)
    # The image with the best rounded logit has logit 0 here; another one may be far better.
    top = exact.max(1)
    rest = jnp.exp(-top)
    weights = jnp.exp(exact - top[:, None]) - jnp.exp(rounded) * rest[:, None]
    total = softmax.total * rest + weights.sum(1)
    mean = softmax.mean * rest[:, None] + (weights[..., None] * ties).sum(1)
    return centre[None, :] + mean / total[:, None]


def _leads(ties, centre, x):
    """Computes (|x - y_0|^2 - |x - y_i|^2) / 2 to nearly twice the precision, `[b, k]`.

    It equals sum (y_i - y_0) (x - y_i + x - y_0) / 2, where each factor is a sum of two numbers.

    Args:
        ties: The images y less the centre, `[b, k, d]`.
        centre: The centre, `[d]`.
        x: Noisy images, `[b, d]`.
    """
    shifted, low = _two_sum(x, -centre[None, :])  # ties are relative to the centre
    far, far_low = _two_sum(shifted[:, None, :], -ties)
    near, near_low = far[:, :1], far_low[:, :1]
    both, both_low = _two_sum(far, near)
    both_low += far_low + near_low + 2 * low[:, None, :]
    gap, gap_low = _two_sum(ties, -ties[:, :1])
    product, product_low = _two_product(gap, both)
    return _accurate_sum(product, product_low + gap * both_low + gap_low * both) / 2


def _two_sum(a, b):
    """Returns the rounded sum a + b and its remainder, exactly and by additions only (Knuth)."""
    total = a + b
    b_part = total - a
    return total, (a - (total - b_part)) + (b - b_part)


def _two_product(a, b):
    """Returns the rounded product a b and its remainder (Dekker).

    The compiler may fuse a product with the addition that uses it in one place and not in another.
    That does not change the products of the halves, which are exact. The rounded product has one
    bit less than its type, which keeps it out of any fusion.
    """
    info = jnp.finfo(a.dtype)

    def keep(values, bits):
        return jax.lax.reduce_precision(values, info.nexp, bits)

    half = (info.nmant - 1) // 2
    a_high, b_high = keep(a, half), keep(b, half)
    a_low, b_low = a - a_high, b - b_high
    product = keep(a * b, info.nmant - 1)
    rest = a_high * b_high - product
    return product, rest + a_high * b_low + a_low * b_high + a_low * b_low


def _accurate_sum(high, low):
    """Returns the sum of high + low over the last axis, without rounding errors from ``high``.

    Adding and subtracting a bound far above all numbers leaves their leading bits on one grid,
    where sums in any order are exact (Rump, Ogita and Oishi, "Accurate floating-point summation").
    """
    ones = jnp.ones(high.shape[-1], high.dtype)

    def add(values):
        return jnp.matmul(values, ones, precision=jax.lax.Precision.HIGHEST)

    scale = 4 << high.shape[-1].bit_length()  # a power of two, so the bound below is exact
    sums = []
    for _ in range(2):
        bound = jax.lax.stop_gradient(jnp.abs(high).max(-1, keepdims=True)) * scale
        leading = (high + bound) - bound
        sums.append(add(leading))  # on the CPU several times faster than sum(): XLA fuses less
        high = high - leading
    return (sums[0] + sums[1]) + add(high + low)
