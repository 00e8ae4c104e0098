"""Blockwise searches over all pairs of two sets: nearest, two nearest, how many over a threshold.

Matrix products run on the device in float32 at the highest precision, in blocks of one fixed shape:
memory is bounded by the block, and other set sizes compile nothing new. What float32 cannot decide
is decided on the host in float64 (of the float32 features).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = (512, 1024)  # rows of queries and of references in one matrix product
BAND = 1e-5  # similarities this near to a threshold are evaluated again in float64, at least
ROUNDING = 2.0**-24  # of one float32 operation; d of them bound the error of a dot product of d
CANDIDATES = 4  # of a block re-evaluated per query: two, and room for near ties in float32
PAIR_CHUNK = 2048  # pairs gathered at a time for float64
LISTED = 256  # undecided pairs of a block that the device lists; of more it sends the whole mask
NOWHERE = 2**30  # an offset at which no diagonal crosses a block

Reference = np.ndarray | Iterable[np.ndarray]


def exact_threshold(tau: float) -> float:
    """The threshold as a float32 number, in float64.

    Features are float32, hence so is the threshold: a similarity of float32(0.6), which is above
    0.6 in float64, is not above the threshold 0.6.
    """
    return float(np.float32(tau))


def _band(d: int) -> float:
    """The distance from a threshold within which float32 cannot be trusted with d dimensions."""
    return max(BAND, d * ROUNDING)


def paired_cosines(a: np.ndarray, b: np.ndarray, rows=None, columns=None) -> np.ndarray:
    """Dot products of rows of two feature sets, float64 `[p]`.

    Args:
        a: float32 `[n, d]`.
        b: float32 `[m, d]`.
        rows: int `[p]`, the rows of ``a``; None pairs row i of both sets.
        columns: int `[p]`, the rows of ``b`` that go with them.
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
    """The most similar reference of every query.

    Args:
        queries: float32 `[n, d]` unit rows.
        reference: float32 `[m, d]` unit rows, or an iterable of such blocks, read once.
        tau: maxima within 1e-5 of this threshold are evaluated again in float64.
        exclude_self: leaves the pair (i, i) out: the queries are the reference's first rows.
        block: rows of queries and of references per matrix product.

    Returns:
        cosines float64 `[n]` (-inf where nothing is left to compare with) and the index of the
        first reference that attains it, int64 `[n]` (-1 there).
    """
    tau = None if tau is None else exact_threshold(tau)
    band = _band(queries.shape[1])
    best, index = np.full(len(queries), -np.inf), np.full(len(queries), -1, np.int64)
    tiles = list(_tiles(queries, block[0]))
    for offset, part, padded in _tiles(reference, block[1]):
        for start, rows, query in tiles:
            here = slice(start, start + len(rows))
            diagonal = start - offset if exclude_self else NOWHERE
            result = _block_max(query, padded, len(part), diagonal)
            value, column = np.array(result[0], np.float64), np.array(result[1], np.int64)
            value, column = value[: len(rows)], column[: len(rows)]
            if tau is not None:
                near = np.flatnonzero((np.abs(value - tau) <= band) & (best[here] <= tau + band))
                exact = _exact_cosines(rows[near], part, near + diagonal)
                value[near], column[near] = exact.max(axis=1), exact.argmax(axis=1)
            better = value > best[here]
            best[here] = np.where(better, value, best[here])
            index[here] = np.where(better, column + offset, index[here])
    return best, index


def count_over(
    a: np.ndarray,
    b: np.ndarray,
    tau: float,
    exclude_diagonal: bool = True,
    block: tuple[int, int] = BLOCK,
) -> int:
    """How many pairs (i, j), i ≠ j, have a cosine above the threshold, strictly.

    Args:
        a: float32 `[n, d]` unit rows.
        b: float32 `[m, d]` unit rows.
        tau: the threshold; cosines within 1e-5 of it are evaluated again in float64.
        exclude_diagonal: leaves the pairs (i, i) out.
        block: rows of the two sets per matrix product.
    """
    tau, total = exact_threshold(tau), 0
    tiles = list(_tiles(a, block[0]))
    for offset, part, padded in _tiles(b, block[1]):
        counted = []
        for start, rows, query in tiles:
            diagonal = start - offset if exclude_diagonal else NOWHERE
            shape = (len(rows), len(part))
            counted.append(_block_over(query, padded, *shape, diagonal, tau))
        masks = [near for *_, near in counted]
        found = jax.device_get([few for *few, _ in counted])  # one wait for all blocks of a column
        pairs = []
        for (start, *_), (over, num_near, listed), near in zip(tiles, found, masks, strict=True):
            total += int(over)
            if num_near > LISTED:
                listed = np.stack(np.nonzero(np.asarray(near)))
            pairs.append(listed[:, :num_near] + [[start], [offset]])
        total += int(np.count_nonzero(paired_cosines(a, b, *np.concatenate(pairs, axis=1)) > tau))
    return total


def two_nearest(
    queries: np.ndarray, reference: Reference, block: tuple[int, int] = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """The two nearest references of every query in squared l2 distance.

    ‖x‖² − 2xy + ‖y‖² in float32 finds the candidates; their distances are evaluated again in
    float64, which is exact for uint8 images. Where more of a block are too near to tell apart than
    there are candidates, float64 finds them.

    Args:
        queries: uint8 or float32 `[n, d]`.
        reference: uint8 or float32 `[m, d]`, or an iterable of such blocks, read once.
        block: rows of queries and of references (at least 4) per matrix product.

    Returns:
        squared distances float64 `[n, 2]`, ascending, and indices int64 `[n, 2]`, the smaller index
        first among equals; inf and -1 where the reference has too few rows.
    """
    squared, index = np.full((len(queries), 2), np.inf), np.full((len(queries), 2), -1, np.int64)
    # Distances do not move with the origin, and float32 loses less with the origin in the middle.
    center = np.mean(queries, axis=0, dtype=np.float64).astype(np.float32)
    tiles = list(_tiles(queries, block[0]))
    for offset, part, padded in _tiles(reference, block[1]):
        for start, rows, query in tiles:
            here = slice(start, start + len(rows))
            lower, column = map(np.array, _block_nearest(query, padded, len(part), center))
            lower, column = lower[: len(rows)], column[: len(rows)]
            row, slot = np.nonzero(lower < squared[here, 1:])  # what may still be among the two
            found = np.full(lower.shape, np.inf)
            found[row, slot] = _squared_distances(rows, part, row, column[row, slot])
            values = np.concatenate([squared[here], found], axis=1)
            crowded = np.flatnonzero(lower[:, -1] < np.partition(values, 1, axis=1)[:, 1])
            if len(crowded):
                values[crowded, 2:4], column[crowded, :2] = _exact_nearest(rows[crowded], part)
                values[crowded, 4:] = np.inf
            places = np.concatenate([index[here], column + offset], axis=1)
            order = np.lexsort((places, values), axis=1)[:, :2]
            squared[here] = np.take_along_axis(values, order, axis=1)
            index[here] = np.take_along_axis(places, order, axis=1)
    return squared, np.where(np.isinf(squared), -1, index)


def _cosines(queries: jax.Array, reference: jax.Array) -> jax.Array:
    return jnp.matmul(queries, reference.T, precision=jax.lax.Precision.HIGHEST)


def _grid(shape: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    return tuple(jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))


@jax.jit
def _block_max(queries, reference, num_reference, diagonal):
    """Maximum `[q]` and its column `[q]`, without padding and the diagonal row + diagonal."""
    cosines = _cosines(queries, reference)
    row, column = _grid(cosines.shape)
    usable = (column < num_reference) & (column != row + diagonal)
    cosines = jnp.where(usable, cosines, -jnp.inf)
    return cosines.max(axis=1), cosines.argmax(axis=1)


@jax.jit
def _block_over(queries, reference, num_queries, num_reference, diagonal, tau):
    """Pairs surely over ``tau``; how many are undecided, the first `[2, LISTED]`, all `[q, r]`."""
    cosines, band = _cosines(queries, reference), _band(queries.shape[1])
    row, column = _grid(cosines.shape)
    usable = (row < num_queries) & (column < num_reference) & (column != row + diagonal)
    over = usable & (cosines > tau + band)
    near = usable & (cosines >= tau - band) & ~over
    listed = jnp.stack(jnp.nonzero(near, size=LISTED, fill_value=0))
    return jnp.sum(over), jnp.sum(near), listed, near


@jax.jit
def _block_nearest(queries, reference, num_reference, center):
    """Lower bounds of the smallest squared distances `[q, CANDIDATES]`, and their columns."""
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
    """Yields (first index, the rows `[<= size, d]`, the same padded to `[size, d]` on device)."""
    start = 0
    for part in [rows] if hasattr(rows, "shape") else rows:
        for first in range(0, len(part), size):
            tile = np.asarray(part[first : first + size])
            padding = np.zeros((size - len(tile), tile.shape[1]), tile.dtype)
            yield start + first, tile, jnp.asarray(np.concatenate([tile, padding]))
        start += len(part)


def _exact_cosines(rows: np.ndarray, block: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """Float64 cosines `[p, r]` of a few rows with a block; -inf where column == diagonal `[p]`."""
    if not len(rows):
        return np.empty((0, 1))
    cosines = rows.astype(np.float64) @ block.T.astype(np.float64)
    cosines[diagonal[:, None] == np.arange(len(block))[None, :]] = -np.inf
    return cosines


def _exact_nearest(rows: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances and columns `[p, 2]` of the two nearest of a block, found in float64."""
    x, y = rows.astype(np.float64), block.astype(np.float64)
    squared = np.sum(x**2, axis=1)[:, None] - 2 * x @ y.T + np.sum(y**2, axis=1)[None, :]
    column = np.argsort(squared, axis=1, kind="stable")[:, :2]
    row = np.repeat(np.arange(len(rows)), 2)
    return _squared_distances(rows, block, row, column.ravel()).reshape(-1, 2), column


def _squared_distances(a, b, rows, columns) -> np.ndarray:
    return _by_pairs(lambda x, y: np.einsum("pd,pd->p", x - y, x - y), a, b, rows, columns)


def _by_pairs(function, a, b, rows, columns) -> np.ndarray:
    """Applies ``function`` to float64 `[p, d]` of a[rows] and b[columns], some pairs at a time."""
    out = np.empty(len(rows))
    for start in range(0, len(rows), PAIR_CHUNK):
        chunk = slice(start, start + PAIR_CHUNK)
        out[chunk] = function(
            a[rows[chunk]].astype(np.float64), b[columns[chunk]].astype(np.float64)
        )
    return out
