"""Log-spaced EMA weights of a run, for what is measured along training (arXiv 2505.17638)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reprojax.runtime.job import agree
from reprojax.training.weights import save_weights, to_host

FOLDER = "snapshots"
SPAN = 200  # the first snapshot lies at this fraction of the budget


def snapshot_steps(steps: int, count: int) -> tuple[int, ...]:
    """The steps after which weights are kept, evenly spaced in log(step).

    Args:
        steps: of the whole run; the last snapshot is taken there.
        count: how many are wanted, 0 for none; steps that coincide are taken once.

    Returns:
        Ascending steps, from ``steps / 200`` to ``steps``.
    """
    spaced = np.geomspace(max(1.0, steps / SPAN), steps, count) if count > 1 else [steps][:count]
    return tuple(sorted({round(float(step)) for step in spaced}))


def write_snapshot(directory: Path, step: int, ema_params: Any) -> None:
    """Keeps the EMA parameters of a run after ``step``, unless they are there already.

    Args:
        directory: of the run.
        step: steps done.
        ema_params: a tree of device arrays.
    """
    path = Path(directory) / FOLDER / f"{step:09d}.safetensors"
    if not agree(path.exists()):  # all must fetch, or none
        save_weights(path, to_host(ema_params), {"step": step})


def snapshots(directory: str | Path) -> dict[int, Path]:
    """The snapshots of a run by step, ascending; empty where none were kept.

    Args:
        directory: of the run (of a cell of a study).
    """
    return {int(p.stem): p for p in sorted((Path(directory) / FOLDER).glob("*.safetensors"))}
