"""Saves and restores a run's Orbax checkpoints: asynchronous, atomic, only the newest few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

FOLDER = "checkpoints"  # in a run's directory


def newest_step(directory: Path) -> int:
    """Returns the step of the newest whole checkpoint of a run, or 0, without opening any."""
    return max(ocp.utils.checkpoint_steps(directory), default=0) if directory.exists() else 0


class Checkpoints:
    """The checkpoint folder of one run, a context manager that waits for pending saves.

    Args:
        directory: The folder, which no other run uses.
        keep: The number of newest checkpoints to keep.
    """

    def __init__(self, directory: Path, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(Path(directory).absolute(), options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exc) -> None:
        self.wait()
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """The step of the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, meta: dict) -> None:
        """Copies the state and starts to save it; raises the error of an earlier save, if any."""
        self._manager.check_for_errors()
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._manager.save(step, args=args, force=True)

    def restore(self, step: int, like: Any) -> Any:
        """Reads a state into the shapes, dtypes and shardings of ``like``."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        return self._manager.restore(step, args=args)["state"]

    def wait(self) -> None:
        """Waits for pending saves and raises their error, if any."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()
