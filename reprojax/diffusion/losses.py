"""All training losses by name, and making one with its options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from reprojax.diffusion.consistency import (
    ConsistencyDistillation,
    ConsistencyTraining,
    ImprovedConsistencyTraining,
)
from reprojax.diffusion.distillation import ProgressiveDistillation
from reprojax.diffusion.kernels import Kernel
from reprojax.diffusion.loss import Loss, ScheduledLoss
from reprojax.diffusion.objectives import OBJECTIVES, Objective
from reprojax.errors import InputError, choices, require_choice

SCHEDULED: dict[str, type[ScheduledLoss]] = {
    "ct": ConsistencyTraining,
    "ict": ImprovedConsistencyTraining,
    "cd": ConsistencyDistillation,
    "progressive": ProgressiveDistillation,
}
LOSSES = (*OBJECTIVES, *SCHEDULED)


def loss_options(name: str) -> dict[str, Any]:
    """The options of a loss with their defaults; a denoising objective has none.

    Raises:
        InputError: unknown name.
    """
    require_choice("objective", name, LOSSES)
    if name in OBJECTIVES:
        return {}
    common = {f.name for f in dataclasses.fields(ScheduledLoss)}
    fields = dataclasses.fields(SCHEDULED[name])
    return {f.name: f.default for f in fields if f.name not in common}


def is_flow_map(name: str) -> bool:
    """Whether a loss of this name trains a flow map and not a denoiser."""
    return SCHEDULED.get(name, Objective).flow_map


def needs_teacher(name: str) -> bool:
    """Whether a loss of this name distils another model."""
    return SCHEDULED.get(name, Objective).needs_teacher


def make_loss(
    name: str, kernel: Kernel, sigma_data: float, steps: int, options: Mapping[str, Any]
) -> Loss:
    """The loss of that name.

    Args:
        name: of `LOSSES`.
        kernel: whose levels it is trained at.
        sigma_data: standard deviation of the data.
        steps: of the whole training, which schedules are spread over.
        options: of `loss_options`; what is absent takes its default.

    Raises:
        InputError: unknown name or option, or an option outside its range.
    """
    known = loss_options(name)
    for option, value in options.items():
        if option not in known:
            raise InputError(f"options.{option}", value, choices(known, option))
    if name in OBJECTIVES:
        return Objective(name, kernel, sigma_data)
    return SCHEDULED[name](kernel, sigma_data, steps, **options)
