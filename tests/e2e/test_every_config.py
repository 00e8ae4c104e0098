"""Every shipped config trains and samples once its sizes are tiny.

What is kept of a config is its structure: families, kernels, parametrisations, losses, teachers,
class labels, samplers. What is cut is made equal everywhere, so that configs share programs: nearly
all of the time goes into compiling each of them once, in one process (-n 0) once for all configs.
"""

import dataclasses
import importlib.util
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from reprojax import config as rc
from reprojax.rng import root_key
from reprojax.study import stages
from reprojax.study.runner import prepare, run_study
from reprojax.training.spec import TrainingSpec

pytestmark = pytest.mark.slow  # 12 minutes: some forty programs to compile

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TRAINING = dataclasses.asdict(TrainingSpec(steps=1, batch_size=8, warmup_steps=0))
UNET = dict(width=8, num_blocks=1, attention=(4,), dropout=0.0)
NETWORKS = {
    "conv_unet": {**UNET, "attention": ()},
    "multistage": {**UNET, "boundaries": (-0.17, 0.4)},
    "uvit": dict(width=16, depth=2, num_heads=2, patch=4),
}
OPTIONS = {
    "ct": dict(first_levels=2, last_levels=4),
    "ict": dict(first_levels=2, last_levels=4),
    "cd": dict(first_levels=4, last_levels=4),
    "progressive": dict(first_steps=2, last_steps=1),
}


def names_and_scales():
    """Config to the scales of its header's commands; "official" takes folders instead."""
    for path in sorted(CONFIGS.glob("*.py")):
        command = rf"--config=configs/{path.stem}\.py(?::(\w+))?(?=\s)"
        if scales := re.findall(command, path.read_text()):
            yield path.stem, scales


def load(name, scale):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(scale)


def shrink(config):
    """Tiny data, networks and budgets; no analyses; of models that become the same, the first."""
    if config.data.source != "mixture":
        config.data.update(source="digits", dataset="", split="all", size=0, channels=0)
    config.data.update(n_train=32, n_heldout=16, fit="resize")
    config.noise.n = 4
    config.sampling.update(num_steps=2, batch_size=4)
    config.training.update(TRAINING)
    config.loop.update(eval_images=8, state_sharding="replicated")
    contents = {}
    for name, model in config.models.items():
        contents.setdefault(shrink_model(model), name)
    with config.unlocked():
        for name in set(config.models) - set(contents.values()):
            del config.models[name]
        for name in list(config.analyses):
            del config.analyses[name]


def shrink_model(model):
    """What tells it from others: not its seed, nor its number of images, nor which closed form."""
    model.n_train = None
    if "network" not in model:
        return "closed form"
    model.weights = ""
    model.network.update(NETWORKS.get(model.family, UNET))
    if "multipliers" in model.network:  # resampling takes half of the time: under one kernel only
        model.network.multipliers = (1, 2) if model.kernel == "edm" else (1,)
    model.options.update(OPTIONS.get(model.objective, {}))
    model.training.update(dict.fromkeys(TRAINING))
    if model.sampling.num_steps is not None:
        model.sampling.num_steps = 1 if model.objective in OPTIONS else 2
    return str({**model.to_dict(), "seed": 0})


@pytest.mark.parametrize(
    "name, scales", [pytest.param(*case, id=case[0]) for case in names_and_scales()]
)
def test_it_trains_and_samples(name, scales, tmp_path, monkeypatch):
    train, runs = stages.train, {}

    def spy(run, **options):
        return train(runs.setdefault(run.name, run), **options)

    monkeypatch.setattr(stages, "train", spy)
    seen = []
    for scale in scales:
        config = load(name, scale)
        rc.make_study(config)  # as it is shipped
        shrink(config)
        if config.models not in seen:  # most scales differ in size alone
            seen.append(config.models)
            runs.clear()
            prepared = prepare(rc.make_study(config))
            check(run_study(prepared, tmp_path / f"w{scale}", last="sample"), runs)


def check(context, runs):
    for cell in context.study.cells:
        images, nfe = context.samples(cell)
        assert images.shape == (4, *context.images.shape) and images.std() > 0, cell.name
        assert nfe == len(context.study.sampler_of(cell).table().sigma), cell.name
    networks = [cell for cell in context.study.cells if cell.kind != "closed_form"]
    assert list(runs) == [cell.name for cell in networks]
    for cell in networks:
        changed = training_changed(context, cell, runs[cell.name])
        assert any(changed.values()), cell.name
        labels = [path for path in changed if "label" in path]
        assert bool(labels) == (cell.model.num_classes > 0), cell.name
        assert all(changed[path] for path in labels), cell.name


def training_changed(context, cell, run):
    """Whether each parameter differs from the run's first ones; all must be finite."""
    first = run.teacher_params
    if first is None:
        first = run.spec.init(run.train.shape, root_key(run.seed)).params
    last = context.params(cell)
    finite = jax.tree.map(lambda a: np.isfinite(a).all(), last)
    assert all(jax.tree.leaves(finite)), cell.name
    changed = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != b)), first, last)
    return {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(changed)}
