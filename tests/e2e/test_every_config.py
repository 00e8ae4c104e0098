"""Every shipped config, at each of its scales, trains and samples once its sizes are tiny.

What is kept of a config is its structure: families, kernels, parametrisations, losses, teachers,
class labels, samplers. What is cut is made equal everywhere, so that the configs share programs and
most of the time goes into compiling each of them once.
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

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TRAINING = dataclasses.asdict(TrainingSpec(steps=1, batch_size=8, warmup_steps=0))
UNET = dict(width=8, multipliers=(1, 2), num_blocks=1, attention=(4,), dropout=0.0)
NETWORKS = {
    "conv_unet": {**UNET, "attention": ()},
    "uvit": dict(width=16, depth=2, num_heads=2, patch=2),
}
OPTIONS = {
    "ct": dict(first_levels=2, last_levels=4),
    "ict": dict(first_levels=2, last_levels=4),
    "cd": dict(first_levels=4, last_levels=4),
    "progressive": dict(first_steps=2, last_steps=1),
}
STEPS = {"ct": 1, "ict": 1, "cd": 1, "progressive": 1}  # of sampling, 2 for all others


def cases():
    """(config, scale) of each of the headers' commands; "official" takes folders, not a scale."""
    for path in sorted(CONFIGS.glob("*.py")):
        command = rf"--config=configs/{path.stem}\.py(?::(\w+))?(?=\s)"
        yield from ((path.stem, scale) for scale in re.findall(command, path.read_text()))


def load(name, scale):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(scale)


def shrink(config):
    """Tiny data, networks and budgets; one closed form; no analyses."""
    if config.data.source != "mixture":
        config.data.update(source="digits", dataset="", split="all", size=0, channels=0)
    config.data.update(n_train=32, n_heldout=16, fit="resize")
    config.noise.n = 4
    config.sampling.update(num_steps=2, batch_size=4)
    config.training.update(TRAINING)
    config.loop.update(eval_images=8, state_sharding="replicated")
    closed = [name for name, model in config.models.items() if "network" not in model]
    with config.unlocked():
        for name in closed[1:]:
            del config.models[name]
        for name in list(config.analyses):
            del config.analyses[name]
    for model in config.models.values():
        model.n_train = min(model.n_train, 32) if model.n_train else None
        if "network" in model:
            shrink_model(model)


def shrink_model(model):
    model.weights = ""
    model.network.update(NETWORKS.get(model.family, UNET))
    model.options.update(OPTIONS.get(model.objective, {}))
    model.training.update(dict.fromkeys(TRAINING))
    if model.sampling.num_steps is not None:
        model.sampling.num_steps = STEPS.get(model.objective, 2)


@pytest.mark.parametrize("name, scale", cases())
def test_it_trains_and_samples(name, scale, tmp_path, monkeypatch):
    config = load(name, scale)
    rc.make_study(config)  # as it is shipped
    shrink(config)
    train, runs = stages.train, {}
    spy = lambda run, **k: train(runs.setdefault(run.name, run), **k)  # noqa: E731
    monkeypatch.setattr(stages, "train", spy)
    context = run_study(prepare(rc.make_study(config)), tmp_path / "w", last="sample")
    for cell in context.study.cells:
        images, nfe = stages.read_samples(context, cell)
        assert images.shape == (4, *context.images.shape) and images.std() > 0, cell.name
        assert nfe == len(context.study.sampler_of(cell).table().sigma), cell.name
    networks = [cell for cell in context.study.cells if cell.kind != "closed_form"]
    assert set(runs) == {cell.name for cell in networks}
    for cell in networks:
        changed = training_changed(context, cell, runs[cell.name])
        assert any(changed.values()), cell.name
        labels = [path for path in changed if "label" in path]
        assert bool(labels) == (cell.num_classes > 0), cell.name
        assert all(changed[path] for path in labels), cell.name


def training_changed(context, cell, run):
    """Whether each parameter differs from the run's first ones; all are finite."""
    first = run.teacher_params
    if first is None:
        first = run.spec.init(run.train.shape, root_key(run.seed)).params
    last = stages.cell_params(context, cell)
    finite = jax.tree.map(lambda a: np.isfinite(a).all(), last)
    assert all(jax.tree.leaves(finite)), cell.name
    changed = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != b)), first, last)
    return {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(changed)}
