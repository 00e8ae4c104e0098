"""The empirical optimum: the exact minimiser of the denoising loss on a finite training set."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh, PartitionSpec

from reprojax.runtime.job import place
from reprojax.runtime.mesh import BATCH_AXES, batch_devices, batch_sharding, replicated

BLOCK = 2048  # training images per step of the running softmax
TIES = 4  # candidates per sample whose logits are computed to the last digits
NARROW = 0.125  # range of a pixel over the training set under which the pixel is centred


class _Softmax(NamedTuple):
    """A softmax over part of the training set; scores are logits times sigma^2.

    Args:
        top: `[b]`, the largest score, or at least a finite number.
        total: `[b]`, sum of exp((score - top) / sigma^2).
        mean: `[b, d]`, sum of exp((score - top) / sigma^2) y.
        scores: `[b, k]`, the k largest, in falling order; -inf where there are fewer images.
        indices: int32 `[b, k]`, whose scores these are.
    """

    top: jax.Array
    total: jax.Array
    mean: jax.Array
    scores: jax.Array
    indices: jax.Array


@struct.dataclass
class EmpiricalOptimum:
    """D*(x; sigma) = sum_i w_i y_i, w = softmax_i(-|x - y_i|^2 / (2 sigma^2)).

    Theorem 1 of arXiv 2310.05264. Made by `empirical_optimum`.
    The softmax runs over blocks of the training set with a running maximum, so memory is bounded by
    the block. The logits are (x.y - |y|^2 / 2) / sigma^2: |x|^2 is the same for all i, and leaving
    it out keeps float32 exact where sigma is large. Where sigma is small they have an error of
    about 1e-4 / sigma^2 in float32, which decides between images that are nearly as close to x as
    each other; so the logits of the `TIES` closest are computed again, from differences. Groups of
    more images than that, a few grey levels apart, keep the error (unless the whole set is one such
    group): a float64 ``x`` has none.

    Args:
        images: `[blocks, block, d]` float32, training images less ``centre``, padded with zeros.
        half_norms: `[blocks, 2, block]` float32, |image|^2 / 2 as a rounded number (inf where
            padded) and the rest of it.
        centre: `[d]` float32.
        mesh: devices that share the blocks, or None.
    """

    images: jax.Array
    half_norms: jax.Array
    centre: jax.Array
    mesh: Mesh | None = struct.field(pytree_node=False, default=None)

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: jax.Array | None = None) -> jax.Array:
        """See DenoiseFn; computes in the dtype of ``x``, products at the highest precision."""
        arguments = (
            self.images,
            self.half_norms,
            self.centre.astype(x.dtype),
            x.reshape(x.shape[0], -1),
            1.0 / sigma**2,
        )
        # Inside a shard_map over the same axis each device holds all blocks and a batch of its own.
        manual = jax.sharding.get_abstract_mesh().manual_axes
        alone = self.mesh is None or set(BATCH_AXES) <= set(manual)
        if alone:
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
        """Where the arrays go, for `jax.device_put`.

        Args:
            mesh: from `make_mesh`; the optimum's own if it has one.

        Returns:
            A tree of NamedSharding: blocks split over the mesh if the optimum was made for one,
            otherwise everything on every device.
        """
        whole = replicated(mesh)
        blocks = whole if self.mesh is None else batch_sharding(mesh)
        return self.replace(images=blocks, half_norms=blocks, centre=whole)


def empirical_optimum(
    images: np.ndarray, block: int = BLOCK, mesh: Mesh | None = None
) -> EmpiricalOptimum:
    """Lays a training set out in blocks.

    Args:
        images: `[n, h, w, c]` float32 in [-1, 1], n >= 1.
        block: images per block at most.
        mesh: devices to split the training set over, each with at least one block; None keeps it
            whole.

    Returns:
        The closed-form denoiser of that set.
    """
    flat = np.asarray(images, np.float32).reshape(len(images), -1)
    devices = 1 if mesh is None else batch_devices(mesh)
    block = min(block, -(-len(flat) // devices))
    padding = -len(flat) % (block * devices)
    low, high = flat.min(0), flat.max(0)
    # Centring makes nearly equal images small, and their inner products with them. A pixel of wide
    # range stays as it is: rounding its difference would change the images.
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
    """`_denoise` where each device of the mesh has other blocks."""
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
    mine = owner == jax.lax.axis_index(BATCH_AXES)
    ties = jax.lax.psum(jnp.where(mine[..., None], ties, 0), BATCH_AXES)
    return _settle_ties(_Softmax(top, total, mean, scores, indices), ties, centre, x, precision)


def _scan_blocks(images, half_norms, x, precision) -> _Softmax:
    """The softmax over blocks; ``x`` `[b, d]` is centred, ``precision`` `[b]` is 1 / sigma^2."""
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
        known = jnp.take_along_axis(carry.indices, jnp.minimum(places, TIES - 1), 1)
        new = index * len(y) + places - TIES
        return _Softmax(top, total, mean, best, jnp.where(places < TIES, known, new)), None

    # Not -inf: a device may hold nothing but padding, and -inf - -inf is not a number.
    lowest = jnp.full(len(x), jnp.finfo(x.dtype).min, x.dtype)
    none = jnp.full((len(x), TIES), -jnp.inf, x.dtype)
    start = _Softmax(
        lowest, jnp.zeros_like(lowest), jnp.zeros_like(x), none, jnp.zeros(none.shape, jnp.int32)
    )
    numbers = jnp.arange(len(images), dtype=jnp.int32)
    return jax.lax.scan(block, start, (numbers, images, half_norms))[0]


def _settle_ties(softmax, ties, centre, x, precision):
    """The denoised `[b, d]`, with exact logits in place of those of ``ties`` `[b, k, d]`."""
    ties = ties.astype(x.dtype)
    rounded = (softmax.scores - softmax.top[:, None]) * precision[:, None]
    # rounded[:, :1] is zero, but its derivative is not: `top` counts as a constant.
    exact = _leads(ties, centre, x) * precision[:, None] + rounded[:, :1]
    exact = jnp.where(jnp.isneginf(softmax.scores), -jnp.inf, exact)
    # The candidate that seemed best has logit 0; another may turn out to be better by far.
    top = exact.max(1)
    rest = jnp.exp(-top)
    weights = jnp.exp(exact - top[:, None]) - jnp.exp(rounded) * rest[:, None]
    total = softmax.total * rest + weights.sum(1)
    mean = softmax.mean * rest[:, None] + (weights[..., None] * ties).sum(1)
    return centre[None, :] + mean / total[:, None]


def _leads(ties, centre, x):
    """(|x - y_0|^2 - |x - y_i|^2) / 2 for ``ties`` y `[b, k, d]`, to nearly twice the precision.

    It is sum (y_i - y_0) (x - y_i + x - y_0) / 2, both factors as sums of two numbers.
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
    """a + b as a rounded sum and the rest of it (Knuth): exact, and made of additions only."""
    total = a + b
    b_part = total - a
    return total, (a - (total - b_part)) + (b - b_part)


def _two_product(a, b):
    """a b as a rounded product and the rest of it (Dekker).

    The compiler may fuse a product with the addition that uses it, in one place and not in another.
    The products of the halves are exact, so that changes nothing; the rounded product has one bit
    less than its type, which keeps it out of any fusion.
    """
    info = jnp.finfo(a.dtype)
    keep = lambda v, bits: jax.lax.reduce_precision(v, info.nexp, bits)  # noqa: E731
    half = (info.nmant - 1) // 2
    a_high, b_high = keep(a, half), keep(b, half)
    a_low, b_low = a - a_high, b - b_high
    product = keep(a * b, info.nmant - 1)
    rest = a_high * b_high - product
    return product, rest + a_high * b_low + a_low * b_high + a_low * b_low


def _accurate_sum(high, low):
    """The sum of high + low over the last axis, without the rounding errors of adding the highs.

    Adding and taking away a bound far above all numbers leaves their leading bits on one grid,
    where sums in any order are exact (Rump, Ogita and Oishi, "Accurate floating-point summation").
    """
    ones = jnp.ones(high.shape[-1], high.dtype)
    add = lambda v: jnp.matmul(v, ones, precision=jax.lax.Precision.HIGHEST)  # noqa: E731
    scale = 4 << high.shape[-1].bit_length()  # a power of two, so the bound below is exact
    sums = []
    for _ in range(2):
        bound = jax.lax.stop_gradient(jnp.abs(high).max(-1, keepdims=True)) * scale
        leading = (high + bound) - bound
        sums.append(add(leading))  # on the CPU several times faster than sum(): XLA fuses less
        high = high - leading
    return (sums[0] + sums[1]) + add(high + low)
