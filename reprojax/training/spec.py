"""Settings of a training run: the budget, part of a cell's identity, and the loop, which is not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from reprojax.errors import InputError, require_choice, require_number
from reprojax.models.families import DTYPES
from reprojax.runtime.mesh import STATE_SHARDINGS

DECAYS = ("none", "cosine")
MAX_AUTO_PACK = 16  # the most models that "auto" tries in one program


@dataclass(frozen=True)
class TrainingSpec:
    """A training budget, of which every field changes the result.

    Args:
        steps: The number of optimiser steps.
        batch_size: The number of images per step.
        learning_rate: The peak learning rate of Adam.
        warmup_steps: The number of steps of a linear rise from 1 / warmup_steps of the peak.
        decay: "none" (constant after warm-up) or "cosine" (to 0 at the last step).
        beta2: The decay rate of Adam's second moment.
        weight_decay: The weight decay of AdamW, or 0 for Adam.
        grad_clip: The global norm that the gradient is clipped to, or 0 for no clipping.
        ema_halflife_images: The half-life of the parameters' moving average, in images.
        ema_rampup: The largest half-life as a share of the images trained on so far, or 0 for no
            such limit.
        accumulate: The number of micro-batches per step, a divisor of ``batch_size``.
        dtype: The dtype of the network's computation.
        flip: Whether to flip images horizontally with probability one half.

    Raises:
        InputError: A value is out of range; the message names it.
    """

    steps: int = 3000
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    decay: str = "cosine"
    beta2: float = 0.999
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    ema_halflife_images: float = 10_000.0
    ema_rampup: float = 0.05
    accumulate: int = 1
    dtype: str = "float32"
    flip: bool = False

    def __post_init__(self):
        require_choice("training.decay", self.decay, DECAYS)
        require_choice("training.dtype", self.dtype, DTYPES)
        for name in ("steps", "batch_size", "accumulate"):
            require_number(f"training.{name}", getattr(self, name), at_least=1)
        require_number("training.learning_rate", self.learning_rate, above=0)
        require_number("training.beta2", self.beta2, at_least=0, below=1)
        for name in ("warmup_steps", "weight_decay", "grad_clip", "ema_halflife_images"):
            require_number(f"training.{name}", getattr(self, name), at_least=0)
        require_number("training.ema_rampup", self.ema_rampup, at_least=0)
        if self.batch_size % self.accumulate:
            raise InputError(
                "training.accumulate",
                self.accumulate,
                f"must divide batch_size {self.batch_size}",
            )

    def identity(self) -> dict[str, Any]:
        """Returns the fields that decide the result."""
        return asdict(self)


@dataclass(frozen=True)
class LoopSpec:
    """Settings of the training loop, which change nothing in the result.

    Args:
        checkpoint_every: The number of steps between checkpoints.
        keep: The number of newest checkpoints to keep.
        log_every: The number of steps between rows of metrics, and between checks that the loss
            is finite.
        eval_every: The number of steps between evaluations per noise level. The last step always
            has one.
        eval_images: The number of images of each set in an evaluation.
        state_sharding: "replicated" or "sharded" over the devices.
        fsdp: The number of devices in a group that a sharded state is split over, or 1 to split
            it over all devices.
        snapshots: The number of steps, evenly spaced in log(step), whose EMA weights are kept to
            measure along training; 0 for none.
        pack: The number of models of equal shape (the same network, objective and budget, other
            data or seed) to train in one program, e.g. "4"; "off" to train one after another; or
            "auto" for as many as there are, up to 16, if the training is long enough to be worth
            a short measurement and that shows packing to be quicker. The default is "off": on a
            CPU packing seldom pays, and an accelerator's memory must hold all models at once.
    """

    checkpoint_every: int = 500
    keep: int = 2
    log_every: int = 50
    eval_every: int = 1000
    eval_images: int = 256
    state_sharding: str = "replicated"
    fsdp: int = 1
    snapshots: int = 0
    pack: str | int = "off"

    def __post_init__(self):
        require_choice("loop.state_sharding", self.state_sharding, STATE_SHARDINGS)
        require_number("loop.snapshots", self.snapshots, at_least=0)
        for name in ("checkpoint_every", "keep", "log_every", "eval_every", "eval_images", "fsdp"):
            require_number(f"loop.{name}", getattr(self, name), at_least=1)
        if self.pack not in ("auto", "off"):
            digits = str(self.pack)
            if not (digits.isdecimal() and digits.isascii() and int(digits) > 0):
                requirement = "must be 'auto', 'off' or a number, at least 1"
                raise InputError("loop.pack", self.pack, requirement)

    @property
    def most_packed(self) -> int:
        """The largest number of models in one program, 1 for no packing."""
        return {"off": 1, "auto": MAX_AUTO_PACK}.get(self.pack) or int(self.pack)
