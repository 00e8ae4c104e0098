"""Packed training: each model as if alone, resume either way, divergence alone, auto's choice."""

import re
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reprojax.data.source import SourceSpec, open_source
from reprojax.data.subset import DataSpec, split
from reprojax.diffusion.losses.base import Objective
from reprojax.diffusion.losses.denoising import DenoisingObjective
from reprojax.diffusion.preconditioning import Preconditioning
from reprojax.errors import DivergedError, InputError, InterruptedRunError
from reprojax.models.families import build_network
from reprojax.models.layers import Dropout
from reprojax.rng import normal, root_key, stream
from reprojax.runtime.mesh import make_mesh
from reprojax.runtime.stop import StopRequest
from reprojax.study import packs
from reprojax.study.cells import Cell
from reprojax.study.models import ClosedForm, Imported, Trained
from reprojax.study.packs import pack_of
from reprojax.training import autopack, packed
from reprojax.training import step as step_module
from reprojax.training.autopack import Timing, choose_pack, time_steps, worth_measuring
from reprojax.training.checkpoints import Checkpoints
from reprojax.training.loop import Run, Session, batch_schedule, read_batch, train
from reprojax.training.metrics import read_metrics
from reprojax.training.packed import train_packed
from reprojax.training.spec import LoopSpec, TrainingSpec
from reprojax.training.step import StepSpec

SHAPE = (8, 8, 1)
NETWORKS = {
    "unet": dict(width=4, multipliers=(1,), num_blocks=1, attention=(), dropout=0.2),
    "uvit": dict(width=16, depth=2, num_heads=2, patch=4, dropout=0.2),
}
BUDGET = TrainingSpec(steps=20, batch_size=16, warmup_steps=5, flip=True, ema_halflife_images=200)


def silent(_):
    pass


def make_spec(family="uvit", **changes):
    module = build_network(family, SHAPE, NETWORKS[family])
    mesh = make_mesh(jax.devices()[:1])
    spec = StepSpec(module, Preconditioning(), DenoisingObjective(), BUDGET, mesh)
    return replace(spec, **changes)


@pytest.fixture(scope="module")
def make_runs():
    source = open_source(SourceSpec("digits"))

    def make(directory, spec, count=3, **loop):
        loop = LoopSpec(**{"checkpoint_every": 50, "log_every": 5, "eval_every": 20, **loop})
        runs = []
        for i, (n, seed) in enumerate([(100, 7), (60, 7), (60, 8)][:count]):
            images = split(source, n_train=n, n_heldout=50, seed=0)
            folder = directory / str(i)
            folder.mkdir(parents=True)
            runs.append(Run(f"cell{i}", spec, loop, seed, images.train, images.heldout, folder))
        return runs

    return make


@pytest.fixture(scope="module")
def alone(make_runs, tmp_path_factory):
    """Runs trained one after another, and their EMA parameters."""
    runs = make_runs(tmp_path_factory.mktemp("alone"), make_spec(), snapshots=2)
    return runs, [train(run, stop=StopRequest(), log=silent) for run in runs]


def stop_at(n, stop):
    def on_step(done, total):
        if done >= n:
            stop.requested = True

    return on_step


def distance(a, b):
    """Norm of the difference over the norm, of two trees."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    parts = [(np.sum((x - y) ** 2.0), np.sum(np.square(x))) for x, y in leaves]
    return float(np.sqrt(sum(p[0] for p in parts) / sum(p[1] for p in parts)))


def assert_near(ours, theirs, tolerance=1e-4):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert distance(a, b) < tolerance
    assert distance(theirs[0], theirs[-1]) > 100 * tolerance  # which could have been mixed up


def files(run):
    paths = (p.relative_to(run.directory) for p in run.directory.rglob("*"))
    return {str(p) for p in paths if p.parts[0] != "checkpoints"}


def test_a_pack_trains_each_model_as_if_alone(alone, make_runs, tmp_path):
    runs = make_runs(tmp_path, alone[0][0].spec, snapshots=2)
    calls: list[tuple[int, int]] = []
    params = train_packed(runs, stop=StopRequest(), on_step=lambda *a: calls.append(a), log=silent)
    assert_near(params, alone[1])
    assert calls[0] == (3, 60) and calls[-1] == (60, 60) and len(calls) == 20
    for ours, theirs in zip(runs, alone[0], strict=True):
        assert files(ours) == files(theirs) >= {"metrics.jsonl", "parameters.txt", "snapshots"}
        one, two = (read_metrics(r.directory / "metrics.jsonl") for r in (ours, theirs))
        assert [r.keys() for r in one] == [r.keys() for r in two]
        assert [r["step"] for r in one] == [r["step"] for r in two]
        for a, b in zip(one, two, strict=True):
            if "loss" in a:
                assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
                assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)


def test_what_began_packed_ends_alone(alone, make_runs, tmp_path):
    runs, stop = make_runs(tmp_path, alone[0][0].spec), StopRequest()
    with pytest.raises(InterruptedRunError, match="cell0, cell1, cell2 at step 8"):
        train_packed(runs, stop=stop, on_step=stop_at(21, stop), log=silent)
    lines: list[str] = []
    params = [train(run, stop=StopRequest(), log=lines.append) for run in runs]
    assert lines == [f"cell{i}: resumed at step 8" for i in range(3)]  # all were saved
    assert_near(params, alone[1])


def test_what_began_alone_ends_packed_wherever_each_stands(alone, make_runs, tmp_path):
    runs, stop = make_runs(tmp_path, alone[0][0].spec), StopRequest()
    with pytest.raises(InterruptedRunError, match="step 13 of 20"):
        train(runs[1], stop=stop, on_step=stop_at(12, stop), log=silent)
    lines: list[str] = []
    assert_near(train_packed(runs, stop=StopRequest(), log=lines.append), alone[1])
    assert "cell1: resumed at step 13" in lines
    assert train_packed(runs[:1], stop=StopRequest(), log=silent)  # done already: nothing to do


@pytest.mark.slow
def test_in_float64_only_rounding_is_between_them():
    """So what differs in float32 is rounding too, and no number draws or row mixed up."""
    with jax.enable_x64(True):
        module = make_spec().module.clone(dtype=jnp.float64)
        spec = make_spec(module=module)
        wide = packed.packed_spec(spec, 2)
        images = np.random.default_rng(0).integers(0, 256, (2, 16, *SHAPE)).astype(np.uint8)
        roots = [root_key(i) for i in range(2)]

        def start(i):
            state = make_spec().init(SHAPE, roots[i])

            def double(a):
                return a.astype(jnp.float64) if a.dtype == jnp.float32 else a

            return jax.tree.map(double, state)

        together = packed.stack_states([start(i) for i in range(2)], wide)
        singly = [start(i) for i in range(2)]
        keys = packed.stack_roots(roots, wide)
        for _ in range(5):
            together, _ = packed.packed_step(together, images, None, keys, spec=wide)
            for i in range(2):
                singly[i], _ = step_module.train_step(
                    singly[i], images[i], None, roots[i], spec=spec
                )
        for i in range(2):
            own = packed.unstack_state(together, i, spec)
            assert jax.tree.leaves(own.params)[0].dtype == jnp.float64
            assert distance(own.params, singly[i].params) < 1e-10


@dataclass(frozen=True)
class Draws(Objective):
    """In place of a loss, all that a step draws at random."""

    def loss(self, denoise, x0, key, cond=None, companions=None):
        mask = Dropout(0.5).apply({}, x0 * 0 + 1, train=True, rngs={"dropout": denoise.dropout_key})
        sigma = DenoisingObjective().sample_sigma(stream(key, "sigma"), x0.shape[0])
        return x0, sigma, normal(stream(key, "noise"), x0.shape), mask


def test_a_model_draws_the_same_numbers_packed_or_alone(make_runs, tmp_path):
    """Batches, flips, noise levels, noise and dropout masks, bit for bit."""
    spec = make_spec(objective=Draws())
    runs = make_runs(tmp_path, spec)
    wide = packed.packed_spec(spec, 3)

    def draw(images, root, step):
        state = step_module.TrainState(step, {}, {}, {})
        key = stream(root, "train", step)
        return step_module._micro_loss({}, images, None, key, state, spec)

    sessions, firsts, singly = (
        [Session(run, StopRequest(), silent) for run in runs],
        [0, 3, 11],
        jax.jit(draw),
    )
    for session, first in zip(sessions, firsts, strict=True):
        session.step = first
    images, labels = next(packed._stacked_batches(sessions, wide))
    assert labels is None
    roots = packed.stack_roots([s.root for s in sessions], wide)
    draws = jax.jit(jax.vmap(draw))(images, roots, jnp.asarray(firsts, jnp.int32))
    for i, (run, first) in enumerate(zip(runs, firsts, strict=True)):
        own, _ = read_batch(run, batch_schedule(run), first)
        np.testing.assert_array_equal(images[i], own)
        want = singly(own, root_key(run.seed), jnp.asarray(first, jnp.int32))
        for a, b in zip(draws, want, strict=True):
            np.testing.assert_array_equal(a[i], b)
    assert not np.array_equal(draws[2][0], draws[2][1])


@pytest.mark.slow
def test_a_model_that_diverges_falls_out_alone(make_runs, tmp_path):
    """Its NaN crosses no grouped convolution; nothing of it is saved; the others end well."""
    spec = make_spec("unet")
    want = train(make_runs(tmp_path / "a", spec, 1)[0], stop=StopRequest(), log=silent)
    runs = make_runs(tmp_path / "b", spec, 2)
    state = spec.init(SHAPE, root_key(0))
    broken = state.replace(
        step=jnp.asarray(1, jnp.int32), params=jax.tree.map(lambda p: p * jnp.nan, state.params)
    )
    with Checkpoints(runs[1].directory / "checkpoints", 2) as checkpoints:
        checkpoints.save(1, broken, {})
    good, error = train_packed(runs, stop=StopRequest(), log=silent)
    assert isinstance(error, DivergedError) and "cell1: loss is not finite at step 2" in str(error)
    assert distance(good, want) < 1e-4
    with Checkpoints(runs[1].directory / "checkpoints", 2) as checkpoints:
        assert checkpoints.latest == 1


def test_packing_is_chosen_only_where_it_is_quicker():
    assert Timing(4, alone=1.0, packed=0.9).pays
    assert not Timing(4, alone=1.0, packed=0.97).pays  # as good as equal
    assert not Timing(4, alone=1.0, packed=2.1).pays
    assert not Timing(4, alone=1.0, packed=float("nan")).pays
    assert worth_measuring(4, 100_000, alone=0.01, compiling=10.0)
    assert not worth_measuring(4, 3_000, alone=0.01, compiling=10.0)
    assert not worth_measuring(2, 30, alone=0.01, compiling=0.0)


def test_where_packing_mostly_pays_measuring_may_cost_more():
    """Eight U-Nets for 4,000 steps on an H200: 208 s one after another, compiled in 19 s."""
    assert worth_measuring(8, 4000, alone=0.0065, compiling=19.0, platform="gpu")
    assert not worth_measuring(8, 4000, alone=0.0065, compiling=19.0, platform="cpu")
    assert not worth_measuring(8, 400, alone=0.0065, compiling=19.0, platform="gpu")


@pytest.mark.parametrize(("seconds", "chosen"), [(0.5, 8), (1.5, 1)])
def test_auto_follows_its_measurement_and_says_so(monkeypatch, seconds, chosen):
    spec, lines = make_spec(), []
    monkeypatch.setattr(autopack.Trial, "alone", lambda self: lambda: None)
    monkeypatch.setattr(autopack, "worth_measuring", lambda *a: True)

    def packed(self):
        if self.k > 8:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return lambda: None

    monkeypatch.setattr(autopack.Trial, "packed", packed)
    monkeypatch.setattr(autopack, "time_steps", lambda a, p, k: Timing(k, 1.0, seconds))
    assert choose_pack(spec, SHAPE, 16, 100, log=lines.append) == chosen
    assert "16 models do not fit" in lines[0]
    way = "packed" if chosen > 1 else "one by one"
    assert f"8 packed {1e3 * seconds:.2f} ms" in lines[1] and lines[1].endswith(f"chosen: {way}")


def test_measuring_times_both_ways(monkeypatch):
    spec, lines = make_spec(), []
    monkeypatch.setattr(autopack, "LEAST_SECONDS", 0.0)
    chosen = choose_pack(spec, SHAPE, 3, 10**9, log=lines.append)
    (line,) = lines
    packed, alone = map(float, re.findall(r"([\d.]+) ms", line))
    assert packed > 0 and alone > 0
    assert chosen == (3 if packed < 0.95 * alone else 1)


def test_a_short_training_is_not_measured(monkeypatch):
    lines = []
    monkeypatch.setattr(autopack.Trial, "packed", lambda self: pytest.fail("compiled for nothing"))
    assert choose_pack(make_spec(), SHAPE, 3, 1, log=lines.append) == 1
    assert "too few to measure" in lines[0]


def test_times_are_of_one_model(monkeypatch):
    clock = iter(np.cumsum([0.0] + [0.5] * 100))
    monkeypatch.setattr(autopack.time, "perf_counter", lambda: next(clock))
    # The first call of each, of .5 s, says that two are enough for a timing.
    timing = time_steps(lambda: None, lambda: 0, 4)
    assert timing.alone == pytest.approx(0.25) and timing.packed == pytest.approx(0.0625)


def test_the_option_is_a_number_or_a_word():
    assert [LoopSpec(pack=p).most_packed for p in ("off", "auto", "1", "4", 3)] == [1, 16, 1, 4, 3]
    for wrong in ("0", "fast", "-2", "", "2.5", 0, True):
        with pytest.raises(InputError, match=r"loop\.pack"):
            LoopSpec(pack=wrong)


def test_cells_of_equal_shape_are_packed_in_order():
    data = DataSpec(SourceSpec("digits"))
    first = Cell("a", Trained("uvit"), data)
    sets = [replace(data, n_train=10 + i) for i in range(3)]
    same = [Cell(f"b{i}", Trained("uvit", seed=i), own) for i, own in enumerate(sets)]
    others = [
        Cell("c", Trained("uvit", (("depth", 3),)), data),
        Cell("d", Trained("uvit", training=TrainingSpec(steps=1)), data),
        Cell("e", Imported("uvit", weights="x.safetensors"), data),
        Cell("f", ClosedForm("optimum"), data),
    ]
    cells = [others[0], first, same[0], *others[1:], *same[1:]]
    assert pack_of(first, cells, 16) == [first, *same]
    assert pack_of(first, cells, 2) == [first, same[0]]
    for other in others:
        assert pack_of(other, [*cells, other], 16) == [other]


def test_a_pack_goes_on_from_one_step_and_auto_counts_those_that_are_left(monkeypatch):
    done = {"a": 40, "b": 0, "c": 40, "d": 40}
    cells = [
        Cell(name, Trained("uvit", seed=i), DataSpec(SourceSpec("digits")))
        for i, name in enumerate(done)
    ]
    loop = LoopSpec(pack="auto")
    context = SimpleNamespace(
        study=SimpleNamespace(loop=loop),
        images=SimpleNamespace(shape=SHAPE),
        reporter=SimpleNamespace(say=print),
        files=lambda cell: SimpleNamespace(steps_done=lambda: done[cell.name]),
    )
    asked, trained = [], []

    def choose(spec, shape, k, steps, **options):
        asked.append((k, steps))
        return 2

    monkeypatch.setattr(packs, "is_trained", lambda context, cell: False)
    monkeypatch.setattr(packs, "training_step", lambda context, cell: None)
    monkeypatch.setattr(packs, "choose_pack", choose)
    packer = packs.Packer(context)
    monkeypatch.setattr(packer, "_train", lambda members, done: trained.append(members) or True)
    board = SimpleNamespace(
        cells=cells, states=dict.fromkeys(done, packs.State.OPEN), waiting=set()
    )
    for _ in range(2):
        packer.train_with(cells[0], board, set(done), lambda cell: nullcontext(), Counter())
    assert [[cell.name for cell in members] for members in trained] == 2 * [["a", "c"]]
    assert asked == [(3, cells[0].model.training.steps - 40)]  # once, also for the two it chose
