"""What the processes of a job must have in common before they work together in one folder."""

from __future__ import annotations

from pathlib import Path

import jax
from jax.sharding import Mesh

from reprojax.errors import InputError
from reprojax.runtime import job
from reprojax.runtime.files import refresh
from reprojax.runtime.mesh import make_mesh
from reprojax.runtime.workdir import MANIFEST


def same_study(identity: str) -> None:
    """Raises InputError unless process 0 has the same study as this process."""
    first = job.agree(identity)
    if first != identity:
        requirement = f"must be the config of process 0, with the same data and noise ({first})"
        raise InputError("--config", identity, requirement)


def check_shared(workdir: Path) -> None:
    """Raises InputError unless this process sees the folder that process 0 has claimed."""
    claimed = job.agree(str(workdir.resolve()) if job.is_first() else "")
    refresh(workdir.parent, workdir)
    if not (workdir / MANIFEST).exists():
        requirement = f"must be a folder that every process sees: process 0 writes to {claimed}"
        raise InputError("--workdir", str(workdir), requirement)


def local_mesh(fsdp: int) -> Mesh:
    """Returns the devices of one process: all of them where it is alone, else its own.

    What process 0 does while the others wait, scores and analyses, runs on these.

    Args:
        fsdp: The number of devices of a group over which a sharded state is split.
    """
    return make_mesh(fsdp=fsdp) if job.is_alone() else make_mesh(jax.local_devices())
