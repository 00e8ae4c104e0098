"""What the processes of a job must have in common before they do a study together."""

from __future__ import annotations

from pathlib import Path

import jax
from jax.sharding import Mesh

from reprojax.errors import InputError
from reprojax.runtime import job
from reprojax.runtime.mesh import make_mesh
from reprojax.study.workdir import MANIFEST
from reprojax.training.spec import LoopSpec


def same_study(identity: str) -> None:
    """Raises InputError unless process 0 has the very study of this one."""
    theirs = job.agree(identity)
    if theirs != identity:
        allowed = f"the config of process 0, with the same data and noise ({theirs})"
        raise InputError("--config", identity, allowed)


def check_shared(workdir: Path) -> None:
    """Raises InputError unless this process sees the folder that process 0 has claimed."""
    claimed = job.agree(str(workdir.resolve()))
    if not (workdir / MANIFEST).exists():
        allowed = f"a folder that every process sees: process 0 writes to {claimed}"
        raise InputError("--workdir", str(workdir), allowed)


def local_mesh(loop: LoopSpec) -> Mesh:
    """The devices of one process: all of them where it is alone, else those next to it.

    What process 0 does while the others wait, scores and analyses, runs on these.
    """
    if job.is_alone():
        return make_mesh(fsdp=loop.fsdp)
    return make_mesh(jax.local_devices())
