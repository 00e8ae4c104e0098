"""Models that start from a teacher, flow maps and models with samplers of their own, as cells."""

import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reprojax import config as rc
from reprojax.analyses.table import ANALYSES
from reprojax.denoisers.network import NetworkDenoiser
from reprojax.diffusion.losses.table import make_objective
from reprojax.diffusion.preconditioning import Preconditioning
from reprojax.errors import InputError
from reprojax.interop.exchange import Model, write_model
from reprojax.interop.facts import ModelFacts
from reprojax.models.families import build_network, init_params
from reprojax.rng import root_key
from reprojax.runtime.mesh import make_mesh
from reprojax.study.runner import prepare, run_study
from reprojax.training.spec import TrainingSpec
from reprojax.training.step import StepSpec, train_step
from reprojax.training.weights import to_host, weights_metadata

NETWORK = dict(width=16, depth=2, num_heads=2, patch=4)  # a U-ViT compiles fastest
SHAPE = (8, 8, 1)


def make_config(**models):
    config = rc.default_config("students")
    config.data.update(n_train=40, n_heldout=10)
    config.noise.n = 6
    config.sampling.update(num_steps=2, batch_size=4)
    config.training.update(steps=4, batch_size=8, warmup_steps=1)
    rc.add_models(config, teacher=rc.network_model("uvit", network=NETWORK), **models)
    return config


def student(objective="cd", **fields):
    flow_map = objective != "progressive"
    fields = dict(teacher="teacher", network=NETWORK) | fields
    if not flow_map:
        few = dict(solver="ddim", num_steps=1, end="sigma_min")
        fields = dict(options=dict(first_steps=2, last_steps=1), sampling=few) | fields
    else:
        fields = dict(preconditioning="consistency") | fields
    return rc.network_model("uvit", objective=objective, **fields)


def flat(params):
    return np.concatenate([np.ravel(a) for a in jax.tree.leaves(params)])


def test_students_flow_maps_and_class_models_run_to_their_scores(tmp_path):
    config = make_config(
        cd=student("cd"),
        progressive=student("progressive"),
        ict=student("ict", teacher="", seed=1, options=dict(last_levels=40)),
        two_steps=student("cd", sampling=dict(num_steps=2)),
        classes=rc.network_model("uvit", network=NETWORK | dict(num_classes=10)),
    )
    prepared = prepare(rc.make_study(config))
    assert prepared.hashes["cd"] == prepared.hashes["two_steps"]  # the sampler is not the model
    context = run_study(prepared, tmp_path / "run", last="score")
    cells = {cell.name: cell for cell in prepared.study.cells}
    nfe = {name: context.samples(cell)[1] for name, cell in cells.items()}
    assert nfe == {"teacher": 3, "cd": 1, "progressive": 1, "ict": 1, "two_steps": 2, "classes": 3}
    one, two = (context.samples(cells[name])[0] for name in ("cd", "two_steps"))
    assert one.shape == (6, *SHAPE) and (one != two).any()
    for name in ("cd", "progressive"):
        path = context.files(cells[name]).weights
        assert weights_metadata(path).get("kind") == ("flow_map" if name == "cd" else None)
    teacher, cd = (flat(context.params(cells[name])) for name in ("teacher", "cd"))
    # Four steps from its teacher a student is near it; from a start of its own it is not.
    ict = flat(context.params(cells["ict"]))
    assert 0 < np.abs(cd - teacher).max() < 0.1 * np.abs(ict - teacher).max()

    # The exported flow map can be imported as weights, and only as a flow map.
    weights = context.files(cells["cd"]).weights
    imported = make_config(cd=student("cd", teacher="", weights=str(weights)))
    again = run_study(prepare(rc.make_study(imported)), tmp_path / "imported", last="sample")
    np.testing.assert_array_equal(again.samples(again.study.cell("cd"))[0], one)
    wrong = make_config(cd=rc.network_model("uvit", network=NETWORK, weights=str(weights)))
    with pytest.raises(InputError, match=r"models.cd.weights.*'consistency'"):
        prepare(rc.make_study(wrong))


def test_labels_of_the_noises_go_round_the_classes():
    config = make_config(c=rc.network_model("uvit", network=NETWORK | dict(num_classes=3)))
    config.data.source, config.data.dataset = "mixture", "3x2"  # its labels are three components
    prepared = prepare(rc.make_study(config))
    assert prepared.banks.conditions.values.tolist() == [0, 1, 2, 0, 1, 2]
    assert prepare(rc.make_study(make_config())).banks.conditions is None


def test_conditional_models_of_a_study_have_the_same_classes():
    models = {
        name: rc.network_model("uvit", network=NETWORK | dict(num_classes=n))
        for name, n in (("a", 10), ("b", 11))
    }
    with pytest.raises(InputError, match=r"models.b.network.num_classes=11: must be 10, as 'a'"):
        rc.make_study(make_config(**models))


def test_labels_beyond_the_classes_are_refused():
    config = make_config(c=rc.network_model("uvit", network=NETWORK | dict(num_classes=3)))
    with pytest.raises(InputError, match=r"models.c.network.num_classes=3: .*9"):
        prepare(rc.make_study(config))


@pytest.mark.parametrize(
    "model, message",
    [
        (lambda: student(teacher=""), "models.s.teacher='': .*'cd'"),
        (
            lambda: student(teacher="teached"),
            "models.s.teacher='teached': .* did you mean 'teacher'",
        ),
        (
            lambda: student(network=NETWORK | dict(width=32)),
            "models.s.teacher='teacher': .*network",
        ),
        (
            lambda: student(
                "progressive", sampling=dict(solver="ddim", end="sigma_min", num_steps=2)
            ),
            "models.s.sampling.num_steps=2: .*must be 1",
        ),
        (
            lambda: student("progressive", sampling=dict(num_steps=1)),
            "models.s.sampling.solver='heun': .*must be .?ddim",
        ),
        (
            lambda: student("progressive", kernel="vp"),
            "models.s.teacher='teacher': .*preconditioning",
        ),
        (lambda: student(kernel="vp"), "models.s.kernel=.*'edm'"),
        (lambda: student(sampling=dict(solver="heun")), "models.s.sampling.solver='heun': "),
        (lambda: student(sampling=dict(end="zero")), "models.s.sampling.end='zero': "),
        (lambda: student(sampling=dict(num_steps=0)), "models.s.sampling.num_steps=0: "),
        (lambda: student(options=dict(first_levels=0)), "models.s.options.first_levels=0: "),
        (
            lambda: rc.network_model("uvit", network=NETWORK, sampling=dict(solver="consistency")),
            "models.s.sampling",
        ),
    ],
)
def test_bad_students_are_named(model, message):
    with pytest.raises(InputError, match=message):
        rc.make_study(make_config(s=model()))


def test_a_students_identity_has_its_teacher_and_its_options():
    def hash_of(config):
        return prepare(rc.make_study(config)).hashes["s"]

    other_teacher = make_config(s=student())
    other_teacher.models.teacher.seed = 3
    configs = [
        make_config(s=student()),
        other_teacher,
        make_config(s=student(options=dict(first_levels=20, last_levels=20))),
        make_config(s=student("ct")),
    ]
    assert len({hash_of(config) for config in configs}) == 4


def test_a_new_stage_takes_the_average_as_teacher_and_student():
    module = build_network("uvit", SHAPE, NETWORK)
    edm = Preconditioning()
    loss = make_objective("progressive", edm.kernel, 0.5, 6, dict(first_steps=4, last_steps=1))
    training = TrainingSpec(steps=6, batch_size=8, warmup_steps=1, ema_halflife_images=20.0)
    mesh = make_mesh(jax.devices()[:1])
    spec = StepSpec(module, edm, loss, training, mesh, teacher_precondition=edm)
    images = np.random.default_rng(0).integers(0, 255, (8, *SHAPE), np.uint8)
    state = spec.init(SHAPE, root_key(0))
    state = spec.adopt(state, state.params)
    first = flat(state.teacher_params)
    teachers, averages = [], []
    for _ in range(6):
        averages.append(flat(state.ema_params))
        state, _ = train_step(state, images, None, root_key(0), spec=spec)
        teachers.append(flat(state.teacher_params))
    # Three stages of two steps: the teacher is new in steps 2 and 4 (from 0), and only there.
    np.testing.assert_array_equal(teachers[0], first)
    np.testing.assert_array_equal(teachers[1], first)
    np.testing.assert_array_equal(teachers[2], averages[2])
    np.testing.assert_array_equal(teachers[3], averages[2])
    np.testing.assert_array_equal(teachers[4], averages[4])
    assert (averages[2] != first).any()


def test_a_network_that_starts_from_another_does_not_share_its_buffers():
    module = build_network("uvit", SHAPE, NETWORK)
    loss = make_objective("ict", Preconditioning().kernel, 0.5, 6, {})
    precondition = Preconditioning("consistency")
    spec = StepSpec(module, precondition, loss, TrainingSpec(steps=6), make_mesh(jax.devices()[:1]))
    state = spec.init(SHAPE, root_key(0))
    teacher = jax.tree.map(lambda a: jnp.asarray(a) + 0.1, state.params)
    before = flat(teacher)
    state = spec.adopt(state, teacher)
    assert state.teacher_params is None
    images = np.zeros((4, *SHAPE), np.uint8)
    train_step(state, images, None, root_key(0), spec=spec)
    np.testing.assert_array_equal(flat(teacher), before)  # donated buffers would be gone
    NetworkDenoiser(teacher, module, precondition)(jnp.zeros((1, *SHAPE)), jnp.ones(1))


def test_an_analysis_of_the_equation_takes_no_flow_map():
    config = make_config(cd=student())
    rc.add_analysis(config, "solvers", cells=("teacher", "cd"))
    with pytest.raises(InputError, match=r"analyses.solvers.cells='cd': .*flow map"):
        prepare(rc.make_study(config), ANALYSES)


def test_official_networks_are_cells_beside_others(tmp_path, repo_root):
    module = build_network("uvit", SHAPE, NETWORK)
    params = to_host(init_params(module, SHAPE, root_key(0)))
    for kind, preconditioning in (("network", "vp_eps"), ("flow_map", "consistency")):
        kernel = "edm" if kind == "flow_map" else "vp"
        facts = ModelFacts(
            "uvit", tuple(sorted(NETWORK.items())), SHAPE, kernel, preconditioning, kind=kind
        )
        write_model(tmp_path / kind, Model(facts, params))
    path = repo_root / "configs" / "official.py"
    official = runpy.run_path(str(path))["get_config"]
    config = official(f"theirs={tmp_path / 'network'},map={tmp_path / 'flow_map'}")
    config.data.update(source="digits", split="all", n_train=40, n_heldout=10)
    config.noise.n = 4
    config.sampling.update(num_steps=2)
    context = run_study(prepare(rc.make_study(config)), tmp_path / "run", last="score")
    theirs, one_step, _ = context.study.cells
    assert (theirs.model.kernel, theirs.kind, one_step.kind) == ("vp", "network", "flow_map")
    np.testing.assert_array_equal(flat(context.params(theirs)), flat(params))
    assert context.samples(theirs)[1] == 3 and context.samples(one_step)[1] == 1
    for argument, message in (
        ("", "config argument.*NAME=FOLDER"),
        (f"theirs={tmp_path}", "models.*readable config.json"),
    ):
        with pytest.raises(InputError, match=message):
            official(argument)
