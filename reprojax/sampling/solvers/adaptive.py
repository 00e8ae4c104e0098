"""Solves the probability-flow ODE with diffrax's adaptive Runge-Kutta methods, per sample."""

from __future__ import annotations

from functools import partial
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from reprojax.runtime.mesh import BATCH_AXES
from reprojax.types import DenoiseFn

ADAPTIVE = {"tsit5": (diffrax.Tsit5, 6), "dopri5": (diffrax.Dopri5, 6)}  # evaluations per step
MAX_STEPS = 16_384


@partial(jax.jit, static_argnames=("solver", "mesh"))
def solve_adaptive(
    denoise: DenoiseFn,
    x: jax.Array,
    ends: jax.Array,
    tolerances: jax.Array,
    cond: Any,
    *,
    solver: str,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Solves dx / dlog(sigma) = x - D(x; sigma) from one noise level to another.

    The step size is controlled per sample (`vmap` over solves). In a joint solve an image would
    depend on its neighbours in the batch.

    Args:
        denoise: A DenoiseFn.
        x: The state at the first noise level, `[b, h, w, c]`. Its dtype is kept.
        ends: The first and the second noise level `[2]`: sigma_max and sigma_min for sampling.
        tolerances: The relative and the absolute tolerance `[2]`.
        cond: A pytree with leading axis b, the conditions of the samples, or None.
        solver: The name of the solver, a key of `ADAPTIVE`.
        mesh: The devices that share the batch. Each iterates until its own samples are finished.

    Returns:
        The state at the second level, `[b, h, w, c]`, and evaluations per sample, int32 `[b]`.
    """
    run = partial(_solve_batch, solver)
    if mesh is not None:
        whole, split = PartitionSpec(), PartitionSpec(BATCH_AXES)
        specs = (whole, split, whole, whole, split)
        run = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)
    return run(denoise, x, ends, tolerances, cond)


def _solve_batch(solver, denoise, x, ends, tolerances, cond):
    make, evaluations = ADAPTIVE[solver]
    start, stop = jnp.log(ends[0]), jnp.log(ends[1])

    def slope(log_sigma, x, cond):
        row = jax.tree.map(lambda a: a[None], cond)
        return x - denoise(x[None], jnp.exp(log_sigma)[None], row)[0]

    def solve(x, cond):
        controller = diffrax.PIDController(rtol=tolerances[0], atol=tolerances[1])
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(slope),
            make(),
            start,
            stop,
            dt0=None,
            y0=x,
            args=cond,
            stepsize_controller=controller,
            max_steps=MAX_STEPS,
        )
        return solution.ys[0], 2 + evaluations * solution.stats["num_steps"]

    return jax.vmap(solve, in_axes=(0, None if cond is None else 0))(x, cond)
