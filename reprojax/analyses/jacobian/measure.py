"""Measures the rank of a denoiser's Jacobian over the noise level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from reprojax.analyses.common import image_cond, progress
from reprojax.data.transform import to_float
from reprojax.denoisers.jacobian import numerical_rank, singular_values, stable_rank
from reprojax.errors import require_number
from reprojax.runtime.programs import make_room
from reprojax.scoring.stats import mean_interval
from reprojax.study.context import Context
from reprojax.study.study import AnalysisSettings


@dataclass(frozen=True)
class JacobianRank(AnalysisSettings):
    """Settings for the rank of the Jacobian at noisy held-out images (or training images).

    Attributes:
        n: The number of images.
        sigmas: The noise levels, in data units.
        eta: The share of the Frobenius norm that the numerical rank's directions hold.
    """

    n: int = 16
    sigmas: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 2.0, 4.0, 10.0, 30.0)
    eta: float = 0.99

    def __post_init__(self):
        super().__post_init__()
        for sigma in self.sigmas:
            require_number("sigmas", sigma, above=0)
        require_number("eta", self.eta, at_least=0, below=1)


def jacobian_ranks(context: Context, settings: JacobianRank, identity: str) -> dict[str, Any]:
    """Measures ranks at x = y + sigma z, for held-out images y and the study's first noises z.

    Returns:
        ``rows`` per (cell, sigma): the mean over images of the numerical rank with its interval,
        and the mean of the stable rank.
    """
    subset = context.images.heldout or context.images.largest
    n = min(settings.n, len(subset), context.noise.n)
    y, z = to_float(subset.images(0, n)), context.noise.block(0, n)
    cells, rows = context.cells_named(settings.cells), []
    with progress(context, "jacobian", len(cells) * len(settings.sigmas), "levels") as step:
        for cell in cells:
            make_room()
            denoise = context.function(cell)
            cond = image_cond(context, cell, subset, slice(n))
            for sigma in settings.sigmas:
                x = jnp.asarray(y + np.float32(sigma) * z)
                values = singular_values(denoise, x, sigma, cond)
                rank, interval = mean_interval(numerical_rank(values, settings.eta))
                rows.append(
                    {
                        "cell": cell.name,
                        "sigma": sigma,
                        "rank": rank,
                        "ci95": list(interval),
                        "stable_rank": float(np.mean(stable_rank(values))),
                    }
                )
                step()
    return {"dimension": int(y[0].size), "eta": settings.eta, "n": n, "rows": rows}
