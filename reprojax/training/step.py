"""Defines the train state, the jitted train step and the denoising loss per noise level."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from reprojax.data.transform import to_float
from reprojax.denoisers.network import NetworkDenoiser
from reprojax.diffusion.losses.base import Objective
from reprojax.diffusion.losses.denoising import DenoisingObjective
from reprojax.diffusion.preconditioning import Preconditioning
from reprojax.models.families import Network, init_params
from reprojax.rng import normal, stream, uniform
from reprojax.runtime.job import place
from reprojax.runtime.mesh import batch_sharding, state_sharding
from reprojax.training.spec import TrainingSpec
from reprojax.types import Companions, DenoiseFn


@struct.dataclass
class TrainState:
    """The state that a run needs to continue.

    Args:
        step: The number of steps taken, an int32 scalar.
        params: The network's parameters.
        ema_params: The moving average of the parameters, used for samples and exported weights.
        opt_state: The state of the optimiser.
        teacher_params: The parameters of the teacher to distil, or None.
    """

    step: jax.Array
    params: Any
    ema_params: Any
    opt_state: Any
    teacher_params: Any = None


@dataclass(frozen=True)
class StepSpec:
    """The static part of a train step. It is hashable, so equal specs share a compiled program.

    Args:
        module: The network.
        precondition: The network's preconditioning.
        objective: The training objective.
        training: The training budget.
        mesh: The mesh of devices.
        sharding: The sharding of the state, "replicated" or "sharded".
        teacher_precondition: The preconditioning of the teacher to distil, which is of the same
            module, or None.
    """

    module: Network
    precondition: Preconditioning
    objective: Objective
    training: TrainingSpec
    mesh: Mesh
    sharding: str = "replicated"
    teacher_precondition: Preconditioning | None = None

    def learning_rate(self) -> optax.Schedule:
        """Returns the schedule: a linear warm-up, then constant or a cosine to 0."""
        t = self.training
        warmup = min(t.warmup_steps, max(t.steps - 1, 0))
        if t.decay == "cosine":
            after = optax.cosine_decay_schedule(t.learning_rate, t.steps - warmup)
        else:
            after = optax.constant_schedule(t.learning_rate)
        # The first update has rate 1 / warmup of the peak, not 0, so that no step is wasted.
        rise = optax.linear_schedule(t.learning_rate / max(warmup, 1), t.learning_rate, warmup)
        return optax.join_schedules([rise, after], [warmup])

    def optimizer(self) -> optax.GradientTransformation:
        """Returns the optimiser: gradient clipping, then Adam or AdamW."""
        t = self.training
        clip = optax.clip_by_global_norm(t.grad_clip) if t.grad_clip else optax.identity()
        adam = partial(optax.adamw, weight_decay=t.weight_decay) if t.weight_decay else optax.adam
        return optax.chain(clip, adam(self.learning_rate(), b2=t.beta2))

    def init(self, image_shape: tuple[int, int, int], root: jax.Array) -> TrainState:
        """Returns the state at step 0, placed on the mesh, with parameters from stream "init"."""
        # It depends on no loss or preconditioning, so all specs of a network share one program.
        common = replace(
            self,
            objective=DenoisingObjective(),
            precondition=Preconditioning(),
            teacher_precondition=None,
        )
        return _init_state(root, spec=common, image_shape=tuple(image_shape))

    def adopt(self, state: TrainState, teacher_params: Any) -> TrainState:
        """Returns the state at step 0 of a student that starts as its teacher, on the mesh.

        Args:
            state: The state from `init`.
            teacher_params: The teacher's parameters, of the same module. The state keeps them for
                distillation only if the objective needs them.
        """

        def copy() -> Any:  # a train step donates, and so overwrites, the buffers of its state
            return jax.tree.map(lambda a: jnp.array(a, copy=True), teacher_params)

        teacher = copy() if self.objective.needs_teacher else None
        state = state.replace(params=copy(), ema_params=copy(), teacher_params=teacher)
        return place(state, self.shardings(state))

    def shardings(self, state: Any) -> Any:
        """Returns a sharding for each leaf of ``state``."""
        return state_sharding(state, self.mesh, self.sharding)

    def ema_decay(self, step: jax.Array) -> jax.Array:
        """Returns the weight of the old average at a step (0-based): one half per half-life."""
        t = self.training
        halflife = jnp.asarray(t.ema_halflife_images, jnp.float32)
        if t.ema_rampup:
            num_images = (step + 1).astype(jnp.float32) * t.batch_size
            halflife = jnp.minimum(halflife, num_images * t.ema_rampup)
        return 0.5 ** (t.batch_size / jnp.maximum(halflife, 1e-8))


@partial(jax.jit, static_argnames=("spec", "image_shape"))
def _init_state(root: jax.Array, *, spec: StepSpec, image_shape: tuple[int, ...]) -> TrainState:
    params = init_params(spec.module, image_shape, stream(root, "init"))
    opt_state = spec.optimizer().init(params)
    state = TrainState(jnp.zeros((), jnp.int32), params, params, opt_state)
    return jax.lax.with_sharding_constraint(state, spec.shardings(state))


def _micro_loss(params, images, labels, key, state: TrainState, spec: StepSpec) -> jax.Array:
    x0 = to_float(images)
    if spec.training.flip:
        flips = uniform(stream(key, "flip"), (x0.shape[0], 1, 1, 1), 0.0, 1.0) < 0.5
        x0 = jnp.where(flips, x0[:, :, ::-1], x0)
    # One dropout key, because a consistency loss compares two calls under the same mask.
    dropout = stream(key, "dropout")
    denoise = NetworkDenoiser(params, spec.module, spec.precondition, True, dropout_key=dropout)
    teacher = None
    if state.teacher_params is not None:
        teacher = NetworkDenoiser(state.teacher_params, spec.module, spec.teacher_precondition)
    ema = denoise.replace(params=state.ema_params)
    return spec.objective.loss(denoise, x0, key, labels, Companions(ema, teacher, state.step))


def _loss_and_grad(state: TrainState, images, labels, key, spec: StepSpec):
    k = spec.training.accumulate
    value_and_grad = jax.value_and_grad(_micro_loss)
    if k == 1:
        return value_and_grad(state.params, images, labels, key, state, spec)

    def split(a):  # micro-batch i takes images i, i + k, …, so that images stay on their device
        return None if a is None else jnp.swapaxes(a.reshape(-1, k, *a.shape[1:]), 0, 1)

    def micro(total, data):
        micro_key = stream(key, "micro", data[2])
        part = value_and_grad(state.params, data[0], data[1], micro_key, state, spec)
        return jax.tree.map(jnp.add, total, part), None

    zero = (jnp.zeros((), jnp.float32), jax.tree.map(jnp.zeros_like, state.params))
    # Unroll on a CPU, where XLA makes a backward convolution in a loop many times slower.
    unroll = k if jax.default_backend() == "cpu" else 1
    parts = (split(images), split(labels), jnp.arange(k))
    total, _ = jax.lax.scan(micro, zero, parts, unroll=unroll)
    return jax.tree.map(lambda a: a / k, total)


def _next_stage(state: TrainState, spec: StepSpec) -> TrainState:
    """Makes the average the teacher and the student where a stage of distillation begins."""
    if not spec.objective.staged:
        return state
    new = spec.objective.new_teacher(state.step)

    def choose(old):
        return jax.tree.map(lambda o, e: jnp.where(new, e, o), old, state.ema_params)

    return state.replace(params=choose(state.params), teacher_params=choose(state.teacher_params))


def step_body(
    state: TrainState,
    images: jax.Array,
    labels: jax.Array | None,
    root: jax.Array,
    *,
    spec: StepSpec,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one optimiser step; not compiled, see `train_step` and `packed.packed_step`.

    Args:
        state: The state before the step.
        images: The images, uint8 `[batch, h, w, c]`.
        labels: The labels, int32 `[batch]`, or None.
        root: The run's root key. The step draws from the stream ("train", state.step).
        spec: The static part of the step.

    Returns:
        The state after the step, and {"loss", "grad_norm", "lr"} as float32 scalars. The norm is
        that before clipping.
    """
    images = jax.lax.with_sharding_constraint(images, batch_sharding(spec.mesh))
    key = stream(root, "train", state.step)
    state = _next_stage(state, spec)
    loss, grads = _loss_and_grad(state, images, labels, key, spec)
    updates, opt_state = spec.optimizer().update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    decay = spec.ema_decay(state.step)
    ema = jax.tree.map(lambda e, p: decay * e + (1.0 - decay) * p, state.ema_params, params)
    new = TrainState(state.step + 1, params, ema, opt_state, state.teacher_params)
    new = jax.lax.with_sharding_constraint(new, spec.shardings(new))
    rate = jnp.asarray(spec.learning_rate()(state.step), jnp.float32)
    return new, {"loss": loss, "grad_norm": optax.global_norm(grads), "lr": rate}


@partial(jax.jit, static_argnames=("spec",), donate_argnames=("state",))
def train_step(
    state: TrainState,
    images: jax.Array,
    labels: jax.Array | None,
    root: jax.Array,
    *,
    spec: StepSpec,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one optimiser step of one model, compiled; see `step_body`. The state is donated."""
    return step_body(state, images, labels, root, spec=spec)


@jax.jit
def denoising_losses(
    denoise: DenoiseFn,
    images: jax.Array,
    labels: jax.Array | None,
    sigmas: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """Returns the mean squared denoising error at each noise level, unweighted.

    Args:
        denoise: The denoiser, a DenoiseFn.
        images: The images, uint8 `[m, h, w, c]`.
        labels: The labels, int32 `[m]`, or None.
        sigmas: The noise levels `[s]`, in data units.
        key: The key of the noise. The same key for training and held-out images makes their
            losses comparable.

    Returns:
        The errors, float32 `[s]`.
    """
    x0 = to_float(images)

    def at(data):
        sigma, i = data
        z = normal(jax.random.fold_in(key, i), x0.shape)
        denoised = denoise(x0 + sigma * z, jnp.full(x0.shape[:1], sigma), labels)
        return jnp.mean((denoised - x0) ** 2)

    return jax.lax.map(at, (sigmas, jnp.arange(sigmas.shape[0])))
