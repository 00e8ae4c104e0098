"""Samples the probability-flow ODE from a noise bank with any denoiser, solver and mesh."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
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
from reprojax.runtime.mesh import batch_devices, batch_sharding, make_mesh
from reprojax.sampling.conditions import ConditionBank
from reprojax.sampling.noise import NoiseBank
from reprojax.sampling.solvers.adaptive import ADAPTIVE, solve_adaptive
from reprojax.sampling.solvers.coefficients import HISTORY, SolverTable
from reprojax.sampling.solvers.table import ALIASES, SOLVERS, get_solver
from reprojax.types import DenoiseFn

STATE_DTYPES = ("float32", "float64")
ADAPTIVE_NFE = 100  # a guess, for estimates of cost
MATMUL_PRECISION = "highest"  # while sampling; recorded with the scores


@dataclass(frozen=True)
class SamplerSpec:
    """A sampler. One sampler can serve all models of a study.

    Attributes:
        solver: A key of `SOLVERS`, one of its `ALIASES`, or a key of `ADAPTIVE`.
        grid: The noise levels. An adaptive solver uses only the two ends.
        kernel: The kernel in whose time a "uniform_t" grid is uniform.
        dtype: The dtype of the ODE's state, "float32" or "float64". Networks compute in float32 in
            both cases.
        batch_size: The number of noises per call, rounded up to a multiple of the devices.
        rtol: The relative tolerance of adaptive solvers.
        atol: The absolute tolerance of adaptive solvers.
        noise_seed: The seed of the fresh noise of stochastic solvers. That noise is a function of
            (seed, image index, evaluation) alone.

    Raises:
        InputError: A field is out of range.
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
            requirement = f"must be 'sigma_min' for the solver {self.solver!r}"
            raise InputError("sampling.end", self.grid.end, requirement)

    @property
    def adaptive(self) -> bool:
        """Whether the solver chooses its steps by error control."""
        return self.solver in ADAPTIVE

    @property
    def stochastic(self) -> bool:
        """Whether the solver adds fresh noise."""
        return not self.adaptive and get_solver(self.solver).stochastic

    @property
    def flow_map(self) -> bool:
        """Whether the solver samples flow maps, and not denoisers."""
        return not self.adaptive and get_solver(self.solver).flow_map

    def identity(self) -> dict[str, Any]:
        """Returns the fields that decide the images: those in use, without the batch size."""
        grid = {"sigma_min": self.grid.sigma_min, "sigma_max": self.grid.sigma_max}
        if self.adaptive:
            steps = {"rtol": self.rtol, "atol": self.atol}
        else:
            steps = {"num_steps": self.grid.num_steps, "grid": self.grid.name}
            if self.grid.name == "karras":
                steps["rho"] = self.grid.rho
            if self.grid.name == "uniform_t":
                steps["kernel"] = [type(self.kernel).__name__, asdict(self.kernel)]
            if self.stochastic:
                steps["noise_seed"] = self.noise_seed
        solver = ALIASES.get(self.solver, self.solver)
        return {"solver": solver, "dtype": self.dtype, "end": self.grid.end, **grid, **steps}

    @property
    def expected_nfe(self) -> int:
        """The number of evaluations per image, a guess for an adaptive solver."""
        return ADAPTIVE_NFE if self.adaptive else len(self.table().sigma)

    def with_solver(self, solver: str, num_steps: int) -> SamplerSpec:
        """Returns the same sampler with another solver and number of steps."""
        return replace(self, solver=solver, grid=replace(self.grid, num_steps=num_steps))

    def table(self) -> SolverTable:
        """Returns the coefficient table of a fixed-step solver."""
        return get_solver(self.solver).table(self.grid.sigmas(self.kernel))

    def encoding_table(self) -> SolverTable:
        """Returns the table for encoding, over the same levels above 0 in rising order."""
        sigmas = self.grid.sigmas(self.kernel)
        return get_solver(self.solver).table(sigmas[sigmas > 0][::-1])


class Samples(NamedTuple):
    """Images (or noises) in the order of the bank, and their cost.

    Attributes:
        images: The images, float32 `[n, h, w, c]`, about [-1, 1], not clipped.
        nfe: The mean number of denoiser evaluations per image.
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
    """Runs a fixed-step solver.

    Args:
        denoise: A DenoiseFn. It is a pytree, so its parameters are arguments of the compiled
            program.
        x: The state at the table's first level, `[b, h, w, c]`. Its dtype is kept.
        table: The solver's table, in the dtype of ``x``.
        cond: A pytree with leading axis b, the conditions of the images, or None.
        keys: The PRNG keys `[b]` of the fresh noise of each image, or None to add none.

    Returns:
        The state after the last row, `[b, h, w, c]`.
    """

    def row(state, coefficients):
        x, anchor, history = state
        k, sigma, keep, to_x, to_anchor, deviation = coefficients
        denoised = denoise(x, jnp.full(x.shape[:1], sigma), cond)
        newest = keep[0] * x + keep[1] * denoised
        terms = (x, anchor, newest, *history[: HISTORY - 1])

        def combine(weights):
            return sum(weights[i] * term for i, term in enumerate(terms))

        after = combine(to_x) + _fresh_noise(keys, k + 1, deviation, x)
        return (after, combine(to_anchor), terms[2:]), None

    x = x + _fresh_noise(keys, 0, table.noise[0], x)
    state = (x, x, (jnp.zeros_like(x),) * HISTORY)
    rows = jnp.arange(table.sigma.shape[0], dtype=jnp.uint32)
    columns = (rows, table.sigma, table.keep, table.x, table.anchor, table.noise[1:])
    (x, _, _), _ = jax.lax.scan(row, state, columns)
    return x


def _fresh_noise(keys, k, deviation: jax.Array, like: jax.Array) -> jax.Array | float:
    """Returns ``deviation`` times normal noise, a function of each image's key and ``k``."""
    if keys is None:
        return 0.0

    def draw(key):
        return normal(jax.random.fold_in(key, k), like.shape[1:])

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
    """Samples a noise bank batch by batch, in order.

    The last batch is padded by repeating its noises, so that one program serves all batches.

    Args:
        denoise: A DenoiseFn, or a FlowMapFn with a solver for flow maps.
        bank: The noises.
        spec: The sampler.
        mesh: The devices that share a batch; all devices by default.
        start: The index of the first noise.
        conditions: The conditions of the noises, or None if the model takes none.

    Yields:
        Images, float32 `[b, h, w, c]`, and evaluations per image, float64 `[b]`.

    Raises:
        InputError: The solver is for denoisers and the model a flow map, or the reverse.
    """
    mesh = mesh or make_mesh()
    first = spec.grid.sigma_max
    solve = _solver_fn(denoise, spec, mesh, to_noise=False)
    for rows, z in _blocks(bank.block, start, bank.n, _batch_size(spec, mesh)):
        yield solve(first * z.astype(spec.dtype), rows, conditions)


def encode_batches(
    denoise: DenoiseFn,
    images: np.ndarray,
    spec: SamplerSpec,
    *,
    mesh: Mesh | None = None,
    conditions: ConditionBank | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Encodes images as noises, batch by batch: solves the same ODE in the other direction.

    The solver takes the images as the state at the lowest level above 0, and runs over the same
    levels in rising order.

    Args:
        denoise: A DenoiseFn.
        images: The images, float `[n, h, w, c]` in [-1, 1].
        spec: The sampler.
        mesh: The devices that share a batch; all devices by default.
        conditions: The conditions of the images, or None if the model takes none.

    Yields:
        The noises z = x(sigma_max) / sigma_max, float32 `[b, h, w, c]`, and evaluations per image,
        float64 `[b]`.

    Raises:
        InputError: The model is a flow map, or the sampler is stochastic.
    """
    if spec.stochastic:
        raise InputError("sampling.solver", spec.solver, "must be deterministic, to encode")
    mesh = mesh or make_mesh()
    solve = _solver_fn(denoise, spec, mesh, to_noise=True)

    def block(start, stop):
        return images[start:stop]

    for rows, x in _blocks(block, 0, len(images), _batch_size(spec, mesh)):
        x, nfe = solve(x.astype(spec.dtype), rows, conditions)
        yield (x / spec.grid.sigma_max).astype(np.float32), nfe


def _batch_size(spec: SamplerSpec, mesh: Mesh) -> int:
    devices = batch_devices(mesh)
    return -(-spec.batch_size // devices) * devices


def _blocks(block: Callable, start: int, n: int, size: int) -> Iterator[tuple[range, np.ndarray]]:
    """Yields ranges of at most ``size`` rows and the rows, padded to ``size`` by repetition."""
    for first in range(start, n, size):
        rows = range(first, min(first + size, n))
        yield rows, _pad(np.asarray(block(rows.start, rows.stop)), size)


@contextlib.contextmanager
def _numerics(spec: SamplerSpec) -> Iterator[None]:
    """Allows the state's dtype, and keeps accelerators from TF32 or bfloat16 products."""
    with jax.enable_x64(spec.dtype == "float64"), jax.default_matmul_precision(MATMUL_PRECISION):
        yield


def _pad(a: np.ndarray, size: int) -> np.ndarray:
    return np.resize(a, (size, *a.shape[1:]))


def _placed(denoise: DenoiseFn, mesh: Mesh) -> DenoiseFn:
    """Puts a denoiser on all devices, or divides it over them (a large training set)."""
    return place(denoise, denoise.placement(mesh))


def _solver_fn(denoise: DenoiseFn, spec: SamplerSpec, mesh: Mesh, *, to_noise: bool) -> Callable:
    """Returns a function from (x, range of rows, conditions) to (images, evaluations)."""
    if denoise.is_flow_map and not spec.flow_map:
        raise InputError("sampling.solver", spec.solver, "must be 'consistency' for a flow map")
    if spec.flow_map and not denoise.is_flow_map:
        requirement = "must be a solver for denoisers: this model is not a flow map"
        raise InputError("sampling.solver", spec.solver, requirement)

    def put(a):
        return place(a, batch_sharding(mesh))

    with _numerics(spec):
        denoise = _placed(denoise, mesh)
        solve = _adaptive_fn if spec.adaptive else _table_fn
        solve = solve(denoise, spec, mesh, to_noise)
        keys = stream(root_key(spec.noise_seed), "sampling-noise") if spec.stochastic else None

    def run(x, rows, conditions):
        with _numerics(spec):
            indices = _pad(np.asarray(rows, np.uint32), len(x))
            cond = None
            if conditions is not None:
                block = conditions.block(rows.start, rows.stop)
                cond = put(jax.tree.map(lambda a: _pad(a, len(x)), block))
            fresh = None if keys is None else put(_image_keys(keys, indices))
            images, nfe = solve(put(x), cond, fresh)
            images, nfe = fetch((images, nfe))
            nfe = np.asarray(nfe, np.float64)
        images = images if to_noise else images.astype(np.float32)
        return images[: len(rows)], nfe[: len(rows)]

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
    """Samples a whole noise bank; see `sample_batches`."""
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

    A ``NoiseBank(array=...)`` of the noises can be given to `sample`, to decode them with the same
    model (a round trip) or with another one (a transplant).
    """
    return _joined(encode_batches(denoise, images, spec, mesh=mesh, conditions=conditions))


def _joined(batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> Samples:
    images, nfe = zip(*batches, strict=True)
    return Samples(np.concatenate(images), float(np.mean(np.concatenate(nfe))))
