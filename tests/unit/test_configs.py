"""Each shipped config, at each of its scales, is a study whose networks can be built."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from reprojax import config as rc
from reprojax.errors import InputError
from reprojax.models.families import param_shapes

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHAPES = {"digits": (8, 8, 1), "cifar10": (32, 32, 3)}


def cases():
    """(config, scale) of each of the headers' commands; "official" takes folders, not a scale."""
    for path in sorted(CONFIGS.glob("*.py")):
        command = rf"--config=configs/{path.stem}\.py(?::(\w+))?(?=\s)"
        yield from ((path.stem, scale) for scale in re.findall(command, path.read_text()))


CASES = list(cases())


def load(name):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name, scale", CASES)
def test_it_is_a_study(name, scale):
    module = load(name)
    config = module.get_config(scale)
    study = rc.make_study(config)
    source = study.data.source
    shape = SHAPES.get(source.name, (source.size, source.size, source.channels or 1))
    for network in {c.network(shape) for c in study.cells if c.kind != "closed_form"}:
        assert param_shapes(network, shape)
    assert any(c.model.family == "gaussian" for c in study.cells)
    with pytest.raises(InputError, match="config scale"):
        module.get_config("no such scale")


def test_each_family_has_the_scale_of_its_paper_and_of_a_laptop():
    families = ("ddpm", "ddpmpp", "ncsnpp", "edm", "uvit", "consistency", "progressive")
    wanted = {(f, scale) for f in (*families, "multistage", "families") for scale in ("", "lab")}
    assert wanted <= set(CASES)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_its_header_says_how_to_run_it_and_what_to_expect(path):
    header = ast.get_docstring(ast.parse(path.read_text()))
    assert f"python -m reprojax.main --config=configs/{path.name}" in header
    needed = {"Cost:", "Expect:"} | (set() if path.stem in ("quickstart", "toy") else {"Data:"})
    assert needed <= {line.split(" ")[0] for line in header.splitlines()}
    assert path.stem in {name for name, _ in CASES} | {"official"}


def test_models_inherit_the_budget_and_may_differ():
    config = rc.default_config("x")
    config.training.steps = 7
    rc.add_models(
        config,
        z=rc.network_model("unet", training=dict(learning_rate=0.5), n_train=3, part="A"),
        a=rc.closed_form("gaussian"),
    )
    z, a = rc.make_study(config).cells
    assert (z.name, a.name) == ("z", "a")  # the order in which they were added
    assert z.model.training.steps == 7 and z.model.training.learning_rate == 0.5
    assert z.data.n_train == 3 and z.data.part == "A" and a.data.part == "all"


def test_identity_follows_content_only():
    def study(**change):
        config = rc.default_config("x")
        rc.add_models(config, m=rc.network_model("unet", **change))
        return rc.make_study(config).cells[0].hash("data")

    same = study()
    assert same == study(part="all") and len(same) == 16
    changes = [dict(seed=1), dict(kernel="ve"), dict(training=dict(steps=5)), dict(sigma_data=0.4)]
    hashes = {study(**change) for change in changes}
    assert len(hashes) == 4 and same not in hashes
