"""Probability-flow sampling: the same noises through any denoiser, any solver, any device count."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from reprojax.diffusion.grids import GridSpec
from reprojax.diffusion.kernels import EDM, Kernel
from reprojax.errors import InputError, require_choice, require_number, require_seed
from reprojax.rng import normal, root_key, stream
from reprojax.runtime.job import fetch, place
from reprojax.runtime.mesh import batch_devices, batch_sharding, make_mesh, replicated
from reprojax.sampling.conditions import ConditionBank
from reprojax.sampling.noise import NoiseBank
from reprojax.sampling.solvers.adaptive import ADAPTIVE, solve_adaptive
from reprojax.sampling.solvers.coefficients import HISTORY, SolverTable
from reprojax.sampling.solvers.table import ALIASES, SOLVERS, get_solver
from reprojax.types import DenoiseFn

STATE_DTYPES = ("float32", "float64")
MATMUL_PRECISION = "highest"  # while sampling; recorded with the scores


@dataclass(frozen=True)
class SamplerSpec:
    """How noises become images. One spec serves all models of a study.

    Args:
        solver: a key of `SOLVERS`, an alias of one, or a key of `ADAPTIVE`.
        grid: the noise levels; an adaptive solver takes only its two ends.
        kernel: whose time a "uniform_t" grid is uniform in.
        dtype: of the ODE state, "float32" or "float64"; networks compute in float32 either way.
        batch_size: noises per call; rounded up to a multiple of the devices.
        rtol: relative tolerance of the adaptive solvers.
        atol: absolute tolerance of the adaptive solvers.
        noise_seed: of the fresh noise of stochastic solvers, which is a function of (seed, image
            index, evaluation) alone.

    Raises:
        InputError: a value outside what is allowed, naming it.
    """

    solver: str = "heun"
    grid: GridSpec = field(default_factory=GridSpec)
    kernel: Kernel = field(default_factory=EDM)
    dtype: str = "float32"
    batch_size: int = 64
    rtol: float = 1e-4
    atol: float = 1e-4
    noise_seed: int = 0

    def __post_init__(self):
        require_choice("sampling.solver", self.solver, [*SOLVERS, *ALIASES, *ADAPTIVE])
        require_choice("sampling.dtype", self.dtype, STATE_DTYPES)
        require_seed("sampling.noise_seed", self.noise_seed)
        for name in ("batch_size", "rtol", "atol"):
            require_number(f"sampling.{name}", getattr(self, name), above=0)
        self.grid.require_range_of(self.kernel)
        if self.flow_map and self.grid.end != "sigma_min":
            allowed = f"'sigma_min' with the solver {self.solver!r}, whose last step is an image"
            raise InputError("sampling.end", self.grid.end, allowed)

    @property
    def adaptive(self) -> bool:
        """Whether steps are chosen by error control."""
        return self.solver in ADAPTIVE

    @property
    def stochastic(self) -> bool:
        """Whether fresh noise is drawn along the way."""
        return not self.adaptive and get_solver(self.solver).stochastic

    @property
    def flow_map(self) -> bool:
        """Whether it samples flow maps and not denoisers."""
        return not self.adaptive and get_solver(self.solver).flow_map

    def identity(self) -> dict[str, Any]:
        """What decides the images: only fields in use, aliases resolved, no batch size."""
        grid = {"sigma_min": self.grid.sigma_min, "sigma_max": self.grid.sigma_max}
        if self.adaptive:
            chosen = {"rtol": self.rtol, "atol": self.atol}
        else:
            chosen = {"num_steps": self.grid.num_steps, "grid": self.grid.name}
            if self.grid.name == "karras":
                chosen["rho"] = self.grid.rho
            if self.grid.name == "uniform_t":
                chosen["kernel"] = [type(self.kernel).__name__, asdict(self.kernel)]
            if self.stochastic:
                chosen["noise_seed"] = self.noise_seed
        solver = ALIASES.get(self.solver, self.solver)
        return {"solver": solver, "dtype": self.dtype, "end": self.grid.end, **grid, **chosen}

    def table(self) -> SolverTable:
        """The coefficient table of a fixed-step solver."""
        return get_solver(self.solver).table(self.grid.sigmas(self.kernel))

    def encoding_table(self) -> SolverTable:
        """The table of the way back: over the same levels above 0, rising."""
        sigmas = self.grid.sigmas(self.kernel)
        return get_solver(self.solver).table(sigmas[sigmas > 0][::-1])


class Samples(NamedTuple):
    """Images in noise order and what they cost.

    Args:
        images: float32 `[n, h, w, c]`, about [-1, 1], not clipped.
        nfe: denoiser evaluations per image (the mean over images where it varies).
    """

    images: np.ndarray
    nfe: float


@jax.jit
def run_table(
    denoise: DenoiseFn,
    x: jax.Array,
    table: SolverTable,
    cond: Any,
    keys: jax.Array | None = None,
) -> jax.Array:
    """Runs a solver table.

    Args:
        denoise: a DenoiseFn; a pytree, so its parameters are arguments of the compiled program.
        x: `[b, h, w, c]`, the state at the table's first level; its dtype is kept.
        table: rows in the dtype of ``x``.
        cond: A pytree with leading axis b, the conditions of the images, or None.
        keys: `[b]` PRNG keys of the fresh noise of each image, or None: none is added.

    Returns:
        x after the last row, `[b, h, w, c]`.
    """

    def row(state, coefficients):
        x, anchor, history = state
        k, sigma, keep, to_x, to_anchor, deviation = coefficients
        denoised = denoise(x, jnp.full(x.shape[:1], sigma), cond)
        kept = keep[0] * x + keep[1] * denoised
        seen = (x, anchor, kept, *history[: HISTORY - 1])
        combine = lambda w: sum(w[i] * a for i, a in enumerate(seen))  # noqa: E731
        after = combine(to_x) + _fresh_noise(keys, k + 1, deviation, x)
        return (after, combine(to_anchor), seen[2:]), None

    x = x + _fresh_noise(keys, 0, table.noise[0], x)
    state = (x, x, (jnp.zeros_like(x),) * HISTORY)
    rows = jnp.arange(table.sigma.shape[0], dtype=jnp.uint32)
    columns = (rows, table.sigma, table.keep, table.x, table.anchor, table.noise[1:])
    (x, _, _), _ = jax.lax.scan(row, state, columns)
    return x


def _fresh_noise(keys, k, deviation: jax.Array, like: jax.Array) -> jax.Array | float:
    """deviation * n, n a function of each image's key and the row alone, float32 draws."""
    if keys is None:
        return 0.0
    draw = lambda key: normal(jax.random.fold_in(key, k), like.shape[1:])  # noqa: E731
    return deviation * jax.vmap(draw)(keys).astype(like.dtype)


@jax.jit
def _denoise_at(denoise: DenoiseFn, x: jax.Array, sigma: jax.Array, cond: Any) -> jax.Array:
    return denoise(x, jnp.full(x.shape[:1], sigma), cond)


def sample_batches(
    denoise: DenoiseFn,
    bank: NoiseBank,
    spec: SamplerSpec,
    *,
    mesh: Mesh | None = None,
    start: int = 0,
    conditions: ConditionBank | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Samples the bank from index ``start`` on, batch by batch, in noise order.

    The last batch is padded by repeating its noises, so that one program serves all batches.

    Args:
        denoise: a DenoiseFn.
        bank: the noises.
        spec: the sampler.
        mesh: devices to split a batch over; all by default.
        start: first noise.
        conditions: The conditions of the noises, or None for a model that takes none.

    Yields:
        images float32 `[b, h, w, c]` and evaluations per image float64 `[b]`.

    Raises:
        InputError: a solver for denoisers with a flow map, or the other way round.
    """
    mesh = mesh or make_mesh()
    first = spec.grid.sigma_max
    solve = _solver_fn(denoise, spec, mesh, to_noise=False)
    for where, z in _blocks(bank.block, start, bank.n, _batch_size(spec, mesh)):
        yield solve(first * z.astype(spec.dtype), where, conditions)


def encode_batches(
    denoise: DenoiseFn,
    images: np.ndarray,
    spec: SamplerSpec,
    *,
    mesh: Mesh | None = None,
    conditions: ConditionBank | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The way back: images at sigma_min to the noises that the same equation leads them to.

    The solver runs over the same levels in rising order. A grid that ends at 0 is left at its last
    positive level: below it the equation has no way back.

    Args:
        denoise: a DenoiseFn.
        images: `[n, h, w, c]` float in [-1, 1].
        spec: the sampler.
        mesh: devices to split a batch over; all by default.
        conditions: The conditions of the images, or None for a model that takes none.

    Yields:
        z = x(sigma_max) / sigma_max, float32 `[b, h, w, c]`, and evaluations per image `[b]`.

    Raises:
        InputError: ``denoise`` is a flow map, or the sampler is stochastic.
    """
    if spec.stochastic:
        raise InputError("sampling.solver", spec.solver, "a deterministic solver, to encode")
    mesh = mesh or make_mesh()
    solve = _solver_fn(denoise, spec, mesh, to_noise=True)
    block = lambda first, last: images[first:last]  # noqa: E731
    for where, x in _blocks(block, 0, len(images), _batch_size(spec, mesh)):
        x, nfe = solve(x.astype(spec.dtype), where, conditions)
        yield (x / spec.grid.sigma_max).astype(np.float32), nfe


def _batch_size(spec: SamplerSpec, mesh: Mesh) -> int:
    devices = batch_devices(mesh)
    return -(-spec.batch_size // devices) * devices


def _blocks(block: Callable, start: int, n: int, size: int) -> Iterator[tuple[range, np.ndarray]]:
    """Pieces of ``size`` rows; the range says which, and a last short piece repeats its rows."""
    for first in range(start, n, size):
        where = range(first, min(first + size, n))
        yield where, _pad(np.asarray(block(where.start, where.stop)), size)


@contextlib.contextmanager
def _numerics(spec: SamplerSpec) -> Iterator[None]:
    """The state's dtype, and products that accelerators do not round to TF32 or bfloat16."""
    with jax.enable_x64(spec.dtype == "float64"), jax.default_matmul_precision(MATMUL_PRECISION):
        yield


def _pad(a: np.ndarray, size: int) -> np.ndarray:
    return np.resize(a, (size, *a.shape[1:]))


def _placed(denoise: DenoiseFn, mesh: Mesh) -> DenoiseFn:
    """On all devices, or divided over them where the denoiser says how (a large training set)."""
    how = getattr(denoise, "placement", lambda mesh: replicated(mesh))
    return place(denoise, how(mesh))


def _solver_fn(denoise: DenoiseFn, spec: SamplerSpec, mesh: Mesh, *, to_noise: bool) -> Callable:
    """Returns a function of (x `[size, h, w, c]`, range of rows, bank): (images, evaluations)."""
    if getattr(denoise, "is_flow_map", False) != spec.flow_map:
        what = "a flow map's own" if not spec.flow_map else "one for denoisers: this is no flow map"
        raise InputError("sampling.solver", spec.solver, f"{what} ('consistency' is for flow maps)")
    put = lambda a: place(a, batch_sharding(mesh))  # noqa: E731
    with _numerics(spec):
        denoise = _placed(denoise, mesh)
        solve = _adaptive_fn if spec.adaptive else _table_fn
        solve = solve(denoise, spec, mesh, to_noise)
        keys = stream(root_key(spec.noise_seed), "sampling-noise") if spec.stochastic else None

    def run(x, where, conditions):
        with _numerics(spec):
            indices = _pad(np.asarray(where, np.uint32), len(x))
            cond = None
            if conditions is not None:
                rows = conditions.block(where.start, where.stop)
                cond = put(jax.tree.map(lambda a: _pad(a, len(x)), rows))
            fresh = None if keys is None else put(_image_keys(keys, indices))
            images, nfe = solve(put(x), cond, fresh)
            images, nfe = fetch((images, nfe))
            nfe = np.asarray(nfe, np.float64)
        images = images if to_noise else images.astype(np.float32)
        return images[: len(where)], nfe[: len(where)]

    return run


@jax.jit
def _image_keys(key: jax.Array, indices: jax.Array) -> jax.Array:
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)


def _table_fn(denoise: DenoiseFn, spec: SamplerSpec, mesh: Mesh, to_noise: bool) -> Callable:
    table = spec.encoding_table() if to_noise else spec.table()
    table = SolverTable(*(jnp.asarray(a, spec.dtype) for a in table))

    def solve(x, cond, keys):
        return run_table(denoise, x, table, cond, keys), np.full(len(x), len(table.sigma))

    return solve


def _adaptive_fn(denoise: DenoiseFn, spec: SamplerSpec, mesh: Mesh, to_noise: bool) -> Callable:
    grid = spec.grid
    ends = (grid.sigma_min, grid.sigma_max) if to_noise else (grid.sigma_max, grid.sigma_min)
    ends = jnp.asarray(ends, spec.dtype)
    tolerances = jnp.asarray([spec.rtol, spec.atol], spec.dtype)

    def solve(x, cond, keys):
        x, nfe = solve_adaptive(denoise, x, ends, tolerances, cond, solver=spec.solver, mesh=mesh)
        if to_noise or grid.end == "sigma_min":
            return x, nfe
        return _denoise_at(denoise, x, ends[1], cond), nfe + 1

    return solve


def sample(
    denoise: DenoiseFn,
    bank: NoiseBank,
    spec: SamplerSpec,
    *,
    mesh: Mesh | None = None,
    conditions: ConditionBank | None = None,
) -> Samples:
    """Samples the whole bank; see `sample_batches`."""
    return _joined(sample_batches(denoise, bank, spec, mesh=mesh, conditions=conditions))


def encode(
    denoise: DenoiseFn,
    images: np.ndarray,
    spec: SamplerSpec,
    *,
    mesh: Mesh | None = None,
    conditions: ConditionBank | None = None,
) -> Samples:
    """Encodes images as noises, float32 `[n, h, w, c]`; see `encode_batches`.

    `load_noise`'s NoiseBank(array=...) takes them back to `sample`: with the same model the round
    trip, with another the transplant.
    """
    return _joined(encode_batches(denoise, images, spec, mesh=mesh, conditions=conditions))


def _joined(batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> Samples:
    images, nfe = zip(*batches, strict=True)
    return Samples(np.concatenate(images), float(np.mean(np.concatenate(nfe))))
