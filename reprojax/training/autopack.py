"""Decides whether to train models of equal shape in one program, by measuring both ways."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from reprojax.rng import root_key
from reprojax.runtime.mesh import batch_sharding
from reprojax.training.packed import (
    packed_spec,
    packed_step,
    stack_roots,
    stack_states,
    stacked_batch_sharding,
)
from reprojax.training.step import StepSpec, train_step

GAIN = 0.05  # the share of time that packing must save; less may be noise of the measurement
# The share of the time of training one after another that the measurement may cost. Packing seldom
# pays on a CPU; on a GPU small networks train in a third to a tenth of the time (results/packing).
SHARE_ON_CPU = 0.05
SHARE = 0.25
# Seconds to assume for compiling the packed program: that of one model may come from a cache.
LEAST_COMPILE = 5.0
REPEATS = 5
LEAST_SECONDS = 0.02  # seconds of one timing, so that the clock and the calls do not matter

StepFn = Callable[[], jax.Array]


@dataclass(frozen=True)
class Timing:
    """The seconds that a step of one model takes both ways, medians without compilation.

    Args:
        k: The number of models in the pack.
        alone: Seconds per step of a model when models are trained one after another.
        packed: Seconds per step of a model in one program: the program's step divided by k.
    """

    k: int
    alone: float
    packed: float

    @property
    def pays(self) -> bool:
        """Whether packing saves more than the share `GAIN` of the time."""
        return self.packed < (1.0 - GAIN) * self.alone


class Trial:
    """Models with random images that take steps alone or packed, to be timed.

    They have states of their own, so that the measurement touches no run.

    Args:
        spec: The spec that all models share.
        image_shape: The shape (h, w, c) of the images.
        k: The number of models in the pack.
        teacher: Whether each model starts from a teacher, and distils it if its loss does.
    """

    def __init__(
        self, spec: StepSpec, image_shape: tuple[int, int, int], k: int, teacher: bool = False
    ):
        self.spec, self.k, self._shape, self._teacher = spec, k, image_shape, teacher
        rng = np.random.default_rng(0)
        batch = spec.training.batch_size
        images = rng.integers(0, 256, (k, batch, *image_shape)).astype(np.uint8)
        classes = spec.module.num_classes
        labels = rng.integers(0, classes, (k, batch)).astype(np.int32) if classes else None
        self._data, self._roots = (images, labels), [root_key(i) for i in range(k)]

    def _init(self, i: int):
        state = self.spec.init(self._shape, self._roots[i])
        return self.spec.adopt(state, state.params) if self._teacher else state

    def alone(self) -> StepFn:
        """Returns a function that takes a step of one model and returns an array to wait for."""
        state, root = self._init(0), self._roots[0]
        first = jax.tree.map(lambda a: a[0], self._data)
        images, labels = jax.device_put(first, batch_sharding(self.spec.mesh))

        def step() -> jax.Array:
            nonlocal state
            state, _ = train_step(state, images, labels, root, spec=self.spec)
            return state.step

        return step

    def packed(self) -> StepFn:
        """Returns a function that takes a step of all k models and returns an array to wait for."""
        spec = packed_spec(self.spec, self.k)
        state = stack_states([self._init(i) for i in range(self.k)], spec)
        images, labels = jax.device_put(self._data, stacked_batch_sharding(spec))
        roots = stack_roots(self._roots, spec)

        def step() -> jax.Array:
            nonlocal state
            state, _ = packed_step(state, images, labels, roots, spec=spec)
            return state.step

        return step


def seconds_of(step: StepFn, count: int = 1) -> float:
    """Returns the seconds of ``count`` steps, of which none waits for another, as in training."""
    start = time.perf_counter()
    for _ in range(count):
        output = step()
    jax.block_until_ready(output)
    return time.perf_counter() - start


def time_steps(alone: StepFn, packed: StepFn, k: int, repeats: int = REPEATS) -> Timing:
    """Times both ways in turn, so that other load of the machine falls on both.

    Args:
        alone: A compiled step of one model.
        packed: A compiled step of all models.
        k: The number of models.
        repeats: The number of timings of each.
    """
    seconds: dict[StepFn, list[float]] = {alone: [], packed: []}
    counts = {step: max(2, round(LEAST_SECONDS / max(seconds_of(step), 1e-6))) for step in seconds}
    for _ in range(repeats):
        for step, times in seconds.items():
            times.append(seconds_of(step, counts[step]) / counts[step])
    return Timing(k, statistics.median(seconds[alone]), statistics.median(seconds[packed]) / k)


def worth_measuring(
    k: int, steps: int, alone: float, compiling: float, platform: str = "cpu"
) -> bool:
    """Returns True if compiling the packed program costs little of the training it may shorten.

    Args:
        k: The number of models.
        steps: The steps that each model still has to take.
        alone: The seconds of one step of one model.
        compiling: The seconds that the program of one model took to compile.
        platform: JAX's name for the platform of the devices.
    """
    share = SHARE_ON_CPU if platform == "cpu" else SHARE
    return max(2.0 * compiling, LEAST_COMPILE) <= share * k * steps * alone


def _timing(trial: Trial, alone: StepFn) -> Timing | None:
    """Compiles the packed program and times it; returns None if it does not fit into memory."""
    try:
        packed = trial.packed()
        seconds_of(packed)
        return time_steps(alone, packed, trial.k)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None


def choose_pack(
    spec: StepSpec,
    image_shape: tuple[int, int, int],
    k: int,
    steps: int,
    *,
    teacher: bool = False,
    log: Callable[[str], None] = print,
) -> int:
    """Chooses how many of ``k`` models of equal shape to train in one program, and logs why.

    A training too short to be worth the compilation is not measured. A pack that does not fit into
    memory is halved.

    Args:
        spec: The spec that all models share.
        image_shape: The shape (h, w, c) of the images.
        k: The number of models that could be packed.
        steps: The steps that each model has to take.
        teacher: Whether each model starts from a teacher.
        log: A function that takes a line for the user.

    Returns:
        The number of models in a pack, at most ``k``; 1 for one after another.
    """
    if k < 2:
        return 1
    trial = Trial(spec, image_shape, k, teacher)
    step = trial.alone()
    compiling = seconds_of(step)
    alone = min(seconds_of(step) for _ in range(3))
    platform = spec.mesh.devices.flat[0].platform
    if not worth_measuring(k, steps, alone, compiling, platform):
        seconds = k * steps * alone
        log(f"pack: {k} models one after another; about {seconds:.0f} s are too few to measure")
        return 1
    timing = _timing(trial, step)
    if timing is None:
        log(f"pack: {k} models do not fit into the memory of the device at once")
        return choose_pack(spec, image_shape, k // 2, steps, teacher=teacher, log=log)
    ways = f"{k} packed {1e3 * timing.packed:.2f} ms, one after another {1e3 * timing.alone:.2f} ms"
    log(f"pack: {ways} per step of a model; chosen: {'packed' if timing.pays else 'one by one'}")
    return k if timing.pays else 1
