"""Training: exact resume, schedules, accumulation, divergence, files, no recompilation."""

import json
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reprojax.data.source import SourceSpec, open_source
from reprojax.data.subset import split
from reprojax.denoisers.network import NetworkDenoiser
from reprojax.diffusion.losses.denoising import DenoisingObjective
from reprojax.diffusion.preconditioning import Preconditioning
from reprojax.errors import DivergedError, InputError, InterruptedRunError, LostClaimError
from reprojax.models.families import build_network
from reprojax.rng import root_key, stream
from reprojax.runtime.mesh import make_mesh, state_sharding
from reprojax.runtime.stop import StopRequest
from reprojax.training import step as step_module
from reprojax.training.checkpoints import Checkpoints
from reprojax.training.loop import Run, check_devices, evaluate, train
from reprojax.training.metrics import MetricsFile, read_metrics
from reprojax.training.snapshots import snapshot_steps, snapshots
from reprojax.training.spec import LoopSpec, TrainingSpec
from reprojax.training.step import StepSpec, train_step
from reprojax.training.weights import load_weights, save_weights

SHAPE = (8, 8, 1)
NETWORKS = {
    "unet": dict(width=4, multipliers=(1,), num_blocks=1, attention=(), dropout=0.2),
    "uvit": dict(width=16, depth=2, num_heads=2, patch=4, dropout=0.2),
}
BUDGET = TrainingSpec(steps=40, batch_size=16, warmup_steps=5, flip=True, ema_halflife_images=200)


@pytest.fixture(scope="module")
def digits():
    return split(open_source(SourceSpec("digits")), n_train=100, n_heldout=50, seed=0)


def make_spec(family="uvit", training=BUDGET):
    module = build_network(family, SHAPE, NETWORKS[family])
    return StepSpec(
        module, Preconditioning(), DenoisingObjective(), training, make_mesh(jax.devices()[:1])
    )


def make_run(digits, directory, family="uvit", training=BUDGET, **loop):
    directory.mkdir(parents=True, exist_ok=True)
    loop = LoopSpec(**{"checkpoint_every": 50, "log_every": 10, "eval_every": 20, **loop})
    spec = make_spec(family, training)
    return Run("cell", spec, loop, 7, digits.train, digits.heldout, directory)


def stop_at(n, stop):
    def on_step(done, last):
        if done == n:
            stop.requested = True

    return on_step


def final_state(run):
    like = run.spec.init(SHAPE, root_key(run.seed))
    with Checkpoints(run.directory / "checkpoints", 2) as checkpoints:
        return checkpoints.restore(checkpoints.latest, like)


@pytest.mark.parametrize("family", NETWORKS)
def test_stop_and_resume_is_the_unbroken_run_bit_for_bit(digits, tmp_path, family):
    unbroken = make_run(digits, tmp_path / "a", family)
    train(unbroken, stop=StopRequest(), log=lambda _: None)
    broken = make_run(digits, tmp_path / "b", family)
    stop = StopRequest()
    with pytest.raises(InterruptedRunError, match="step 21 of 40"):
        train(broken, stop=stop, on_step=stop_at(20, stop), log=lambda _: None)
    lines: list[str] = []
    train(broken, stop=StopRequest(), log=lines.append)
    assert lines == ["cell: resumed at step 21"]
    one, two = final_state(unbroken), final_state(broken)
    assert int(one.step) == 40
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)
    pairs = zip(jax.tree.leaves(one.params), jax.tree.leaves(one.ema_params), strict=True)
    assert any(np.abs(a - b).max() > 0 for a, b in pairs)  # the average is not the parameters
    metrics = [read_metrics(x.directory / "metrics.jsonl") for x in (unbroken, broken)]
    ends = [[r for r in rows if r["step"] == 40 and "sigma" in r] for rows in metrics]
    assert ends[0] == ends[1] and len(ends[0]) == 1


class LostAfter:
    """A claim that another worker takes over at a step."""

    def __init__(self, step):
        self.step, self.done = step, 0

    def require(self):
        if self.done >= self.step:
            raise LostClaimError("the claim on cell was lost")

    def on_step(self, done, last):
        self.done = done


def test_a_lost_claim_ends_training_before_the_next_checkpoint(digits, tmp_path):
    run = make_run(digits, tmp_path, checkpoint_every=10)
    stop, claim = StopRequest(), LostAfter(15)
    with pytest.raises(LostClaimError), stop.holding(claim):
        train(run, stop=stop, on_step=claim.on_step, log=lambda _: None)
    assert claim.done <= 20
    with Checkpoints(run.directory / "checkpoints", 2) as checkpoints:
        assert checkpoints.latest == 10


def test_metrics_hold_what_the_report_needs(digits, tmp_path):
    run = make_run(digits, tmp_path)
    train(run, stop=StopRequest(), log=lambda _: None)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    steps = [r for r in rows if "loss" in r]
    assert [r["step"] for r in steps] == [10, 20, 30, 40]
    assert steps[-1]["images"] == 640 and steps[0]["images_per_sec"] > 0
    assert steps[0]["grad_norm"] > 0 and steps[-1]["lr"] < steps[0]["lr"]
    evaluations = [r for r in rows if "sigma" in r]
    assert [r["step"] for r in evaluations] == [20, 40]
    last = evaluations[-1]
    assert len(last["sigma"]) == len(last["loss_train"]) == len(last["loss_heldout"])
    assert last["loss_train"] != last["loss_heldout"]
    assert "qkv/kernel" in (tmp_path / "parameters.txt").read_text()


def test_the_held_out_loss_is_of_the_same_images_and_noises_for_every_n(digits, tmp_path):
    state = make_spec().init(SHAPE, root_key(7))
    rows = []
    for n in (3, 100):
        few = split(open_source(SourceSpec("digits")), n_train=n, n_heldout=50, seed=0)
        run = replace(make_run(digits, tmp_path, eval_images=40), train=few.train)
        rows.append(evaluate(run, state, root_key(7)))
    assert rows[0]["loss_heldout"] == rows[1]["loss_heldout"]
    assert rows[0]["loss_train"] != rows[1]["loss_train"]


def test_snapshots_are_kept_evenly_in_log_step_and_change_nothing(digits, tmp_path):
    assert snapshot_steps(4000, 12)[::11] == (20, 4000) and len(snapshot_steps(4000, 12)) == 12
    assert snapshot_steps(5, 12) == (1, 2, 3, 4, 5) and snapshot_steps(40, 1) == (40,)
    assert snapshot_steps(40, 0) == ()
    runs = [make_run(digits, tmp_path / str(n), snapshots=n) for n in (0, 6)]
    plain, other = (train(run, stop=StopRequest(), log=lambda _: None) for run in runs)
    jax.tree.map(np.testing.assert_array_equal, plain, other)
    assert snapshots(runs[0].directory) == {}
    paths = snapshots(runs[1].directory)
    assert list(paths) == list(snapshot_steps(40, 6))
    first, last = (load_weights(paths[step], plain) for step in (1, 40))
    jax.tree.map(np.testing.assert_array_equal, last, plain)
    differ = jax.tree.map(lambda a, b: np.any(a != b), first, last)
    assert any(jax.tree.leaves(differ))


def test_training_learns(digits, tmp_path):
    run = make_run(digits, tmp_path, training=replace(BUDGET, steps=300, learning_rate=5e-3))
    train(run, stop=StopRequest(), log=lambda _: None)
    losses = [r["loss"] for r in read_metrics(tmp_path / "metrics.jsonl") if "loss" in r]
    assert losses[-1] < 0.7 * losses[0]


def test_divergence_names_the_metric_and_keeps_the_good_checkpoint(digits, tmp_path):
    wild = replace(BUDGET, learning_rate=1e30, warmup_steps=30, grad_clip=0.0)
    run = make_run(digits, tmp_path, training=wild, checkpoint_every=1, log_every=5)
    run.spec.init(SHAPE, root_key(0))
    with pytest.raises(DivergedError, match=r"cell: (loss|grad_norm) is not finite at step \d+"):
        train(run, stop=StopRequest(), log=lambda _: None)
    state = final_state(run)
    finite = [np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)]
    assert int(state.step) >= 1 and all(finite)


def test_the_second_call_and_other_seeds_do_not_recompile(digits):
    spec = make_spec()
    images = jnp.asarray(digits.train.images(0, 16))
    train_step(spec.init(SHAPE, root_key(0)), images, None, root_key(0), spec=spec)
    before = train_step._cache_size()
    for seed in (0, 1):
        again = make_spec()  # equal, not identical
        fresh = again.init(SHAPE, root_key(seed))
        for _ in range(2):
            fresh, _ = train_step(fresh, images, None, root_key(seed), spec=again)
    assert train_step._cache_size() == before


def test_each_step_and_each_seed_draws_its_own_noise(digits):
    spec = make_spec()
    images = jnp.asarray(digits.train.images(0, 16))

    def loss(step, seed):
        state = spec.init(SHAPE, root_key(0)).replace(step=jnp.asarray(step, jnp.int32))
        return float(train_step(state, images, None, root_key(seed), spec=spec)[1]["loss"])

    assert loss(3, 0) == loss(3, 0)
    assert len({loss(3, 0), loss(4, 0), loss(3, 1)}) == 3


def test_accumulated_gradients_are_the_mean_of_their_micro_batches(digits):
    spec = make_spec(training=replace(BUDGET, accumulate=4))
    single = replace(spec, training=replace(BUDGET, accumulate=1))
    state = spec.init(SHAPE, root_key(0))
    images, key = jnp.asarray(digits.train.images(0, 16)), root_key(5)
    loss_and_grad = jax.jit(step_module._loss_and_grad, static_argnums=4)
    loss, grads = loss_and_grad(state, images, None, key, spec)
    micro = [stream(key, "micro", i) for i in range(4)]
    parts = [loss_and_grad(state, images[i::4], None, micro[i], single) for i in range(4)]
    assert float(loss) == pytest.approx(np.mean([float(p[0]) for p in parts]), rel=1e-5)
    mean = jax.tree.map(lambda *g: sum(g) / 4, *[p[1] for p in parts])
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(mean), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_the_average_halves_in_its_half_life():
    spec = make_spec(training=replace(BUDGET, ema_halflife_images=640, ema_rampup=0.0))
    decay = float(spec.ema_decay(jnp.asarray(1000)))
    assert decay ** (640 / 16) == pytest.approx(0.5, rel=1e-5)
    ramped = make_spec(training=replace(BUDGET, ema_halflife_images=640, ema_rampup=0.05))
    assert float(ramped.ema_decay(jnp.asarray(0))) < 1e-5  # at most 5 % of the images seen
    assert float(ramped.ema_decay(jnp.asarray(10_000))) == pytest.approx(decay)


def test_the_learning_rate_rises_and_decays():
    rate = make_spec(training=replace(BUDGET, steps=100, warmup_steps=10)).learning_rate()
    values = [float(rate(i)) for i in range(101)]
    assert values[0] == pytest.approx(1e-4, rel=1e-5) and max(values) == pytest.approx(1e-3)
    assert np.argmax(values) == 10 and values[100] == pytest.approx(0, abs=1e-9)
    flat = make_spec(training=replace(BUDGET, decay="none")).learning_rate()
    assert float(flat(39)) == pytest.approx(1e-3)


def test_clipping_bounds_the_update_but_not_the_reported_norm(digits):
    spec = make_spec(training=replace(BUDGET, grad_clip=1e-3))
    gradient = jax.tree.map(jnp.ones_like, spec.init(SHAPE, root_key(0)).params)
    optimizer = spec.optimizer()
    state = optimizer.init(gradient)
    _, state = optimizer.update(gradient, state, gradient)
    first_moment = jax.tree.leaves(state[1][0].mu)  # (1 - b1) times the clipped gradient
    norm = math.sqrt(sum(float((m**2).sum()) for m in first_moment)) / 0.1
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_flips_happen_only_when_asked(digits):
    images = jnp.asarray(digits.train.images(0, 16))
    mirrored = images[:, :, ::-1]
    state = make_spec().init(SHAPE, root_key(0))
    params = jax.tree.map(lambda p: p + 0.05, state.params)

    def loss(batch, flip):
        spec = make_spec(training=replace(BUDGET, flip=flip))
        return float(step_module._micro_loss(params, batch, None, root_key(1), state, spec))

    assert loss(images, False) != loss(images, True)
    assert loss(images, False) != loss(mirrored, False)


def test_sharded_state_lies_split_over_the_mesh():
    mesh = make_mesh(jax.devices()[:1])
    tree = {"big": jnp.zeros((64, 128)), "small": jnp.zeros((3,))}
    kinds = state_sharding(tree, mesh, "sharded")
    assert kinds["big"].spec == jax.sharding.PartitionSpec(None, "data")
    assert kinds["small"].spec == jax.sharding.PartitionSpec()
    whole = state_sharding(tree, mesh, "replicated")["big"].spec
    assert whole == jax.sharding.PartitionSpec()


def test_weights_round_trip_and_misfits_are_named(tmp_path):
    spec = make_spec()
    params = jax.device_get(spec.init(SHAPE, root_key(0)).params)
    path = tmp_path / "w.safetensors"
    save_weights(path, params, {"family": "uvit"})
    back = load_weights(path, params)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(a, b)
    other = {**params, "extra": {"kernel": np.zeros(3, np.float32)}}
    with pytest.raises(InputError, match="missing: extra/kernel"):
        load_weights(path, other)
    fewer = {k: v for k, v in params.items() if k != "norm"}
    with pytest.raises(InputError, match="leftover: norm/bias, norm/scale"):
        load_weights(path, fewer)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="readable safetensors"):
        load_weights(path, params)


def test_a_network_denoiser_is_its_coefficients(digits):
    spec = make_spec()
    params = jax.tree.map(lambda p: p + 0.05, spec.init(SHAPE, root_key(0)).params)
    denoise = NetworkDenoiser(params, spec.module, spec.precondition)
    x, sigma = jax.random.normal(jax.random.key(0), (2, *SHAPE)), jnp.asarray([0.3, 4.0])
    c = spec.precondition(sigma)
    for i in range(2):
        out = spec.module.apply({"params": params}, c.c_in[i] * x[i : i + 1], c.c_noise[i : i + 1])
        want = c.c_skip[i] * x[i] + c.c_out[i] * out[0]
        np.testing.assert_allclose(denoise(x, sigma)[i], want, atol=1e-5)


def test_metrics_survive_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        json.dumps({"step": 10, "loss": 1.0}) + "\n" + json.dumps({"step": 20}) + '\n{"st'
    )
    MetricsFile(path, resume_step=10).close()
    assert read_metrics(path) == [{"step": 10, "loss": 1.0}]


def test_batches_must_divide_over_devices():
    check_devices(64, 8)
    check_devices(64, 2, accumulate=4)
    with pytest.raises(InputError, match=r"training\.batch_size.*8 devices"):
        check_devices(60, 8)
    with pytest.raises(InputError, match="accumulate"):
        check_devices(16, 8, accumulate=4)
