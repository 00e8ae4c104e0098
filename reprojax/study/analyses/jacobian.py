"""In how many directions a denoiser moves, over the noise level."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from reprojax.data.transform import to_float
from reprojax.denoisers.jacobian import numerical_rank, singular_values, stable_rank
from reprojax.runtime.programs import make_room
from reprojax.scoring.stats import mean_interval
from reprojax.study.analyses.common import cells_named
from reprojax.study.analyses.specs import JacobianRank
from reprojax.study.stages import Context, cell_denoiser


def jacobian_ranks(context: Context, spec: JacobianRank, identity: str) -> dict[str, Any]:
    """Ranks at x = y + sigma z, y held-out images and z the study's first noises.

    Returns:
        ``rows`` per (cell, sigma): the numerical rank's mean over images with its interval, and the
        stable rank's mean.
    """
    subset = context.images.heldout or context.images.split(context.images.largest).train
    n = min(spec.n, len(subset), context.bank.n)
    y, z = to_float(subset.images(0, n)), context.bank.block(0, n)
    cells, rows = cells_named(context, spec.cells), []
    total = len(cells) * len(spec.sigmas)
    with context.reporter.task("analyse jacobian", total, "levels") as advance:
        for cell in cells:
            make_room()
            denoise = cell_denoiser(context, cell)
            for sigma in spec.sigmas:
                x = jnp.asarray(y + np.float32(sigma) * z)
                values = singular_values(denoise, x, sigma)
                rank, interval = mean_interval(numerical_rank(values, spec.eta))
                rows.append(
                    {
                        "cell": cell.name,
                        "sigma": sigma,
                        "rank": rank,
                        "ci95": list(interval),
                        "stable_rank": float(np.mean(stable_rank(values))),
                    }
                )
                advance(len(rows), total)
                context.stop.check(f"in the Jacobian of {cell.name}")
    return {"dimension": int(y[0].size), "eta": spec.eta, "n": n, "rows": rows}
