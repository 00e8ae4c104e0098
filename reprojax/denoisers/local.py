"""Local score machines: the empirical optimum of a denoiser that sees one patch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from reprojax.diffusion.shapes import expand
from reprojax.errors import InputError, require_number
from reprojax.rng import normal, stream
from reprojax.types import DenoiseFn

BLOCK = 8  # training images per step of the running softmax
QUERIES = 256  # patches of x that meet a block at a time, so that their logits stay in the cache
MAX_IMAGES = 2000  # cost grows as n_train and as the square of the pixels per image
HIGHEST = jax.lax.Precision.HIGHEST


@struct.dataclass
class LocalScoreMachine:
    """The optimal denoiser among those that see a (2r+1) x (2r+1) patch around each pixel.

    D(x; sigma)[p] = sum_iq w_iq y_i[q], w = softmax_iq(-|x_p - y_iq|^2 / (2 sigma^2)), where x_p is
    the patch of x around p and y_iq that of training image i around q, zero outside the image
    (arXiv 2412.20292). A convolutional network with zero padding sees where the border cuts its
    patch, so q runs over the positions whose patch is cut as that of p: all rows at least r from
    the border are alike, a row nearer to it is alike with itself only, and so for columns. Where
    r >= n - 1 the patch is the image and this is the `EmpiricalOptimum`.

    Made by `local_score_machine`. One call on b images of side n costs about
    b n_train (n - 2r)^4 (2r + 1)^2 products and as many exponentials as pairs of patches; memory is
    bounded by the block. The logits leave out |x_p|^2, as those of `EmpiricalOptimum` do.

    Args:
        images: `[n_train, h, w, c]` float32 in [-1, 1].
        edges: `[k - 1]` float32, increasing: radii[j] serves edges[j - 1] < sigma <= edges[j].
        radii: k patch radii in pixels; static.
        equivariant: False lets q = p only; static.
        block: training images per step of the running softmax where all positions of an image are
            alike, and proportionally more where fewer are; static.
    """

    images: jax.Array
    edges: jax.Array
    radii: tuple[int, ...] = struct.field(pytree_node=False)
    equivariant: bool = struct.field(pytree_node=False, default=True)
    block: int = struct.field(pytree_node=False, default=BLOCK)

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: jax.Array | None = None) -> jax.Array:
        """See DenoiseFn; computes in the dtype of ``x``, products at the highest precision.

        A radius that any sample asks for is computed for the whole batch, and the others are
        skipped: a batch of one sigma costs one radius.
        """
        radii = [min(r, max(x.shape[1:3]) - 1) for r in self.radii]
        distinct = sorted(set(radii))
        # In the dtype of the edges: in float64, .7 is above float32(.7).
        branch = jnp.searchsorted(self.edges, sigma.astype(self.edges.dtype))
        branch = jnp.asarray([distinct.index(r) for r in radii])[branch]
        queries = jnp.moveaxis(x, 3, 0)
        images = jnp.moveaxis(self.images.astype(x.dtype), 3, 0)
        precision = 1.0 / sigma.astype(x.dtype) ** 2

        out = jnp.zeros_like(queries)
        for j, radius in enumerate(distinct):
            mine = branch == j

            def denoise(out, radius=radius, mine=mine):
                new = self._one_radius(queries, images, precision, radius)
                return jnp.where(mine[None, :, None, None], new, out)

            out = jax.lax.cond(mine.any(), denoise, lambda out: out, out)
        return jnp.moveaxis(out, 0, 3)

    def _one_radius(
        self, x: jax.Array, images: jax.Array, precision: jax.Array, radius: int
    ) -> jax.Array:
        """Channels first: x `[c, b, h, w]`, images `[c, n, h, w]`, precision `[b]`, 1 / sigma^2."""
        pad = ((0, 0), (0, 0), (radius, radius), (radius, radius))
        # Zeros on both sides add nothing to a distance.
        x_padded, images = jnp.pad(x, pad), jnp.pad(images, pad)
        out = jnp.zeros_like(x)
        references = self.block * x.shape[2] * x.shape[3]
        # One program each for the interior, the two kinds of border and the corners.
        for rows in _classes(x.shape[2], radius, self.equivariant):
            for columns in _classes(x.shape[3], radius, self.equivariant):
                size = (rows.length + 2 * radius, columns.length + 2 * radius)

                def one_class(out, start, size=size):
                    x_part, part = _cut(x_padded, start, size), _cut(images, start, size)
                    new = _match(x_part, part, precision, radius, references)
                    return jax.lax.dynamic_update_slice(out, new, (0, 0, start[0], start[1])), None

                starts = [(row, column) for row in rows.starts for column in columns.starts]
                out, _ = jax.lax.scan(one_class, out, jnp.asarray(starts))
        return out


class _Classes(NamedTuple):
    """Classes of neighbouring positions along an axis, of one length."""

    starts: Sequence[int]
    length: int


def _classes(size: int, radius: int, equivariant: bool) -> list[_Classes]:
    """Splits an axis into classes of positions whose patch is cut alike."""
    inner = size - 2 * radius
    if inner <= 1 or not equivariant:
        return [_Classes(range(size), 1)]
    border = [*range(radius), *range(size - radius, size)]
    return [_Classes([radius], inner)] + ([_Classes(border, 1)] if border else [])


def _cut(images: jax.Array, start: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Cuts `[..., h, w]` down to the pixels that a class of positions sees."""
    return jax.lax.dynamic_slice(images, (0, 0, start[0], start[1]), (*images.shape[:2], *size))


def _windows(images: jax.Array, radius: int) -> jax.Array:
    """All patches of `[c, n, h, w]`: `[2r + 1 columns, 2r + 1 rows, c, n, h - 2r, w - 2r]`."""
    for axis in (-2, -1):
        axis += images.ndim
        count = images.shape[axis] - 2 * radius
        # A gather: 2r + 1 slices run no faster and take many times longer to compile.
        index = jnp.arange(2 * radius + 1)[:, None] + jnp.arange(count)[None, :]
        images = jnp.moveaxis(jnp.take(images, index, axis=axis, mode="clip"), axis, 0)
    return images


def _match(
    x: jax.Array, images: jax.Array, precision: jax.Array, radius: int, references: int
) -> jax.Array:
    """Posterior means of one class of positions.

    Args:
        x: `[c, b, m + 2r, k + 2r]`, what the class sees of the noisy images.
        images: `[c, n, m + 2r, k + 2r]`, what it sees of the training images.
        precision: `[b]`, 1 / sigma^2.
        radius: r.
        references: training patches per step of the running softmax, about.

    Returns:
        `[c, b, m, k]`.
    """
    windows = _windows(x, radius)
    (channels, batch, *shape), count = windows.shape[2:], windows[0, 0, 0].size
    chunks = -(-count // QUERIES)
    rows = -(-count // chunks)
    spare = chunks * rows - count
    queries = jnp.pad(windows.reshape(-1, count).T, ((0, spare), (0, 0)))
    precision = jnp.pad(jnp.repeat(precision, count // batch), (0, spare))
    queries = (queries.reshape(chunks, rows, -1), precision.reshape(chunks, rows, 1))

    def step(state, block):
        references = _references(*block, radius)
        return jax.lax.map(lambda chunk: _merge(*chunk, *references), (state, queries)), None

    lowest = jnp.full((chunks, rows), -jnp.inf, x.dtype)
    start = (lowest, jnp.zeros((chunks, rows, channels + 1), x.dtype))
    blocks = _blocks(images, max(1, references * batch // count))
    (_, sums), _ = jax.lax.scan(step, start, blocks)
    sums = sums.reshape(chunks * rows, channels + 1)[:count]
    return (sums[:, :channels] / sums[:, channels:]).T.reshape(channels, batch, *shape)


def _blocks(images: jax.Array, block: int) -> tuple[jax.Array, jax.Array]:
    """`[c, n, h, w]` as `[steps, c, block, h, w]`, and `[steps, block]`: inf where padded, or 0."""
    channels, n, *shape = images.shape
    block = min(block, n)
    steps = -(-n // block)
    images = jnp.pad(images, ((0, 0), (0, steps * block - n), (0, 0), (0, 0)))
    images = jnp.moveaxis(images.reshape(channels, steps, block, *shape), 1, 0)
    padding = jnp.where(jnp.arange(steps * block) < n, 0.0, jnp.inf).astype(images.dtype)
    return images, padding.reshape(steps, block)


def _references(
    images: jax.Array, padding: jax.Array, radius: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A block `[c, n, h, w]` as patches `[d, k]`, their |y|^2 / 2 `[k]` and values `[k, c + 1]`.

    The values are the centre pixels and a one, which sums the weights.
    """
    windows = _windows(images, radius)
    half_norms = 0.5 * jnp.sum(windows**2, axis=(0, 1, 2)) + padding[:, None, None]
    centres = windows[radius, radius].reshape(len(images), -1)
    values = jnp.concatenate([centres, jnp.ones_like(centres[:1])]).T
    return windows.reshape(-1, len(values)), half_norms.reshape(-1), values


def _merge(
    state: tuple[jax.Array, jax.Array],
    queries: tuple[jax.Array, jax.Array],
    patches: jax.Array,
    half_norms: jax.Array,
    values: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Adds a block to the running softmax: its top logit and the sums of weighted values."""
    (top, sums), (x, precision) = state, queries
    inner = jnp.matmul(x, patches, precision=HIGHEST)
    logits = (inner - half_norms[None, :]) * precision
    new_top = jnp.maximum(top, logits.max(1))
    weights = jnp.exp(logits - new_top[:, None])
    new = jnp.matmul(weights, values, precision=HIGHEST)
    return new_top, sums * jnp.exp(top - new_top)[:, None] + new


def local_score_machine(
    images: np.ndarray,
    radii: Sequence[int],
    edges: Sequence[float],
    equivariant: bool = True,
    block: int = BLOCK,
) -> LocalScoreMachine:
    """Builds the machine of a training set.

    Args:
        images: `[n_train, h, w, c]` float32 in [-1, 1], n_train from 1 to `MAX_IMAGES`.
        radii: patch radii in pixels, from the smallest sigma to the largest, >= 0.
        edges: the noise levels between one radius and the next, increasing, > 0.
        equivariant: whether a patch is matched at every position that the border cuts alike (the
            paper's ELS machine), or at its own only (LS).
        block: training images per step; memory grows with it, results do not change.

    Returns:
        The closed-form denoiser.

    Raises:
        InputError: a value outside these ranges, or the number of edges is not that of radii - 1.
    """
    if not 1 <= len(images) <= MAX_IMAGES:
        allowed = f"a local score machine takes 1 to {MAX_IMAGES} training images"
        raise InputError("local.n_train", len(images), allowed)
    radii, edges = _checked_radii(radii), tuple(float(edge) for edge in edges)
    if len(edges) != len(radii) - 1:
        raise InputError("local.edges", edges, f"{len(radii)} radii have {len(radii) - 1} edges")
    _check_increasing("local.edges", edges)
    require_number("local.block", block, at_least=1)
    return LocalScoreMachine(
        jnp.asarray(images, jnp.float32), jnp.asarray(edges, jnp.float32), radii, equivariant, block
    )


def _checked_radii(radii: Sequence[int]) -> tuple[int, ...]:
    radii = tuple(radii)
    if not radii or any(r != int(r) or r < 0 for r in radii):
        raise InputError("local.radii", radii, "give at least one whole number, each at least 0")
    return tuple(int(r) for r in radii)


def _check_increasing(field: str, values: Sequence[float]) -> None:
    for value in values:
        require_number(field, value, above=0)
    if any(a >= b for a, b in zip(values, values[1:])):
        raise InputError(field, values, "must increase")


class RadiusCalibration(NamedTuple):
    """Which radius explains a network best at each noise level.

    Attributes:
        sigmas: float64 `[s]`, increasing.
        candidates: the radii that were tried, k of them.
        radii: the best at each sigma, s of them.
        errors: float64 `[s, k]`, mean squared difference per pixel between network and machine.
        r2: float64 `[s, k]`, their squared correlation over an image's pixels, mean over images.
    """

    sigmas: np.ndarray
    candidates: tuple[int, ...]
    radii: tuple[int, ...]
    errors: np.ndarray
    r2: np.ndarray

    @property
    def edges(self) -> tuple[float, ...]:
        """The geometric means of neighbouring sigmas: with ``radii``, what a machine takes."""
        return tuple(np.sqrt(self.sigmas[1:] * self.sigmas[:-1]).tolist())


def calibrate_radii(
    denoise: DenoiseFn,
    images: np.ndarray,
    real: np.ndarray,
    sigmas: Sequence[float],
    radii: Sequence[int],
    key: jax.Array,
    equivariant: bool = True,
    block: int = BLOCK,
    cond: Any = None,
) -> RadiusCalibration:
    """Finds the radius whose machine is nearest to a network, at each noise level.

    Both denoise real + sigma z; the paper calibrates its radii on the network as well.

    Args:
        denoise: the network, a pytree.
        images: `[n_train, h, w, c]` float32 in [-1, 1], the machine's.
        real: `[b, h, w, c]` float32 in [-1, 1], images to add noise to.
        sigmas: noise levels, increasing, > 0.
        radii: the candidates; of two that do equally well, the first is chosen.
        key: z of the i-th sigma is drawn from its stream "local/noise" at i.
        equivariant: see `local_score_machine`.
        block: see `local_score_machine`.
        cond: A pytree with leading axis b, the conditions of ``real``, or None.

    Returns:
        The calibration, its errors among it.

    Raises:
        InputError: as `local_score_machine`; no sigmas, or not increasing.
    """
    if not len(sigmas):
        raise InputError("local.sigmas", sigmas, "give at least one")
    sigmas = np.asarray(sigmas, np.float64)
    _check_increasing("local.sigmas", sigmas.tolist())
    candidates = _checked_radii(radii)
    machines = [local_score_machine(images, [r], [], equivariant, block) for r in candidates]
    real = jnp.asarray(real, jnp.float32)
    errors, r2 = np.zeros((2, len(sigmas), len(machines)))
    for i, value in enumerate(sigmas):
        sigma = jnp.full(len(real), value, jnp.float32)
        z = normal(stream(key, "local/noise", i), real.shape)
        x = real + expand(sigma, real.ndim) * z
        wanted = np.asarray(_denoise(denoise, x, sigma, cond), np.float64)
        for j, machine in enumerate(machines):
            got = np.asarray(_denoise(machine, x, sigma, None), np.float64)
            errors[i, j] = np.mean((got - wanted) ** 2)
            r2[i, j] = _squared_correlation(got, wanted)
    best = tuple(candidates[j] for j in errors.argmin(1))
    return RadiusCalibration(sigmas, candidates, best, errors, r2)


@jax.jit
def _denoise(denoise: DenoiseFn, x: jax.Array, sigma: jax.Array, cond: Any) -> jax.Array:
    return denoise(x, sigma, cond)


def _squared_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Over the pixels of each image, mean over images; 0 for an image that is constant."""
    a, b = (v.reshape(len(v), -1) - v.mean((1, 2, 3))[:, None] for v in (a, b))
    cross, scale = (a * b).sum(1), (a**2).sum(1) * (b**2).sum(1)
    return float(np.mean(np.divide(cross**2, scale, out=np.zeros_like(scale), where=scale > 0)))
