"""What a training run is (part of a cell's identity), and how it is run (not part of it)."""

from __future__ import annotations

from dataclasses import dataclass

from reprojax.errors import InputError, require_choice, require_number
from reprojax.models.families import DTYPES
from reprojax.runtime.mesh import STATE_SHARDINGS

DECAYS = ("none", "cosine")
MOST_PACKED = 16  # models that "auto" tries in one program


@dataclass(frozen=True)
class TrainingSpec:
    """A training budget; every field changes the result.

    Args:
        steps: optimiser steps.
        batch_size: images per step.
        learning_rate: peak, of Adam.
        warmup_steps: of a linear rise, from 1 / warmup_steps of the peak.
        decay: "none" (constant after warm-up) or "cosine" (to 0 at the last step).
        beta2: of Adam.
        weight_decay: of AdamW, 0 for Adam.
        grad_clip: global norm the gradient is clipped to, 0 for never.
        ema_halflife_images: half-life of the parameters' moving average, in images.
        ema_rampup: the half-life is at most this share of the images seen, 0 for no ramp.
        accumulate: micro-batches per step; divides ``batch_size``.
        dtype: of the network's computation.
        flip: horizontal flips with probability one half.

    Raises:
        InputError: a value outside its range, naming it.
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


@dataclass(frozen=True)
class LoopSpec:
    """How a run is watched and saved; changes nothing in its result.

    Args:
        checkpoint_every: steps between checkpoints.
        keep: checkpoints kept.
        log_every: steps between rows of metrics (and between checks that all is finite).
        eval_every: steps between evaluations per noise level; the last step always has one.
        eval_images: images of each set in an evaluation.
        state_sharding: "replicated" or "sharded" over the devices.
        fsdp: devices of a group over which a sharded state is split; 1 splits it over all of them.
        snapshots: how many times, evenly spaced in log(step), the EMA weights are kept for what
            is measured along training; 0 for never.
        pack: how many models of equal shape (same network, objective and budget; other data or
            seed) are trained in one program: "4", say; "off", one after another; or "auto": as
            many as there are, up to 16, where a short measurement finds that quicker and the
            training is long enough to be worth measuring. The default is "off": on a CPU packing
            seldom pays, and on an accelerator the memory must hold them all at once.
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
                raise InputError("loop.pack", self.pack, "'auto', 'off' or a number from 1 on")

    @property
    def most_packed(self) -> int:
        """Models of one program at most; 1 where none are packed."""
        return {"off": 1, "auto": MOST_PACKED}.get(self.pack) or int(self.pack)
