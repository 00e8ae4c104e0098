"""Writes a run's EMA weights at log-spaced steps, to measure along training (arXiv 2505.17638)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reprojax.runtime.job import agree
from reprojax.training.weights import save_weights, to_host

FOLDER = "snapshots"
SPAN = 200  # the first snapshot lies at this fraction of the budget


def snapshot_steps(steps: int, count: int) -> tuple[int, ...]:
    """Returns the steps after which to keep the weights, evenly spaced in log(step).

    Args:
        steps: The steps of the whole run, which is also where the last snapshot lies.
        count: The number of snapshots, 0 for none. Steps that coincide after rounding count once.

    Returns:
        Ascending steps, from ``steps / 200`` to ``steps``.
    """
    grid = np.geomspace(max(1.0, steps / SPAN), steps, count) if count > 1 else [steps][:count]
    return tuple(sorted({round(float(step)) for step in grid}))


def write_snapshot(directory: Path, step: int, ema_params: Any) -> None:
    """Writes the EMA parameters of a run after ``step``, unless their file exists.

    Args:
        directory: The run's folder.
        step: The number of steps taken.
        ema_params: The parameters, a tree of device arrays.
    """
    path = Path(directory) / FOLDER / f"{step:09d}.safetensors"
    if not agree(path.exists()):  # either all processes of a job must fetch, or none
        save_weights(path, to_host(ema_params), {"step": step})


def snapshots(directory: str | Path) -> dict[int, Path]:
    """Returns the snapshot files of a run by step, ascending; empty if it has none.

    Args:
        directory: The folder of the run, or of a study's cell.
    """
    return {int(p.stem): p for p in sorted((Path(directory) / FOLDER).glob("*.safetensors"))}
