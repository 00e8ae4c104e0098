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
from reprojax.errors import InputError, require_choice, require_number
from reprojax.mesh import DATA_AXIS, batch_sharding, make_mesh, replicated
from reprojax.sampling.adaptive import ADAPTIVE, solve_adaptive
from reprojax.sampling.noise import NoiseBank
from reprojax.sampling.solvers import ALIASES, HISTORY, SOLVERS, SolverTable, get_solver
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

    def __post_init__(self):
        require_choice("sampling.solver", self.solver, [*SOLVERS, *ALIASES, *ADAPTIVE])
        require_choice("sampling.dtype", self.dtype, STATE_DTYPES)
        for name in ("batch_size", "rtol", "atol"):
            require_number(f"sampling.{name}", getattr(self, name), above=0)
        self.grid.require_range_of(self.kernel)

    @property
    def adaptive(self) -> bool:
        """Whether steps are chosen by error control."""
        return self.solver in ADAPTIVE

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
        solver = ALIASES.get(self.solver, self.solver)
        return {"solver": solver, "dtype": self.dtype, "end": self.grid.end, **grid, **chosen}

    def table(self) -> SolverTable:
        """The coefficient table of a fixed-step solver."""
        return get_solver(self.solver).table(self.grid.sigmas(self.kernel))


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
    denoise: DenoiseFn, z: jax.Array, table: SolverTable, start: jax.Array, cond: jax.Array | None
) -> jax.Array:
    """Runs a solver table from x = start * z.

    Args:
        denoise: a DenoiseFn; a pytree, so its parameters are arguments of the compiled program.
        z: `[b, h, w, c]` unit noise; its dtype is the state's.
        table: rows in the dtype of ``z``.
        start: scalar, sigma_max.
        cond: `[b]` int32 labels or None.

    Returns:
        x after the last row, `[b, h, w, c]`.
    """

    def row(state, coefficients):
        x, anchor, history = state
        sigma, to_x, to_anchor = coefficients
        denoised = denoise(x, jnp.full(x.shape[:1], sigma), cond)
        seen = (x, anchor, denoised, *history[: HISTORY - 1])
        combine = lambda w: sum(w[i] * a for i, a in enumerate(seen))  # noqa: E731
        return (combine(to_x), combine(to_anchor), seen[2:]), None

    x = start * z
    state = (x, x, (jnp.zeros_like(x),) * HISTORY)
    (x, _, _), _ = jax.lax.scan(row, state, table)
    return x


@jax.jit
def _denoise_at(
    denoise: DenoiseFn, x: jax.Array, sigma: jax.Array, cond: jax.Array | None
) -> jax.Array:
    return denoise(x, jnp.full(x.shape[:1], sigma), cond)


def sample_batches(
    denoise: DenoiseFn,
    bank: NoiseBank,
    spec: SamplerSpec,
    *,
    mesh: Mesh | None = None,
    start: int = 0,
    cond: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Samples the bank from index ``start`` on, batch by batch, in noise order.

    The last batch is padded by repeating its noises, so that one program serves all batches.

    Args:
        denoise: a DenoiseFn.
        bank: the noises.
        spec: the sampler.
        mesh: devices to split a batch over; all by default.
        start: first noise.
        cond: int32 `[n]` labels of the whole bank, or None.

    Yields:
        images float32 `[b, h, w, c]` and evaluations per image float64 `[b]`.

    Raises:
        InputError: ``denoise`` is a flow map.
    """
    if getattr(denoise, "is_flow_map", False):
        raise InputError("sampling.solver", spec.solver, "a flow map has samplers of its own")
    mesh = mesh or make_mesh()
    devices = mesh.shape[DATA_AXIS]
    size = -(-spec.batch_size // devices) * devices
    with _numerics(spec):
        solve = _solver_fn(jax.device_put(denoise, replicated(mesh)), spec, mesh)
    for first in range(start, bank.n, size):
        z = bank.block(first, min(first + size, bank.n))
        labels = None if cond is None else cond[first : first + size]
        with _numerics(spec):
            images, nfe = solve(_pad(z, size), _pad(labels, size))
            images, nfe = np.asarray(images, np.float32), np.asarray(nfe)
        yield images[: len(z)], nfe[: len(z)]


@contextlib.contextmanager
def _numerics(spec: SamplerSpec) -> Iterator[None]:
    """The state's dtype, and products that accelerators do not round to TF32 or bfloat16."""
    with jax.enable_x64(spec.dtype == "float64"), jax.default_matmul_precision(MATMUL_PRECISION):
        yield


def _pad(a: np.ndarray | None, size: int) -> np.ndarray | None:
    return None if a is None else np.resize(a, (size, *a.shape[1:]))


def _solver_fn(denoise: DenoiseFn, spec: SamplerSpec, mesh: Mesh) -> Callable:
    dtype = np.dtype(spec.dtype)
    put = lambda a: None if a is None else jax.device_put(a, batch_sharding(mesh))  # noqa: E731
    if not spec.adaptive:
        table = SolverTable(*(jnp.asarray(a, dtype) for a in spec.table()))

        def fixed(z, cond):
            x = run_table(denoise, put(z.astype(dtype)), table, table.sigma[0], put(cond))
            return x, np.full(len(z), len(table.sigma), np.float64)

        return fixed

    grid = spec.grid
    ends = jnp.asarray([grid.sigma_max, grid.sigma_min], dtype)
    tolerances = jnp.asarray([spec.rtol, spec.atol], dtype)

    def adaptive(z, cond):
        z, cond = put(z.astype(dtype)), put(cond)
        x, nfe = solve_adaptive(denoise, z, ends, tolerances, cond, solver=spec.solver, mesh=mesh)
        if grid.end == "sigma_min":
            return x, np.asarray(nfe, np.float64)
        return _denoise_at(denoise, x, ends[1], cond), np.asarray(nfe, np.float64) + 1

    return adaptive


def sample(
    denoise: DenoiseFn,
    bank: NoiseBank,
    spec: SamplerSpec,
    *,
    mesh: Mesh | None = None,
    cond: np.ndarray | None = None,
) -> Samples:
    """Samples the whole bank; see `sample_batches`."""
    batches = list(sample_batches(denoise, bank, spec, mesh=mesh, cond=cond))
    images = np.concatenate([b[0] for b in batches])
    return Samples(images, float(np.mean(np.concatenate([b[1] for b in batches]))))
