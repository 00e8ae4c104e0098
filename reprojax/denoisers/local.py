"""Local score machines: the optimal denoisers for a training set that see one patch per pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from reprojax.denoisers.base import Denoiser
from reprojax.diffusion.shapes import expand
from reprojax.errors import InputError, require_number
from reprojax.rng import normal, stream
from reprojax.types import DenoiseFn

BLOCK = 8  # training images per step of the running softmax
QUERIES = 256  # patches of x per product with a block, so few that the logits fit in the cache
MAX_IMAGES = 2000  # the cost grows as n_train and as the square of the pixels per image
HIGHEST = jax.lax.Precision.HIGHEST


@struct.dataclass
class LocalScoreMachine(Denoiser):
    """The optimal denoiser among those that see a (2r+1) x (2r+1) patch around each pixel.

    D(x; sigma)[p] = sum_iq w_iq y_i[q], w = softmax_iq(-|x_p - y_iq|^2 / (2 sigma^2)). x_p is the
    patch of x around the position p, and y_iq the patch of training image i around q; pixels
    outside the image are 0 (arXiv 2412.20292). A convolutional network with zero padding sees where
    the border cuts a patch. Therefore q runs over the positions whose patch is cut in the same way
    as the patch of p: all rows at least r from the border are one class, each row nearer to the
    border is a class of its own, and the same holds for columns. If r >= n - 1 the patch is the
    image and this is the `EmpiricalOptimum`.

    Make one with `local_score_machine`. A call on b images of side n costs about
    b n_train (n - 2r)^4 (2r + 1)^2 products and one exponential per pair of patches. The block
    bounds the memory. The logits leave out |x_p|^2, as those of `EmpiricalOptimum` do.

    Args:
        images: The training images, `[n_train, h, w, c]` float32 in [-1, 1].
        edges: The noise levels between the radii, `[k - 1]` float32, increasing. radii[j] is used
            for edges[j - 1] < sigma <= edges[j].
        radii: The k patch radii in pixels; static.
        equivariant: Whether q runs over all positions of the class of p, or is p only; static.
        block: The training images per step of the running softmax if all positions of an image are
            in one class, and proportionally more for smaller classes; static.
    """

    images: jax.Array
    edges: jax.Array
    radii: tuple[int, ...] = struct.field(pytree_node=False)
    equivariant: bool = struct.field(pytree_node=False, default=True)
    block: int = struct.field(pytree_node=False, default=BLOCK)

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: Any = None) -> jax.Array:
        """Denoises as a DenoiseFn does. The condition is ignored.

        It computes in the dtype of ``x``, with products at the highest precision. Each radius that
        an image of the batch needs is computed for the whole batch; other radii cost nothing.
        """
        radii = [min(r, max(x.shape[1:3]) - 1) for r in self.radii]
        distinct = sorted(set(radii))
        # Compared in the dtype of the edges, since .7 in float64 is above .7 in float32.
        branch = jnp.searchsorted(self.edges, sigma.astype(self.edges.dtype))
        branch = jnp.asarray([distinct.index(r) for r in radii])[branch]
        queries = jnp.moveaxis(x, 3, 0)
        images = jnp.moveaxis(self.images.astype(x.dtype), 3, 0)
        precision = 1.0 / sigma.astype(x.dtype) ** 2

        out = jnp.zeros_like(queries)
        for j, radius in enumerate(distinct):
            has_radius = branch == j

            def denoise(out, radius=radius, has_radius=has_radius):
                new = self._one_radius(queries, images, precision, radius)
                return jnp.where(has_radius[None, :, None, None], new, out)

            out = jax.lax.cond(has_radius.any(), denoise, lambda out: out, out)
        return jnp.moveaxis(out, 0, 3)

    def _one_radius(
        self, x: jax.Array, images: jax.Array, precision: jax.Array, radius: int
    ) -> jax.Array:
        """Denoises with one radius, channels first.

        Args:
            x: Noisy images `[c, b, h, w]`.
            images: Training images `[c, n, h, w]`.
            precision: 1 / sigma^2, `[b]`.
            radius: The patch radius in pixels.

        Returns:
            Denoised images `[c, b, h, w]`.
        """
        pad = ((0, 0), (0, 0), (radius, radius), (radius, radius))
        # Both are padded with zeros, so the padding adds nothing to a distance.
        x_padded, images = jnp.pad(x, pad), jnp.pad(images, pad)
        out = jnp.zeros_like(x)
        references = self.block * x.shape[2] * x.shape[3]
        # The interior, the two kinds of border and the corners have one program each.
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
    """Classes of neighbouring positions along an axis, all of one length.

    Attributes:
        starts: The first position of each class.
        length: The number of positions in a class.
    """

    starts: Sequence[int]
    length: int


def _classes(size: int, radius: int, equivariant: bool) -> list[_Classes]:
    """Splits the positions of an axis into classes whose patches the border cuts in one way."""
    inner = size - 2 * radius
    if inner <= 1 or not equivariant:
        return [_Classes(range(size), 1)]
    border = [*range(radius), *range(size - radius, size)]
    return [_Classes([radius], inner)] + ([_Classes(border, 1)] if border else [])


def _cut(images: jax.Array, start: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Cuts images `[c, n, h, w]` down to the pixels that the patches of a class cover."""
    return jax.lax.dynamic_slice(images, (0, 0, start[0], start[1]), (*images.shape[:2], *size))


def _windows(images: jax.Array, radius: int) -> jax.Array:
    """Returns all patches of images `[c, n, h, w]`.

    Returns:
        Patches `[2r + 1 columns, 2r + 1 rows, c, n, h - 2r, w - 2r]`.
    """
    for axis in (-2, -1):
        axis += images.ndim
        count = images.shape[axis] - 2 * radius
        # A gather, because 2r + 1 slices are no faster and take many times longer to compile.
        index = jnp.arange(2 * radius + 1)[:, None] + jnp.arange(count)[None, :]
        images = jnp.moveaxis(jnp.take(images, index, axis=axis, mode="clip"), axis, 0)
    return images


def _match(
    x: jax.Array, images: jax.Array, precision: jax.Array, radius: int, references: int
) -> jax.Array:
    """Computes the posterior means of one class of positions.

    Args:
        x: The pixels of the noisy images that the class covers, `[c, b, m + 2r, k + 2r]`.
        images: The pixels of the training images that it covers, `[c, n, m + 2r, k + 2r]`.
        precision: 1 / sigma^2, `[b]`.
        radius: The patch radius r in pixels.
        references: The approximate number of training patches per step of the running softmax.

    Returns:
        The posterior means, `[c, b, m, k]`.
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
    """Splits images `[c, n, h, w]` into blocks.

    Returns:
        Blocks `[steps, c, block, h, w]`, and their padding `[steps, block]`: inf for an image that
        was added to fill the last block, else 0.
    """
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
    """Returns the patches y of a block `[c, n, h, w]`, their |y|^2 / 2 and their values.

    Returns:
        Patches `[d, k]`, |y|^2 / 2 `[k]` and values `[k, c + 1]`. The values are the centre pixel
        and a one, with which the weights are summed.
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
    """Adds a block to the running softmax, which is the top logit and the weighted sums."""
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
    """Makes the local score machine of a training set.

    Args:
        images: The training images, `[n_train, h, w, c]` float32 in [-1, 1], n_train from 1 to
            `MAX_IMAGES`.
        radii: The patch radii in pixels, from the smallest sigma to the largest, >= 0.
        edges: The noise levels between one radius and the next, increasing, > 0.
        equivariant: Whether a patch is compared with all positions that the border cuts in the same
            way (the paper's ELS machine), or with its own position only (LS).
        block: The number of training images per step. Memory grows with it; results do not change.

    Returns:
        The closed-form denoiser.

    Raises:
        InputError: A value is outside its range, or there is not one edge less than radii.
    """
    if not 1 <= len(images) <= MAX_IMAGES:
        requirement = f"must be from 1 to {MAX_IMAGES} for a local score machine"
        raise InputError("local.n_train", len(images), requirement)
    radii, edges = _checked_radii(radii), tuple(float(edge) for edge in edges)
    if len(edges) != len(radii) - 1:
        requirement = f"must have {len(radii) - 1} values, one less than the radii"
        raise InputError("local.edges", edges, requirement)
    _check_increasing("local.edges", edges)
    require_number("local.block", block, at_least=1)
    return LocalScoreMachine(
        jnp.asarray(images, jnp.float32), jnp.asarray(edges, jnp.float32), radii, equivariant, block
    )


def _checked_radii(radii: Sequence[int]) -> tuple[int, ...]:
    radii = tuple(radii)
    if not radii or any(r != int(r) or r < 0 for r in radii):
        raise InputError("local.radii", radii, "must be one or more whole numbers of at least 0")
    return tuple(int(r) for r in radii)


def _check_increasing(field: str, values: Sequence[float]) -> None:
    for value in values:
        require_number(field, value, above=0)
    if any(a >= b for a, b in zip(values, values[1:])):
        raise InputError(field, values, "must increase")


class RadiusCalibration(NamedTuple):
    """The radius that explains a network best at each noise level.

    Attributes:
        sigmas: The noise levels, float64 `[s]`, increasing.
        candidates: The k radii that are compared.
        radii: The best radius at each noise level, s of them.
        errors: The mean squared difference per pixel between network and machine, float64 `[s, k]`.
        r2: Their squared correlation over the pixels of an image, mean over images, float64
            `[s, k]`.
    """

    sigmas: np.ndarray
    candidates: tuple[int, ...]
    radii: tuple[int, ...]
    errors: np.ndarray
    r2: np.ndarray

    @property
    def edges(self) -> tuple[float, ...]:
        """The geometric means of neighbouring sigmas, the edges of a machine with ``radii``."""
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

    Both denoise real + sigma z. The paper calibrates its radii on the network too.

    Args:
        denoise: The network, a DenoiseFn.
        images: The training images of the machines, `[n_train, h, w, c]` float32 in [-1, 1].
        real: The images that noise is added to, `[b, h, w, c]` float32 in [-1, 1].
        sigmas: The noise levels, increasing, > 0.
        radii: The radii to compare. If two are equally good, the first is chosen.
        key: The key whose stream "local/noise" gives z of the i-th sigma at index i.
        equivariant: See `local_score_machine`.
        block: See `local_score_machine`.
        cond: A pytree with leading axis b, the conditions of ``real``, or None.

    Returns:
        The best radii and the errors of all.

    Raises:
        InputError: As for `local_score_machine`, or ``sigmas`` is empty or not increasing.
    """
    if not len(sigmas):
        raise InputError("local.sigmas", sigmas, "must have at least one value")
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
        from_network = np.asarray(_denoise(denoise, x, sigma, cond), np.float64)
        for j, machine in enumerate(machines):
            from_machine = np.asarray(_denoise(machine, x, sigma, None), np.float64)
            errors[i, j] = np.mean((from_machine - from_network) ** 2)
            r2[i, j] = _squared_correlation(from_machine, from_network)
    best = tuple(candidates[j] for j in errors.argmin(1))
    return RadiusCalibration(sigmas, candidates, best, errors, r2)


@jax.jit
def _denoise(denoise: DenoiseFn, x: jax.Array, sigma: jax.Array, cond: Any) -> jax.Array:
    return denoise(x, sigma, cond)


def _squared_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the mean over images of the squared correlation of pixels, 0 for constant images."""
    a, b = (v.reshape(len(v), -1) - v.mean((1, 2, 3))[:, None] for v in (a, b))
    cross, scale = (a * b).sum(1), (a**2).sum(1) * (b**2).sum(1)
    return float(np.mean(np.divide(cross**2, scale, out=np.zeros_like(scale), where=scale > 0)))
