"""Orbax checkpoints of a run: asynchronous, atomic, the newest few kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

FOLDER = "checkpoints"  # of a run


def newest_step(directory: Path) -> int:
    """Step of the newest whole checkpoint of a run, 0 where there is none; nothing is opened."""
    return max(ocp.utils.checkpoint_steps(directory), default=0) if directory.exists() else 0


class Checkpoints:
    """The checkpoint folder of one run; a context manager that waits for pending saves.

    Args:
        directory: of this run alone.
        keep: how many are kept.
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
        """Step of the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, meta: dict) -> None:
        """Starts a save (copies the state first); raises what an earlier save failed with."""
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
        """Waits for pending saves and raises what they failed with."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()
