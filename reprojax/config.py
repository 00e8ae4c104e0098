"""The schema of config files: the fields, their defaults, and the study that a config describes.

A config file has a function ``get_config(scale="")`` that starts from `default_config` and adds
models, e.g. those of `network_model` and `closed_form`. Every field can be changed on the command
line: ``--config.models.unet.network.width=16``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from reprojax.analyses.table import ANALYSES, make_analysis
from reprojax.data.source import SourceSpec
from reprojax.data.subset import DataSpec
from reprojax.diffusion.grids import GridSpec
from reprojax.diffusion.kernels import make_kernel
from reprojax.diffusion.losses.table import is_flow_map, objective_options
from reprojax.errors import InputError, choices, require_choice
from reprojax.interop.exchange import WEIGHTS, read_model
from reprojax.models.contrast import contrast_options
from reprojax.models.families import network_defaults
from reprojax.sampling.flow import SamplerSpec
from reprojax.sampling.noise import NoiseSpec
from reprojax.scoring.calibration import ScoringSpec
from reprojax.study.cells import Cell
from reprojax.study.models import ClosedForm, Contrast, External, Imported, Model, Trained
from reprojax.study.study import Study
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


def _fields(kind: type, leave_out: Iterable[str] = ()) -> dict[str, Any]:
    """Returns the defaults of a dataclass, of those fields that have a plain default."""
    return {
        f.name: f.default
        for f in dataclasses.fields(kind)
        if f.name not in leave_out and f.default is not dataclasses.MISSING
    }


def default_config(name: str) -> ConfigDict:
    """Returns a config with all defaults and no models.

    Args:
        name: The name of the study. The default workdir is ``runs/<name>``.

    Returns:
        A locked ConfigDict with the sections data, noise, sampling, scoring, training (the budget
        that every model inherits), loop, report, analyses and models. The error for a missing data
        set ends with its ``hint``.
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
            "scoring": _fields(ScoringSpec) | {"threshold": placeholder(float)},
            "training": _fields(TrainingSpec),
            "loop": _fields(LoopSpec),
            "report": {"title": ""},
            "analyses": ConfigDict(sort_keys=False),
            "models": ConfigDict(sort_keys=False),
        }
    )
    return config.lock()


def _sampling_fields() -> dict[str, Any]:
    """Returns the defaults of the sampler and of its grid in one section."""
    sampling = _fields(SamplerSpec) | {"grid": GridSpec.name, "kernel": "edm"}
    return sampling | _fields(GridSpec, leave_out=("name",))


def _unset(fields: dict[str, Any]) -> ConfigDict:
    """Returns a section of empty fields, each of which may override the study's field."""
    return ConfigDict({name: placeholder(type(value)) for name, value in fields.items()})


def network_model(family: str, **fields: Any) -> ConfigDict:
    """Returns the section of a trained model.

    Args:
        family: The name of the network family.
        **fields: Fields of `Trained` (kernel, preconditioning, objective, teacher, seed,
            sigma_data); ``weights``, a safetensors file to use instead of training; ``n_train`` and
            ``part``, if they differ from the study's; and dicts of changes: ``network`` (to the
            family's defaults), ``options`` (to the objective's defaults), ``training`` and
            ``sampling`` (to the study's, where flow maps are sampled in one step by default).

    Returns:
        A locked ConfigDict.
    """
    objective = fields.get("objective", Trained.objective)
    model = ConfigDict(
        {
            **_fields(Trained, leave_out=("network", "training", "options")),
            "weights": "",
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
    """Returns the section of a network in a folder that ``python -m reprojax.interop`` wrote.

    Args:
        folder: The path of the folder, with model.safetensors and config.json.
        **fields: Other fields of `network_model`, e.g. ``sampling``.

    Raises:
        InputError: The folder has no such files, or its weights do not fit its config.json.
    """
    facts = read_model(folder, "models").facts
    # The objective of an imported model matters only in that it may be one of flow maps.
    default = "cd" if facts.kind == "flow_map" else Trained.objective
    return network_model(
        facts.family,
        kernel=facts.kernel,
        preconditioning=facts.preconditioning,
        objective=facts.objective or default,
        sigma_data=facts.sigma_data,
        network=dict(facts.network),
        weights=str(Path(folder) / WEIGHTS),
        **fields,
    )


def closed_form(family: str, **fields: Any) -> ConfigDict:
    """Returns the section of a closed-form denoiser.

    Args:
        family: "optimum", "gaussian" or "population".
        **fields: ``n_train`` and ``part``, if they differ from the study's.
    """
    return _section({"family": family}, fields)


def external_model(path: str, **fields: Any) -> ConfigDict:
    """Returns the section of a model that is given by its samples, row i from noise i.

    Args:
        path: The path of an ``.npz`` with ``images``, a folder of images or a zip of one.
        **fields: ``n_train`` and ``part`` of the images that the model was trained on, if they
            differ from the study's.
    """
    return _section({"path": str(path)}, fields)


def contrast_model(family: str, **fields: Any) -> ConfigDict:
    """Returns the section of a generator that is not a diffusion model, for contrast.

    Args:
        family: The name of the family, a key of `CONTRAST_FAMILIES`.
        **fields: ``seed``, ``options`` (a dict of changes to the family's defaults), ``n_train``
            and ``part``.
    """
    options = ConfigDict(contrast_options(family))
    return _section({"contrast": family, "seed": 0, "options": options}, fields)


def _section(section: dict[str, Any], fields: Mapping[str, Any]) -> ConfigDict:
    """Returns a model's section with the fields ``n_train`` and ``part``, both empty by default."""
    data = {"n_train": placeholder(int), "part": placeholder(str)}
    model = ConfigDict(section | data).lock()
    model.update(fields)
    return model


def add_models(config: ConfigDict, **models: ConfigDict) -> None:
    """Adds models to a config under their names, in this order."""
    with config.unlocked():
        for name, model in models.items():
            config.models[name] = model


def add_analysis(config: ConfigDict, name: str, **fields: Any) -> None:
    """Adds an analysis to a config.

    Args:
        config: The config, which is changed in place.
        name: The name of the analysis, a key of `ANALYSES`.
        **fields: Fields of its settings, with ``cells`` at least.
    """
    require_choice("analyses", name, ANALYSES)
    section = ConfigDict(_fields(ANALYSES[name].settings)).lock()
    section.update(fields)
    with config.unlocked():
        config.analyses[name] = section


def use_cifar10(config: ConfigDict, lab: str) -> None:
    """Sets CIFAR-10's 60,000 images, 10,000 of them held out, and 10,000 noises.

    Args:
        config: The config, which is changed in place.
        lab: A config that runs without CIFAR-10, for the hint, e.g. ``configs/uvit.py:lab``.
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
    """Sets Fashion-MNIST, 70,000 images in all, averaged to a laptop's scale.

    Args:
        config: The config, which is changed in place.
        size: The side of the images in pixels.
        n_train: The number of training images.
        n_heldout: The number of held-out images.
    """
    config.data.update(source="fashion_mnist", split="all", size=size)
    config.data.update(n_train=n_train, n_heldout=n_heldout)
    config.hint = "apt-get install dataset-fashion-mnist, or try configs/quickstart.py"


def use_baselines(config: ConfigDict) -> None:
    """Adds the two closed forms, under the names "optimum" and "gaussian"."""
    add_models(config, optimum=closed_form("optimum"), gaussian=closed_form("gaussian"))


def require_scale(scale: str, allowed: Iterable[str]) -> None:
    """Raises InputError unless a config file has a scale.

    Args:
        scale: The argument after the file's name (``lab`` in ``configs/uvit.py:lab``), or "".
        allowed: The names of the file's scales.
    """
    if scale not in ("", *allowed):
        raise InputError("config scale", scale, choices(allowed, scale))


def _make(kind: type, section: Mapping[str, Any], **more: Any) -> Any:
    """Makes a dataclass from a section, whose other fields are ignored, and from ``more``."""
    names = {f.name for f in dataclasses.fields(kind)}
    values = {k: v for k, v in section.items() if k in names and k not in more}
    return kind(**values, **more)


def _cell(name: str, model: ConfigDict, config: ConfigDict, data: DataSpec) -> Cell:
    own = {k: model[k] for k in ("n_train", "part") if model[k] is not None}
    sampler = {k: v for k, v in model.get("sampling", {}).items() if v is not None}
    return Cell(
        name=name,
        model=_model(name, model, config),
        data=dataclasses.replace(data, **own),
        sampler=_sampler({**config.sampling, **sampler}) if sampler else None,
    )


def _model(name: str, model: ConfigDict, config: ConfigDict) -> Model:
    """Returns the model that a section describes."""
    if "path" in model:
        return External(model.path, f"models.{name}.path")
    if "contrast" in model:
        return Contrast(model.contrast, _pairs(model.options), model.seed)
    if "network" not in model:
        return ClosedForm(model.family)
    network = _pairs(model.network)
    if model.weights:
        return _make(Imported, model, network=network)
    budget = config.training.to_dict()
    budget |= {k: v for k, v in model.training.items() if v is not None}
    return _make(
        Trained,
        model,
        network=network,
        options=_pairs(model.options),
        training=TrainingSpec(**budget),
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
    """Makes the study that a config describes, and checks every field.

    Raises:
        InputError: A field is out of range. The error names it as the config does.
    """
    require_choice("mode", config.mode, MODES)
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
    """Calls ``fn``, with ``prefix`` before the field of any InputError."""
    try:
        return fn(*args)
    except InputError as error:
        raise error.under(prefix) from error
