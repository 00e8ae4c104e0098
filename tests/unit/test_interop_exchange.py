"""Our own format: bits survive, mistakes are named, nothing is left half-written."""

import hashlib
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from reprojax.errors import InputError
from reprojax.interop import exchange
from reprojax.interop.cli import main
from reprojax.interop.exchange import Model, export_model, read_model, write_model
from reprojax.interop.facts import ModelFacts
from reprojax.interop.mapping import Rule, apply_rules
from reprojax.models.families import FAMILIES
from reprojax.study.models import Trained
from reprojax.training.weights import load_weights, save_weights, weights_metadata

SHAPE = (8, 8, 1)
UNET = dict(width=4, multipliers=(1, 2), num_blocks=1, attention=(4,), dropout=0.2)
SMALL = {
    "unet": {**UNET, "num_classes": 3},
    "conv_unet": {**UNET, "attention": ()},
    "ddpm": UNET,
    "ncsnpp": UNET,
    "multistage": {**UNET, "boundaries": (-0.5, 0.25)},
    "uvit": dict(width=16, depth=2, num_heads=2, patch=2, mlp_ratio=2.5),
}


def make_model(family="unet", **fields):
    fields = {"kernel": "edm", "preconditioning": "edm", **fields}
    facts = ModelFacts(family, tuple(sorted(SMALL[family].items())), SHAPE, **fields)
    rng = np.random.default_rng(0)

    def draw(leaf):
        return rng.normal(size=leaf.shape).astype(np.float32)

    return Model(facts, jax.tree.map(draw, facts.shapes()))


def assert_same_bits(a, b):
    a, b = flatten_dict(a), flatten_dict(b)
    assert a.keys() == b.keys()
    assert all(a[k].dtype == np.float32 and a[k].tobytes() == b[k].tobytes() for k in a)


def test_every_family_is_tried():
    assert SMALL.keys() == FAMILIES.keys()


@pytest.mark.parametrize("family", SMALL)
def test_a_folder_reads_back_bit_for_bit(family, tmp_path):
    model = make_model(family, sigma_data=0.4, objective="edm", source={"format": "test"})
    write_model(tmp_path / "m", model)
    got = read_model(tmp_path / "m")
    assert got.facts == model.facts
    assert_same_bits(got.params, model.params)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]  # no temporary folder is left
    config = json.loads((tmp_path / "m/config.json").read_text())
    digest = hashlib.sha256((tmp_path / "m/model.safetensors").read_bytes()).hexdigest()
    assert config["sha256"] == digest and config["schema"] == 1
    assert config["parameters"] == sum(v.size for v in jax.tree.leaves(model.params))


def test_a_model_denoises_as_its_network_does():
    model = make_model("uvit")
    x, sigma = jnp.ones((2, *SHAPE)), jnp.asarray([0.5, 2.0])
    denoiser = model.denoiser()
    got = jax.jit(lambda denoise: denoise(x, sigma))(denoiser)
    c = model.facts.precondition()(sigma)

    def wide(a):
        return a[:, None, None, None]

    network = jax.jit(lambda p, x: model.facts.build().apply({"params": p}, x, c.c_noise))
    want = wide(c.c_skip) * x + wide(c.c_out) * network(model.params, wide(c.c_in) * x)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert not denoiser.is_flow_map
    flow = replace(model.facts, kind="flow_map", preconditioning="consistency")
    assert Model(flow, model.params).denoiser().is_flow_map


def test_a_study_takes_the_weights_as_its_own(tmp_path):
    """Its reader finds every parameter, and the facts that it checks are those of the cell."""
    model = make_model()
    write_model(tmp_path / "m", model)
    path = tmp_path / "m/model.safetensors"
    assert_same_bits(load_weights(path, model.facts.shapes()), model.params)
    trained = Trained("unet", model.facts.network)
    metadata, expected = weights_metadata(path), trained.weights_facts()
    assert {k: metadata[k] for k in expected} == expected
    assert metadata["network"]["multipliers"] == [1, 2]


def studys_weights(path, model, **more):
    network = {k: list(v) if isinstance(v, tuple) else v for k, v in model.facts.network}
    facts = {"name": "a_unet", "hash": "0123", "family": "unet", "kernel": "edm"}
    facts |= {"preconditioning": "edm", "sigma_data": 0.5, "network": network, **more}
    save_weights(path, model.params, facts)


def test_a_studys_weights_are_exported(tmp_path, capsys):
    model, path = make_model(), tmp_path / "weights.safetensors"
    studys_weights(path, model)
    arguments = ["export", "--weights", str(path), "--out", str(tmp_path / "m")]
    assert main(arguments) == 2
    assert "--shape" in capsys.readouterr().err
    assert main([*arguments, "--shape", "8,8,1"]) == 0
    output = capsys.readouterr().out
    assert "unet" in output and f"{model.count():,} parameters" in output
    got = read_model(tmp_path / "m")
    assert_same_bits(got.params, model.params)
    assert got.facts.source == {
        "format": "reprojax",
        "file": "weights.safetensors",
        "name": "a_unet",
        "hash": "0123",
    }
    again = export_model(tmp_path / "m/model.safetensors")  # which does say its image shape
    assert again.facts.image_shape == SHAPE
    with pytest.raises(InputError, match=r"--shape.*\[8, 8, 1\], as the file says"):
        export_model(tmp_path / "m/model.safetensors", (16, 16, 1))


def test_the_kind_of_a_flow_map_is_kept(tmp_path):
    model = make_model(kind="flow_map")
    write_model(tmp_path / "m", model)
    assert weights_metadata(tmp_path / "m/model.safetensors")["kind"] == "flow_map"
    assert read_model(tmp_path / "m").facts.kind == "flow_map"
    assert export_model(tmp_path / "m/model.safetensors").facts.kind == "flow_map"


def test_a_folder_that_is_taken_is_kept(tmp_path):
    model, other = make_model(), make_model("uvit")
    write_model(tmp_path / "m", model)
    with pytest.raises(InputError, match=r"--out.*--overwrite"):
        write_model(tmp_path / "m", other)
    assert read_model(tmp_path / "m").facts.family == "unet"
    write_model(tmp_path / "m", other, overwrite=True)
    assert read_model(tmp_path / "m").facts.family == "uvit"
    (tmp_path / "m/notes.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        write_model(tmp_path / "m", model, overwrite=True)
    assert (tmp_path / "m/notes.txt").exists()
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "m")
    for name in ("file", "link"):
        with pytest.raises(InputError, match="not a file or a link"):
            write_model(tmp_path / name, model, overwrite=True)
    (tmp_path / "empty").mkdir()
    write_model(tmp_path / "empty", model)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file", "link", "m"]


def test_a_taken_folder_is_refused_before_the_file_is_read(tmp_path, capsys):
    write_model(tmp_path / "m", make_model())
    assert main(["convert", "--from", "edm", "--in", "none", "--out", str(tmp_path / "m")]) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_half_written(error, tmp_path, monkeypatch):
    write_model(tmp_path / "old", make_model())

    def fail(path, value):
        raise error

    monkeypatch.setattr(exchange, "write_json", fail)
    for name in ("new", "old"):
        with pytest.raises((InputError, KeyboardInterrupt)):
            write_model(tmp_path / name, make_model("uvit"), overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    assert read_model(tmp_path / "old").facts.family == "unet"


CHANGES = {
    "schema": ({"schema": 2}, "schema 1"),
    "hash": ({"sha256": "0" * 64}, "sha256"),
    "family": ({"family": "unett"}, "did you mean 'unet'"),
    "kernel": ({"kernel": "edn"}, "did you mean 'edm'"),
    "preconditioning": ({"preconditioning": "x"}, "preconditioning"),
    "kind": ({"kind": "model"}, "flow_map"),
    "sigma_data": ({"sigma_data": "0.5"}, "sigma_data"),
    "shape": ({"image_shape": [8, 8]}, "image_shape"),
    "a huge shape": ({"image_shape": [1 << 20, 1 << 20, 1]}, "image_shape"),
    "another size": ({"image_shape": [9, 9, 1]}, "data.size"),
    "channels": ({"image_shape": [8, 8, 3]}, "conv_in/kernel"),
    "no network": ({"network": None}, "must describe the network"),
    "a keyword": ({"network": {"wdith": 8}}, "did you mean 'width'"),
    "a type": ({"network": {"width": "8"}}, "network.width"),
    "a list's type": ({"network": {"multipliers": [1, "2"]}}, "network.multipliers"),
    "a huge width": ({"network": {"width": 1 << 40}}, "network.width"),
    "many blocks": ({"network": {"num_blocks": 10**6}}, "network.num_blocks"),
    "another width": ({"network": {"width": 8}}, "the weights of exactly this network"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_folder_that_was_changed_is_refused(case, tmp_path):
    change, expected = CHANGES[case]
    write_model(tmp_path / "m", make_model())
    path = tmp_path / "m/config.json"
    config = json.loads(path.read_text())
    if change.get("network"):
        change = {"network": {**config["network"], **change["network"]}}
    path.write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError) as error:
        read_model(tmp_path / "m")
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_another_folder_is_refused(tmp_path):
    for text in (None, "{", "[]", "[" * 100_000):
        if text is not None:
            (tmp_path / "config.json").write_text(text)
            (tmp_path / "model.safetensors").write_bytes(b"")
        with pytest.raises(InputError, match=r"--in.*config\.json"):
            read_model(tmp_path)


LIKE = {"a": {"kernel": np.zeros((2, 3))}, "b": {"bias": np.zeros(4)}}
RULES = (Rule("a/kernel", ("x.weight",), "transposed"), Rule("b/bias", ("y.bias",)))
TENSORS = {"x.weight": np.arange(6, dtype=np.float16).reshape(3, 2), "y.bias": np.ones(4)}


def test_values_are_carried_by_rules():
    tensors = {**TENSORS, "z": np.ones(5, np.int64)}
    params, rows = apply_rules(RULES, tensors, LIKE, [("z", "counts batches")])
    np.testing.assert_array_equal(params["a"]["kernel"], TENSORS["x.weight"].T)
    assert params["a"]["kernel"].dtype == params["b"]["bias"].dtype == np.float32
    assert [(r.ours, r.theirs, r.shape, r.how) for r in rows] == [
        ("a/kernel", ("x.weight",), (2, 3), "transposed, from float16"),
        ("b/bias", ("y.bias",), (4,), "copied, from float64"),
        ("", ("z",), (5,), "counts batches"),
    ]


@pytest.mark.parametrize(
    "tensors, rules, expected",
    [
        ({"y.bias": None}, RULES, "1 missing: y.bias"),
        ({f"extra{i}": np.ones(1) for i in range(9)}, RULES, "extra3 and 5 more"),
        ({"extra": np.ones(1), "y.bias": None}, RULES, "1 missing: y.bias; 1 left over: extra"),
        ({"y.bias": np.ones(5)}, RULES, "1 of another shape: y.bias [5] for [4]"),
        ({"x.weight": np.ones((2, 3))}, RULES, "x.weight [2, 3] for [2, 3]"),
        ({"y.bias": None}, RULES[:1], "1 without a rule: b/bias"),
        ({"z": np.ones(1)}, (*RULES, Rule("c", ("z",))), "1 not in our network: c"),
        ({"\x1b[2J": np.ones(1)}, RULES, r"left over: \x1b[2J"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tensors, rules, expected):
    tensors = {k: v for k, v in {**TENSORS, **tensors}.items() if v is not None}
    with pytest.raises(InputError, match="exactly this network") as error:
        apply_rules(rules, tensors, LIKE, value="x.pkl")
    assert expected in str(error.value) and error.value.value == "x.pkl"


@pytest.mark.parametrize(
    "arguments, word",
    [
        ([], "verb"),
        (["convert", "--from", "keras", "--in", "x", "--out", "y"], "keras"),
        (["convert", "--from", "edm", "--in", "x"], "--out"),
        (["convert", "--from", "edm", "--in", "no.pkl", "--out", "y"], "No such file"),
        (["convert", "--from", "edm", "--in", "x", "--out", "y", "--heads", "2"], "--heads"),
        (["convert", "--from", "uvit", "--in", "x", "--out", "y", "--size", "8"], "--size"),
        (["convert", "--from", "msgpack", "--in", "x", "--out", "y"], "--preconditioning"),
        (["export", "--weights", "no.safetensors", "--out", "y"], "--weights"),
        (["export", "--weights", "x", "--out", "y", "--shape", "8,8"], "--shape"),
        (["export", "--weights", "x", "--out", "y", "--shape", "8,8,0"], "--shape"),
    ],
)
def test_a_mistake_is_one_line(arguments, word, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1 and word in output.err and not output.out
    assert not list(tmp_path.iterdir())


def test_weights_without_facts_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    save_weights(path, {"a": np.ones(2, np.float32)}, {})
    with pytest.raises(InputError, match="missing: family, kernel"):
        export_model(path, SHAPE)


def test_help_names_every_format(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["convert", "--help"])
    output = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(word in output for word in ("diffusers", "edm", "uvit", "msgpack", "--overwrite"))
