"""The table of all training objectives by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from reprojax.diffusion.kernels import Kernel
from reprojax.diffusion.losses.base import Objective, ScheduledObjective
from reprojax.diffusion.losses.consistency import (
    ConsistencyDistillation,
    ConsistencyTraining,
    ImprovedConsistencyTraining,
)
from reprojax.diffusion.losses.denoising import DENOISING_OBJECTIVES, DenoisingObjective
from reprojax.diffusion.losses.distillation import ProgressiveDistillation
from reprojax.errors import InputError, choices, require_choice

SCHEDULED_OBJECTIVES: dict[str, type[ScheduledObjective]] = {
    "ct": ConsistencyTraining,
    "ict": ImprovedConsistencyTraining,
    "cd": ConsistencyDistillation,
    "progressive": ProgressiveDistillation,
}
OBJECTIVES = (*DENOISING_OBJECTIVES, *SCHEDULED_OBJECTIVES)


def objective_options(name: str) -> dict[str, Any]:
    """Returns the options of an objective with their defaults; a denoising objective has none.

    Args:
        name: One of `OBJECTIVES`.

    Raises:
        InputError: ``name`` is not one of `OBJECTIVES`.
    """
    require_choice("objective", name, OBJECTIVES)
    if name in DENOISING_OBJECTIVES:
        return {}
    common = {f.name for f in dataclasses.fields(ScheduledObjective)}
    fields = dataclasses.fields(SCHEDULED_OBJECTIVES[name])
    return {f.name: f.default for f in fields if f.name not in common}


def is_flow_map(name: str) -> bool:
    """Returns True if the objective of this name trains a flow map and not a denoiser."""
    return SCHEDULED_OBJECTIVES.get(name, DenoisingObjective).flow_map


def needs_teacher(name: str) -> bool:
    """Returns True if the objective of this name distils another model."""
    return SCHEDULED_OBJECTIVES.get(name, DenoisingObjective).needs_teacher


def make_objective(
    name: str, kernel: Kernel, sigma_data: float, steps: int, options: Mapping[str, Any]
) -> Objective:
    """Makes an objective.

    Args:
        name: One of `OBJECTIVES`.
        kernel: The kernel whose noise levels the network is trained at.
        sigma_data: The standard deviation of the data.
        steps: The number of optimiser steps of the training, over which schedules are spread.
        options: The options of the objective that differ from `objective_options`.

    Raises:
        InputError: ``name`` or an option is unknown, or an option is outside its range.
    """
    defaults = objective_options(name)
    for option, value in options.items():
        if option not in defaults:
            raise InputError(f"options.{option}", value, choices(defaults, option))
    if name in DENOISING_OBJECTIVES:
        return DenoisingObjective(name, kernel, sigma_data)
    return SCHEDULED_OBJECTIVES[name](kernel, sigma_data, steps, **options)
