"""The schema of a config file: its fields, their defaults, and its way to a checked study.

A config file has ``get_config(scale="")`` that starts from `default_config` and puts models in with
`network_model` and `closed_form`. Every field can be changed on the command line:
``--config.models.unet.network.width=16``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from reprojax.data.source import SourceSpec
from reprojax.diffusion.grids import GridSpec
from reprojax.diffusion.kernels import make_kernel
from reprojax.diffusion.losses.table import is_flow_map, objective_options
from reprojax.errors import InputError, choices, require_choice
from reprojax.interop.exchange import WEIGHTS, read_model
from reprojax.models.families import network_defaults
from reprojax.sampling.flow import SamplerSpec
from reprojax.study.analyses.specs import ANALYSES, make_analysis
from reprojax.study.cells import Cell, DataSpec, NoiseSpec, ScoringSpec, Study
from reprojax.training.spec import LoopSpec, TrainingSpec

# The U-Net of the :lab scale, 16x16.
LAB_UNET = dict(width=16, multipliers=(1, 2), num_blocks=1, attention=(8,), dropout=0.0)
# EDM's budget on CIFAR-10: 200 M images (arXiv 2206.00364).
EDM_BUDGET = dict(
    steps=390_625,
    batch_size=512,
    learning_rate=1e-3,
    warmup_steps=19_531,
    decay="none",
    grad_clip=0.0,
    ema_halflife_images=500_000.0,
)
MODES = ("study", "train", "sample", "score", "report")


def _fields(spec: type, leave_out: Iterable[str] = ()) -> dict[str, Any]:
    """The default of every plain field of a frozen dataclass."""
    return {
        f.name: f.default
        for f in dataclasses.fields(spec)
        if f.name not in leave_out and f.default is not dataclasses.MISSING
    }


def default_config(name: str) -> ConfigDict:
    """The schema with its defaults and no models.

    Args:
        name: of the study; its workdir is ``runs/<name>`` unless given.

    Returns:
        A locked ConfigDict with the sections data, noise, sampling, scoring, training (the budget
        that every model inherits), loop, report, analyses and models; ``hint`` is said to a user
        whose data set is missing.
    """
    data = _fields(SourceSpec) | {"source": "digits"} | _fields(DataSpec)
    sampling = _sampling_fields()
    config = ConfigDict(
        {
            "name": name,
            "mode": "study",
            "hint": "",
            "data": data,
            "noise": _fields(NoiseSpec),
            "sampling": sampling,
            "scoring": _fields(ScoringSpec),
            "training": _fields(TrainingSpec),
            "loop": _fields(LoopSpec),
            "report": {"title": ""},
            "analyses": ConfigDict(sort_keys=False),
            "models": ConfigDict(sort_keys=False),
        }
    )
    return config.lock()


def _sampling_fields() -> dict[str, Any]:
    """The sampler's fields and its grid's, side by side."""
    sampling = _fields(SamplerSpec) | {"grid": GridSpec.name, "kernel": "edm"}
    return sampling | _fields(GridSpec, leave_out=("name",))


def _unset(fields: dict[str, Any]) -> ConfigDict:
    """A section where every field may override one of the study's."""
    return ConfigDict({name: placeholder(type(value)) for name, value in fields.items()})


def network_model(family: str, **fields: Any) -> ConfigDict:
    """One trained model.

    Args:
        family: a network family.
        **fields: of `Cell` (kernel, preconditioning, objective, teacher, seed, weights,
            sigma_data), or n_train and part where they differ from the study's, or dicts of what
            differs from a default: ``network`` (the family's), ``options`` (the objective's),
            ``training`` and ``sampling`` (the study's; a flow map's is one step unless given).

    Returns:
        A locked ConfigDict.
    """
    objective = fields.get("objective", Cell.objective)
    model = ConfigDict(
        {
            **_fields(Cell, leave_out=("network", "training", "sampler")),
            "family": family,
            "network": ConfigDict(network_defaults(family)),
            "options": ConfigDict(objective_options(objective)),
            "training": _unset(_fields(TrainingSpec)),
            "sampling": _unset(_sampling_fields()),
            "n_train": placeholder(int),
            "part": placeholder(str),
        }
    ).lock()
    if is_flow_map(objective):
        model.sampling.update(solver="consistency", num_steps=1, end="sigma_min")
    model.update(fields)
    return model


def imported_model(folder: str, **fields: Any) -> ConfigDict:
    """A network in a folder that ``python -m reprojax.interop`` wrote, as a model.

    Args:
        folder: with model.safetensors and config.json.
        **fields: as of `network_model`, e.g. ``sampling``.

    Raises:
        InputError: it is no such folder, or its weights are not those it describes.
    """
    facts = read_model(folder, "models").facts
    # Of an imported model only the kind of its objective matters: whether it is a flow map.
    unknown = "cd" if facts.kind == "flow_map" else Cell.objective
    return network_model(
        facts.family,
        kernel=facts.kernel,
        preconditioning=facts.preconditioning,
        objective=facts.objective or unknown,
        sigma_data=facts.sigma_data,
        network=dict(facts.network),
        weights=str(Path(folder) / WEIGHTS),
        **fields,
    )


def closed_form(family: str, **fields: Any) -> ConfigDict:
    """One closed-form denoiser ("optimum", "gaussian", "population"); fields: n_train or part."""
    model = ConfigDict(
        {"family": family, "n_train": placeholder(int), "part": placeholder(str)}
    ).lock()
    model.update(fields)
    return model


def add_models(config: ConfigDict, **models: ConfigDict) -> None:
    """Puts models into a config under their names, in order."""
    with config.unlocked():
        for name, model in models.items():
            config.models[name] = model


def add_analysis(config: ConfigDict, name: str, **fields: Any) -> None:
    """Asks for an analysis after the scores.

    Args:
        config: changed in place.
        name: a key of `ANALYSES`.
        **fields: of its settings; ``cells`` at least.
    """
    require_choice("analyses", name, ANALYSES)
    section = ConfigDict(_fields(ANALYSES[name])).lock()
    section.update(fields)
    with config.unlocked():
        config.analyses[name] = section


def use_cifar10(config: ConfigDict, lab: str) -> None:
    """CIFAR-10's 60,000 images, 10,000 of them held out, and 10,000 noises.

    Args:
        config: changed in place.
        lab: what a user without CIFAR-10 can run, e.g. ``configs/uvit.py:lab``.
    """
    config.data.update(source="cifar10", split="all", n_train=50_000, n_heldout=10_000)
    config.noise.n = 10_000
    config.sampling.batch_size = 512
    config.training.update(batch_size=128, dtype="bfloat16", flip=True)
    config.loop.update(checkpoint_every=10_000, eval_every=10_000, log_every=100)
    config.hint = f"without CIFAR-10: python -m reprojax.main --config={lab}"


def use_fashion_lab(
    config: ConfigDict, size: int = 16, n_train: int = 60_000, n_heldout: int = 10_000
) -> None:
    """Fashion-MNIST averaged to a laptop's scale.

    Args:
        config: changed in place.
        size: side in pixels.
        n_train: training images.
        n_heldout: held-out images; of 70,000 in all.
    """
    config.data.update(source="fashion_mnist", split="all", size=size)
    config.data.update(n_train=n_train, n_heldout=n_heldout)
    config.hint = "apt-get install dataset-fashion-mnist, or try configs/quickstart.py"


def use_baselines(config: ConfigDict) -> None:
    """Adds the two closed forms, under the names "optimum" and "gaussian"."""
    add_models(config, optimum=closed_form("optimum"), gaussian=closed_form("gaussian"))


def require_scale(scale: str, allowed: Iterable[str]) -> None:
    """Checks the argument after the config file's name (``configs/uvit.py:lab``).

    Raises:
        InputError: the file has no such scale.
    """
    if scale not in ("", *allowed):
        raise InputError("config scale", scale, choices(allowed, scale))


def _make(spec: type, section: Mapping[str, Any], **more: Any) -> Any:
    """Fills a dataclass from the fields of a section that it has."""
    names = {f.name for f in dataclasses.fields(spec)}
    values = {k: v for k, v in section.items() if k in names and k not in more}
    return spec(**values, **more)


def _cell(name: str, model: ConfigDict, config: ConfigDict, data: DataSpec) -> Cell:
    own = {k: model[k] for k in ("n_train", "part") if model[k] is not None}
    data = dataclasses.replace(data, **own)
    if "network" not in model:
        return Cell(name=name, family=model.family, data=data)
    budget = config.training.to_dict()
    budget |= {k: v for k, v in model.training.items() if v is not None}
    own = {k: v for k, v in model.sampling.items() if v is not None}
    return _make(
        Cell,
        model,
        name=name,
        data=data,
        network=_pairs(model.network),
        options=_pairs(model.options),
        training=TrainingSpec(**budget),
        sampler=_sampler({**config.sampling, **own}) if own else None,
    )


def _pairs(section: ConfigDict) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((k, _frozen(v)) for k, v in section.items()))


def _sampler(section: Mapping[str, Any]) -> SamplerSpec:
    kernel = _checked("sampling.", make_kernel, section["kernel"])
    grid = _make(GridSpec, section, name=section["grid"])
    return _make(SamplerSpec, section, grid=grid, kernel=kernel)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def make_study(config: ConfigDict) -> Study:
    """Turns a config into a study of frozen dataclasses, checking each field.

    Raises:
        InputError: naming the field as it is written in the config.
    """
    if config.mode not in MODES:
        raise InputError("mode", config.mode, choices(MODES, config.mode))
    source = _make(SourceSpec, config.data, name=config.data.source)
    data = _make(DataSpec, config.data, source=source)
    sampler = _sampler(config.sampling)
    TrainingSpec(**config.training)
    cells = [
        _checked(f"models.{name}.", _cell, name, model, config, data)
        for name, model in config.models.items()
    ]
    return Study(
        name=config.name,
        data=data,
        cells=tuple(cells),
        noise=_make(NoiseSpec, config.noise),
        sampler=sampler,
        scoring=_make(ScoringSpec, config.scoring),
        loop=_make(LoopSpec, config.loop),
        analyses=tuple((k, make_analysis(k, v.to_dict())) for k, v in config.analyses.items()),
    )


def _checked(prefix: str, fn, *args: Any) -> Any:
    """Calls ``fn``, prefixing the field of an InputError."""
    try:
        return fn(*args)
    except InputError as error:
        raise error.under(prefix) from error
