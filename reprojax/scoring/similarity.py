"""Searches all pairs of two sets for the nearest, the two nearest, or those above a threshold.

Matrix products run on the device in float32 at the highest precision, in blocks of one fixed shape,
which bounds the memory and makes other set sizes compile nothing new. Comparisons that float32
cannot decide are made again on the host, in float64 of the float32 features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = (512, 1024)  # rows of queries and of references in one matrix product
BAND = 1e-5  # the least distance from a threshold within which float64 evaluates again
ROUNDING = 2.0**-24  # relative error of a float32 operation; a dot product has d of them
CANDIDATES = 4  # candidates per query and block: the two nearest, and room for ties in float32
PAIR_CHUNK = 2048  # pairs that are evaluated in float64 at a time
MAX_UNDECIDED = 256  # undecided pairs of a block that the device lists; else it sends the mask
NO_DIAGONAL = 2**30  # an offset at which the diagonal does not cross a block

Reference = np.ndarray | Iterable[np.ndarray]


def exact_threshold(tau: float) -> float:
    """Returns the threshold rounded to a float32 number, in float64.

    The threshold is rounded as the features are: a similarity of float32(0.6), which is above 0.6
    in float64, is not above the threshold 0.6.
    """
    return float(np.float32(tau))


def _band(d: int) -> float:
    """Returns the distance from a threshold within which float32 can err, for d dimensions."""
    return max(BAND, d * ROUNDING)


def paired_cosines(a: np.ndarray, b: np.ndarray, rows=None, columns=None) -> np.ndarray:
    """Returns dot products of rows of two feature sets, float64 `[p]`.

    Args:
        a: One set, float32 `[n, d]`.
        b: The other set, float32 `[m, d]`.
        rows: The indices of the rows of ``a``, int `[p]`; None pairs row i of both sets.
        columns: The indices of the rows of ``b`` to pair them with, int `[p]`.
    """
    if rows is None:
        rows = columns = np.arange(len(a))
    return _by_pairs(lambda x, y: np.einsum("pd,pd->p", x, y), a, b, rows, columns)


def max_cosine(
    queries: np.ndarray,
    reference: Reference,
    tau: float | None = None,
    exclude_self: bool = False,
    block: tuple[int, int] = BLOCK,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the most similar reference of every query.

    Args:
        queries: The queries, unit rows float32 `[n, d]`.
        reference: The references, unit rows float32 `[m, d]`, or an iterable of such blocks,
            which is read once.
        tau: A threshold. Maxima within 1e-5 of it are evaluated again in float64.
        exclude_self: Whether to leave out the pairs (i, i), for queries that are the first rows
            of the reference.
        block: The rows of queries and of references per matrix product.

    Returns:
        The largest cosine, float64 `[n]`, and the index of the first reference that has it, int64
        `[n]`; -inf and -1 where there is no reference.
    """
    tau = None if tau is None else exact_threshold(tau)
    band = _band(queries.shape[1])
    best, index = np.full(len(queries), -np.inf), np.full(len(queries), -1, np.int64)
    tiles = list(_tiles(queries, block[0]))
    for offset, part, padded in _tiles(reference, block[1]):
        for start, rows, query in tiles:
            span = slice(start, start + len(rows))
            diagonal = start - offset if exclude_self else NO_DIAGONAL
            result = _block_max(query, padded, len(part), diagonal)
            value, column = np.array(result[0], np.float64), np.array(result[1], np.int64)
            value, column = value[: len(rows)], column[: len(rows)]
            if tau is not None:
                near = np.flatnonzero((np.abs(value - tau) <= band) & (best[span] <= tau + band))
                exact = _exact_cosines(rows[near], part, near + diagonal)
                value[near], column[near] = exact.max(axis=1), exact.argmax(axis=1)
            better = value > best[span]
            best[span] = np.where(better, value, best[span])
            index[span] = np.where(better, column + offset, index[span])
    return best, index


def count_over(
    a: np.ndarray,
    b: np.ndarray,
    tau: float,
    exclude_diagonal: bool = True,
    block: tuple[int, int] = BLOCK,
) -> int:
    """Counts the pairs (i, j), i ≠ j, with a cosine strictly above the threshold.

    Args:
        a: One set of unit rows, float32 `[n, d]`.
        b: The other set of unit rows, float32 `[m, d]`.
        tau: The threshold. Cosines within 1e-5 of it are evaluated again in float64.
        exclude_diagonal: Whether to leave out the pairs (i, i).
        block: The rows of the two sets per matrix product.
    """
    tau, total = exact_threshold(tau), 0
    tiles = list(_tiles(a, block[0]))
    for offset, part, padded in _tiles(b, block[1]):
        results = []
        for start, rows, query in tiles:
            diagonal = start - offset if exclude_diagonal else NO_DIAGONAL
            shape = (len(rows), len(part))
            results.append(_block_over(query, padded, *shape, diagonal, tau))
        masks = [near for *_, near in results]  # stay on the device, where most are never read
        counts = jax.device_get([few for *few, _ in results])  # waits once for a column of blocks
        pairs = []
        for (start, *_), (over, num_near, first), near in zip(tiles, counts, masks, strict=True):
            total += int(over)
            undecided = first
            if num_near > MAX_UNDECIDED:
                undecided = np.stack(np.nonzero(np.asarray(near)))
            pairs.append(undecided[:, :num_near] + [[start], [offset]])
        total += int(np.count_nonzero(paired_cosines(a, b, *np.concatenate(pairs, axis=1)) > tau))
    return total


def two_nearest(
    queries: np.ndarray, reference: Reference, block: tuple[int, int] = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the two nearest references of every query in squared l2 distance.

    ‖x‖² − 2xy + ‖y‖² in float32 finds candidates, whose distances are evaluated again in float64;
    that is exact for uint8 images. Where a block has more rows too near to tell apart than there
    are candidates, float64 finds the two nearest.

    Args:
        queries: The queries, uint8 or float32 `[n, d]`.
        reference: The references, uint8 or float32 `[m, d]`, or an iterable of such blocks, which
            is read once.
        block: The rows of queries and of references (at least 4) per matrix product.

    Returns:
        The squared distances, float64 `[n, 2]`, ascending, and the indices, int64 `[n, 2]`, the
        smaller index first among equals; inf and -1 where the reference has too few rows.
    """
    squared, index = np.full((len(queries), 2), np.inf), np.full((len(queries), 2), -1, np.int64)
    # The origin does not matter for distances, and float32 errs least with it in the middle.
    center = np.mean(queries, axis=0, dtype=np.float64).astype(np.float32)
    tiles = list(_tiles(queries, block[0]))
    for offset, part, padded in _tiles(reference, block[1]):
        for start, rows, query in tiles:
            span = slice(start, start + len(rows))
            lower, column = map(np.array, _block_nearest(query, padded, len(part), center))
            lower, column = lower[: len(rows)], column[: len(rows)]
            row, slot = np.nonzero(lower < squared[span, 1:])  # those that may be nearer
            exact = np.full(lower.shape, np.inf)
            exact[row, slot] = _squared_distances(rows, part, row, column[row, slot])
            values = np.concatenate([squared[span], exact], axis=1)
            undecided = np.flatnonzero(lower[:, -1] < np.partition(values, 1, axis=1)[:, 1])
            if len(undecided):
                nearest = _exact_nearest(rows[undecided], part)
                values[undecided, 2:4], column[undecided, :2] = nearest
                values[undecided, 4:] = np.inf
            indices = np.concatenate([index[span], column + offset], axis=1)
            order = np.lexsort((indices, values), axis=1)[:, :2]
            squared[span] = np.take_along_axis(values, order, axis=1)
            index[span] = np.take_along_axis(indices, order, axis=1)
    return squared, np.where(np.isinf(squared), -1, index)


def _cosines(queries: jax.Array, reference: jax.Array) -> jax.Array:
    return jnp.matmul(queries, reference.T, precision=jax.lax.Precision.HIGHEST)


def _grid(shape: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    return tuple(jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))


@jax.jit
def _block_max(queries, reference, num_reference, diagonal):
    """Returns the maximum `[q]` and its column `[q]`, without padding and column row + diagonal."""
    cosines = _cosines(queries, reference)
    row, column = _grid(cosines.shape)
    usable = (column < num_reference) & (column != row + diagonal)
    cosines = jnp.where(usable, cosines, -jnp.inf)
    return cosines.max(axis=1), cosines.argmax(axis=1)


@jax.jit
def _block_over(queries, reference, num_queries, num_reference, diagonal, tau):
    """Compares the cosines of a block with ``tau``.

    Returns:
        The number of pairs that are surely above, the number of undecided pairs, the indices of
        the first of these `[2, MAX_UNDECIDED]`, and a mask of all of them `[q, r]`.
    """
    cosines, band = _cosines(queries, reference), _band(queries.shape[1])
    row, column = _grid(cosines.shape)
    usable = (row < num_queries) & (column < num_reference) & (column != row + diagonal)
    over = usable & (cosines > tau + band)
    near = usable & (cosines >= tau - band) & ~over
    first = jnp.stack(jnp.nonzero(near, size=MAX_UNDECIDED, fill_value=0))
    return jnp.sum(over), jnp.sum(near), first, near


@jax.jit
def _block_nearest(queries, reference, num_reference, center):
    """Returns lower bounds of the smallest squared distances `[q, CANDIDATES]` and the columns."""
    queries = queries.astype(jnp.float32) - center[None, :]
    reference = reference.astype(jnp.float32) - center[None, :]
    query_norm = jnp.sum(queries**2, axis=1, keepdims=True)
    norm = jnp.sum(reference**2, axis=1)[None, :]
    squared = query_norm - 2 * _cosines(queries, reference) + norm
    squared = jnp.where(_grid(squared.shape)[1] < num_reference, squared, jnp.inf)
    negative, column = jax.lax.top_k(-squared, min(CANDIDATES, squared.shape[1]))
    slack = 2 * (queries.shape[1] + 4) * ROUNDING * (query_norm + norm.max())
    return -negative - slack, column


def _tiles(rows: Reference, size: int) -> Iterator[tuple[int, np.ndarray, jax.Array]]:
    """Yields tiles of rows.

    Yields:
        The index of the first row, the rows `[<= size, d]`, and the same on the device, padded to
        `[size, d]`.
    """
    start = 0
    for part in [rows] if hasattr(rows, "shape") else rows:
        for first in range(0, len(part), size):
            tile = np.asarray(part[first : first + size])
            padding = np.zeros((size - len(tile), tile.shape[1]), tile.dtype)
            yield start + first, tile, jnp.asarray(np.concatenate([tile, padding]))
        start += len(part)


def _exact_cosines(rows: np.ndarray, block: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """Returns float64 cosines `[p, r]` of rows with a block, -inf in the columns ``diagonal``."""
    if not len(rows):
        return np.empty((0, 1))
    cosines = rows.astype(np.float64) @ block.T.astype(np.float64)
    cosines[diagonal[:, None] == np.arange(len(block))[None, :]] = -np.inf
    return cosines


def _exact_nearest(rows: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the two nearest of a block in float64: squared distances and columns `[p, 2]`."""
    x, y = rows.astype(np.float64), block.astype(np.float64)
    squared = np.sum(x**2, axis=1)[:, None] - 2 * x @ y.T + np.sum(y**2, axis=1)[None, :]
    column = np.argsort(squared, axis=1, kind="stable")[:, :2]
    row = np.repeat(np.arange(len(rows)), 2)
    return _squared_distances(rows, block, row, column.ravel()).reshape(-1, 2), column


def _squared_distances(a, b, rows, columns) -> np.ndarray:
    return _by_pairs(lambda x, y: np.einsum("pd,pd->p", x - y, x - y), a, b, rows, columns)


def _by_pairs(function, a, b, rows, columns) -> np.ndarray:
    """Applies ``function`` to a[rows] and b[columns] in float64 `[p, d]`, some pairs at a time."""
    out = np.empty(len(rows))
    for start in range(0, len(rows), PAIR_CHUNK):
        chunk = slice(start, start + PAIR_CHUNK)
        out[chunk] = function(
            a[rows[chunk]].astype(np.float64), b[columns[chunk]].astype(np.float64)
        )
    return out
