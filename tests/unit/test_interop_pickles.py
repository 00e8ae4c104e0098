"""Pickles of networks: weights come out bit for bit, and nothing in a hostile file runs."""

import copyreg
import io
import pickle
import struct
import subprocess
import sys
import types
import zipfile

import ml_dtypes
import numpy as np
import pytest

from reprojax.errors import InputError
from reprojax.interop import machine
from reprojax.interop.cli import main
from reprojax.interop.machine import Inert
from reprojax.interop.unpickle import read_pickle

TORCH = ("torch._utils", "_rebuild_tensor_v2"), ("torch.storage", "_load_from_bytes")
STORAGES = {"float32": "Float", "float16": "Half", "float64": "Double", "int64": "Long"}
STORAGES |= {"bfloat16": "BFloat16", "bool": "Bool", "uint8": "Byte"}
CONTAINER = "torch.nn.modules.container"
PERSISTENT = ("torch_utils.persistence", "_reconstruct_persistent_obj")


class Op:
    """An opcode after its operands."""

    def __init__(self, code, *operands):
        self.code, self.operands = code, operands


def name(module, attribute):
    return Op(f"c{module}\n{attribute}\n".encode())


def call(where, *arguments):
    return Op(b"R", name(*where), arguments)


def body(value):
    """A value's opcodes; `Op` gives those that Python's own pickler would not write."""
    if isinstance(value, Op):
        return b"".join(body(v) for v in value.operands) + value.code
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return b"B" + struct.pack("<I", len(value)) + value
    if isinstance(value, tuple | list):
        end = b"t" if isinstance(value, tuple) else b"l"
        return b"(" + b"".join(map(body, value)) + end
    if isinstance(value, dict):
        return b"(" + b"".join(body(k) + body(v) for k, v in value.items()) + b"d"
    return pickle.dumps(value, 2)[2:-1]


def dump(value):
    return b"\x80\x04" + body(value) + b"."


def storage_bytes(values, count=None, reference=None, kind=None):
    """A flat array as PyTorch's older format has it."""
    count = len(values) if count is None else count
    kind = kind or name("torch", f"{STORAGES[values.dtype.name]}Storage")
    reference = reference or ("storage", kind, "94", "cpu", count, None)
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    parts = [0x1950A86A20F9469CFC6C, 1001, facts, Op(b"Q", reference), ["94"]]
    return b"".join(map(dump, parts)) + struct.pack("<q", count) + values.tobytes()


def tensor(a, data=None, size=None, stride=None, offset=0):
    a = np.asarray(a)
    size = a.shape if size is None else size
    stride = tuple(s // a.itemsize for s in a.strides) if stride is None else stride
    data = storage_bytes(np.ravel(a)) if data is None else data
    return call(TORCH[0], call(TORCH[1], data), offset, size, stride, False, {})


def persistent(kind, state, source="raise SystemExit('executed')"):
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": kind}
    return call(PERSISTENT, {**meta, "state": state})


def touch(path):
    """A shell command that makes the file."""
    return f": > '{path}'"


def system(path):
    return call(("os", "system"), touch(path))


# ---- hostile: each is (bytes of the file, what the one line says)


def by_dotted_name(path):
    """A name inside a module of an allowed namespace that imports os."""
    function = Op(b"\x93", "dnnlib.util", "os.system")
    return dump({"ema": Op(b"R", function, (touch(path),))})


def by_getattr(path):
    module = call(("importlib", "import_module"), "os")
    function = call(("builtins", "getattr"), module, "system")
    return dump(Op(b"R", function, (touch(path),)))


def by_extension(path, code, form):
    copyreg.add_extension("os", "system", code)
    return dump({"ema": Op(b"R", Op(form), (touch(path),))})


def in_a_zip(path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", dump(system(path)))
    return buffer.getvalue()


def smuggled_in_state(path):
    dtype = Op(b"R", name("numpy", "dtype"), ("f8", False, True))
    scalar = call(("numpy.core.multiarray", "scalar"), dtype, bytes(8))
    container = Op(b"\x81", name(CONTAINER, "ModuleDict"), ())
    return dump({"ema": scalar, "state": Op(b"b", container, {"hook": system(path)})})


def module_source(path):
    """What the original reader does: it runs the text of the class's module."""
    source = f"class Evil:\n    pass\nopen({str(path)!r}, 'w')"
    return dump({"ema": persistent("Evil", {}, source)})


SOURCE = f"""
import pickle
def {PERSISTENT[1]}(meta):
    module = {{}}
    exec(meta["module_src"], module)
    return module[meta["class_name"]]()
_load_from_bytes = pickle.loads
class ModuleDict:
    pass
"""
RUNS = {
    "os.system": (lambda p: dump({"ema": system(p)}), "os.system"),
    "posix.system": (
        lambda p: dump(Op(b"R", Op(b"\x93", "posix", "system"), (touch(p),))),
        "posix.system",
    ),
    "eval": (
        lambda p: dump(call(("builtins", "eval"), f"open({str(p)!r}, 'w')")),
        "builtins.eval",
    ),
    "eval by its old name": (
        lambda p: b"\x80\x02" + dump(call(("__builtin__", "eval"), f"open({str(p)!r}, 'w')"))[2:],
        "__builtin__.eval",
    ),
    "a process": (
        lambda p: dump(
            call(("subprocess", "Popen"), [sys.executable, "-c", f"open({str(p)!r}, 'w')"])
        ),
        "subprocess.Popen",
    ),
    "runstring of numpy": (
        lambda p: dump(
            call(("numpy.testing._private.utils", "runstring"), f"open({str(p)!r}, 'w')", {})
        ),
        "numpy.testing._private.utils.runstring",
    ),
    "a dotted name": (by_dotted_name, "dnnlib.util.os.system"),
    "getattr": (by_getattr, "builtins.getattr"),
    "source of a module": (module_source, "not Evil"),
    "a pickle in bytes": (
        lambda p: dump(call(("pickle", "loads"), dump(system(p)))),
        "pickle.loads",
    ),
    "a pickle in a storage": (lambda p: dump(call(TORCH[1], dump(system(p)))), "os.system"),
    "smuggled in a state": (smuggled_in_state, "os.system"),
    "EXT1": (lambda p: by_extension(p, 0x51, b"\x82\x51"), "the opcode EXT1"),
    "EXT2": (lambda p: by_extension(p, 0x5151, b"\x83\x51\x51"), "the opcode EXT2"),
    "EXT4": (lambda p: by_extension(p, 0x515151, b"\x84\x51\x51\x51\x00"), "the opcode EXT4"),
    "INST": (lambda p: b"(X" + body(touch(p))[1:] + b"ios\nsystem\n.", "the opcode INST"),
    "OBJ": (lambda p: b"(cos\nsystem\n" + body(touch(p)) + b"o.", "os.system"),
}


@pytest.fixture
def extensions():
    yield
    for code in (0x51, 0x5151, 0x515151):
        if code in copyreg._inverted_registry:
            copyreg.remove_extension("os", "system", code)


@pytest.fixture
def original_code(monkeypatch):
    """Modules that do what those of the original readers do with a pickle's names."""
    import numpy.core.multiarray  # noqa: F401  (its old name, not a part of `numpy` until imported)

    for module in ("torch_utils.persistence", "torch.storage", "dnnlib.util", CONTAINER):
        fake = types.ModuleType(module)
        exec("import os\n" + SOURCE, fake.__dict__)
        monkeypatch.setitem(sys.modules, module, fake)
        while "." in module:  # an import wants the parents too
            module = module.rsplit(".", 1)[0]
            monkeypatch.setitem(sys.modules, module, types.ModuleType(module))


def refusal(path, capsys):
    """The one line that the command ends with, its exit code and folder checked."""
    out = path.parent / "out"
    code = main(["convert", "--from", "edm", "--in", str(path), "--out", str(out)])
    output = capsys.readouterr()
    assert code == 2 and output.err.count("\n") == 1 and not output.out and not out.exists()
    assert "--in" in output.err and path.name in output.err
    return output.err


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", RUNS)
def test_what_would_run_is_refused(case, tmp_path, capsys, extensions, original_code):
    make, expected = RUNS[case]
    canary, path = tmp_path / "canary", tmp_path / "evil.pkl"
    data = make(canary)
    path.write_bytes(data)
    ran = pickle.loads(data)  # the file is what it claims: Python's own reader runs it
    if isinstance(ran, subprocess.Popen):
        ran.wait()
    assert canary.exists()
    canary.unlink()
    assert expected in refusal(path, capsys)
    assert not canary.exists()


def test_a_zip_is_not_a_plain_pickle(tmp_path, capsys):
    canary, path = tmp_path / "canary", tmp_path / "evil.pkl"
    path.write_bytes(in_a_zip(canary))
    assert "zip archive" in refusal(path, capsys)
    path.write_bytes(dump({"ema": call(TORCH[1], in_a_zip(canary))}))
    assert "not a plain storage" in refusal(path, capsys)
    assert not canary.exists()


@pytest.mark.parametrize(
    "module, attribute",
    [
        *[("builtins", f) for f in ("getattr", "__import__", "open", "compile", "object", "list")],
        *[("sys", "modules"), ("importlib", "reload"), ("nt", "system"), ("ctypes", "CDLL")],
        *[("webbrowser", "open"), ("runpy", "run_path"), ("code", "interact"), ("types", "X")],
        *[("torch", "load"), ("torch.hub", "load"), ("torch.serialization", "_load")],
        *[("torchvision", "Model"), ("collections", "defaultdict"), ("numpy", "load")],
        *[("torch.__init__", "Tensor"), ("torch nn", "Module"), ("", "Module"), ("copyreg", "X")],
        *[("training.networks", "__class__"), ("dnnlib", "util.EasyDict"), ("numpy", "A.b")],
    ],
)
def test_a_name_that_weights_do_not_need_is_refused(module, attribute, tmp_path):
    for form in (name(module, attribute), Op(b"\x93", module, attribute)):
        (tmp_path / "x.pkl").write_bytes(dump([form]))
        with pytest.raises(
            InputError, match="must hold weights only; this pickle asks for"
        ) as error:
            read_pickle(tmp_path / "x.pkl")
        assert f"{module}.{attribute}" in str(error.value)


def cyclic():
    """A module that is its own child."""
    state = Op(b"q\x01", {"_init_kwargs": {}, "_init_args": ()})
    model = Op(b"q\x02", persistent("SongUNet", state))
    closed = Op(b"s0", model, Op(b"h\x01"), "_modules", {"child": Op(b"h\x02")})
    return dump({"ema": persistent("EDMPrecond", {**PRECOND, "_modules": {"model": closed}})})


PRECOND = {"img_resolution": 8, "img_channels": 3, "label_dim": 0, "sigma_data": 0.5}
ONES = np.ones(4, np.float32)
DAMAGED = {
    "a storage that claims more than there is": (
        lambda: dump(tensor(ONES, storage_bytes(ONES, count=1 << 40))),
        "a storage of 1,099,511,627,776 values in 16 bytes",
    ),
    "a count that contradicts the reference": (
        lambda: dump(tensor(ONES, storage_bytes(ONES)[:-24] + struct.pack("<q", 3) + bytes(16))),
        "a storage of 3 values",
    ),
    "a negative count": (
        lambda: dump(tensor(ONES, storage_bytes(ONES, count=-4))),
        "not a storage's",
    ),
    "a big-endian storage": (
        lambda: dump(call(TORCH[1], storage_bytes(ONES).replace(b"\x88", b"\x89"))),
        "not little-endian",
    ),
    "a tensor outside its storage": (
        lambda: dump(tensor(ONES, offset=1)),
        "a tensor of shape [4] in 4 values",
    ),
    "a tensor that repeats one value": (
        lambda: dump(tensor(ONES, size=(1 << 20, 1 << 20), stride=(0, 0))),
        "a tensor of shape [1048576, 1048576]",
    ),
    "a stride that goes back": (
        lambda: dump(tensor(ONES, stride=(-1,), offset=3)),
        "not described by numbers",
    ),
    "a size that is no number": (
        lambda: dump(tensor(ONES, size=(name("torch", "Tensor"),))),
        "not described by numbers",
    ),
    "an unknown storage": (
        lambda: dump(call(TORCH[1], storage_bytes(ONES, kind=name("torch", "Module")))),
        "torch.Module",
    ),
    "an unknown reference": (
        lambda: dump(call(TORCH[1], storage_bytes(ONES, reference=("module", "m", "src")))),
        "a persistent id that is not a storage's",
    ),
    "a view of a storage": (
        lambda: dump(
            call(
                TORCH[1],
                storage_bytes(
                    ONES,
                    reference=("storage", name("torch", "FloatStorage"), "94", "cpu", 4, ("k", 0)),
                ),
            )
        ),
        "a persistent id that is not a storage's",
    ),
    "a reference to a path": (lambda: dump(Op(b"Q", "/etc/passwd")), "outside a storage"),
    "a reference to a path in text": (lambda: b"P/etc/passwd\n.", "the opcode PERSID"),
    "an old object": (lambda: b"(ctorch.nn\nModule\no.", "the opcode OBJ"),
    "a buffer from outside": (lambda: b"\x80\x05\x97.", "the opcode NEXT_BUFFER"),
    "attributes of a name": (
        lambda: dump(Op(b"b", name(*TORCH[0]), {"__code__": None})),
        "attributes set on a value of type Name",
    ),
    "attributes of a tensor": (
        lambda: dump(Op(b"b", tensor(ONES), {"__class__": None})),
        "attributes set on a value of type ndarray",
    ),
    "attributes of a dict": (
        lambda: dump(Op(b"b", call(("collections", "OrderedDict")), {"update": None})),
        "attributes set on a value of type dict",
    ),
    "attributes twice": (
        lambda: dump(Op(b"b", persistent("EDMPrecond", {}), {"__dict__": None})),
        "attributes set on a value of type Inert",
    ),
    "a call of a value": (lambda: dump(Op(b"R", "text", ())), "a call of something"),
    "a call of a record": (
        lambda: dump(Op(b"R", Op(b"R", name("torch", "Tensor"), ()), ())),
        "a call of something",
    ),
    "arguments that do not fit": (lambda: dump(call(TORCH[1])), "other arguments"),
    "a huge integer": (lambda: dump({"ema": 1 << 200_000}), "an integer of 200001 bits"),
    "a huge integer in a network": (
        lambda: dump({"ema": persistent("VPPrecond", {"beta_d": 1 << 128})}),
        "an integer of 129 bits",
    ),
    "a long storage": (
        lambda: dump(call(TORCH[1], b"\x80\x02" + b"N0" * 300 + b"N.")),
        "more than 200 steps",
    ),
    "control characters in a name": (
        lambda: dump({"ema": persistent("\x1b[2Jx\n", {})}),
        r"not \x1b[2Jx\n",
    ),
    "control characters in a module": (
        lambda: dump(Op(b"\x93", "torch", "\x1b[2J")),
        r"torch.\x1b[2J",
    ),
    "tuples in tuples as a key": (
        lambda: b"}N" + b"\x85" * 30_000 + b"Ns.",
        "a value of type tuple as a key",
    ),
    "tuples in tuples": (lambda: b"N" + b"\x85" * 30_000 + b".", "a network under 'ema'"),
    "lists in lists": (lambda: b"(" * 30_000 + b"l" * 30_000 + b".", "a network under 'ema'"),
    "marks in marks": (lambda: b"(" * 30_000 + b".", "a whole pickle"),
    "a module in itself": (cyclic, "modules that form a tree"),
    "a string that claims more than there is": (
        lambda: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"abc.",
        "a whole pickle",
    ),
    "half a file": (lambda: dump({"ema": tensor(ONES)})[:-40], "a whole pickle"),
    "no file": (lambda: b"", "a whole pickle"),
    "text": (lambda: b"weights", "a whole pickle"),
    "another value": (lambda: dump([1, 2]), "a network under 'ema'"),
    "another network": (
        lambda: dump({"ema": persistent("iDDPMPrecond", {})}),
        "one of EDMPrecond, VEPrecond, VPPrecond; not iDDPMPrecond",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_damaged_or_absurd_is_refused(case, tmp_path, capsys):
    make, expected = DAMAGED[case]
    (tmp_path / "bad.pkl").write_bytes(make())
    assert expected in refusal(tmp_path / "bad.pkl", capsys)


def test_a_long_program_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "MAX_OPCODES", 1000)
    (tmp_path / "x.pkl").write_bytes(b"(" + b"}" * 2000 + b"l.")
    with pytest.raises(InputError, match="more than 1,000 steps"):
        read_pickle(tmp_path / "x.pkl")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_pickle(tmp_path / "none.pkl")


# ---- benign


@pytest.mark.parametrize("dtype", [*STORAGES])
def test_tensors_come_out_bit_for_bit(dtype, tmp_path):
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    bits = np.random.default_rng(0).integers(0, 256, 24 * np.dtype(kind).itemsize, np.uint8)
    flat = (bits & 1 if dtype == "bool" else bits).view(kind)
    data = storage_bytes(flat)
    views = {
        "whole": tensor(flat.reshape(2, 3, 4), data),
        "transposed": tensor(flat, data, size=(4, 6), stride=(1, 4)),
        "a part": call(
            ("torch._utils", "_rebuild_parameter"),
            tensor(flat, data, size=(2, 2), stride=(8, 2), offset=5),
            True,
            Op(b"R", name("collections", "OrderedDict"), ()),
        ),
        "a number": tensor(flat, data, size=(), stride=(), offset=7),
        "empty": tensor(flat, data, size=(0, 3), stride=(3, 1)),
    }
    (tmp_path / "x.pkl").write_bytes(dump(views))
    got = read_pickle(tmp_path / "x.pkl")
    expected = {
        "whole": flat.reshape(2, 3, 4),
        "transposed": flat.reshape(6, 4).T,
        "a part": flat[[[5, 7], [13, 15]]],
        "a number": flat[7],
        "empty": flat[:0].reshape(0, 3),
    }
    for key, a in expected.items():
        assert got[key].dtype == kind and got[key].shape == a.shape, key
        assert got[key].tobytes() == a.tobytes(), key
        assert not got[key].flags.writeable


def test_records_keep_what_was_stored_and_nothing_runs(tmp_path):
    canary = tmp_path / "canary"
    module = Op(b"\x81", name(CONTAINER, "ModuleDict"), ())
    container = Op(
        b"b", module, {"training": False, "names": call(("builtins", "set"), ["a", "b"])}
    )
    easy = Op(b"s", Op(b"\x81", name("dnnlib.util", "EasyDict"), ()), "path", "x.zip")
    listed = Op(b"a", Op(b"\x81", name("training.lists", "Names"), ()), 3)
    dtype = Op(b"b", call(("numpy", "dtype"), "f8", False, True), (3, "<", None, None))
    scalar = call(("numpy._core.multiarray", "scalar"), dtype, struct.pack("<d", 0.25))
    source = f"open({str(canary)!r}, 'w')"
    data = dump([container, easy, listed, scalar, persistent("Loss", {"P_std": 1.2}, source)])
    (tmp_path / "x.pkl").write_bytes(data)
    container, easy, listed, scalar, loss = read_pickle(tmp_path / "x.pkl")
    assert container.kind == f"{CONTAINER}.ModuleDict"
    assert container.state == {"training": False, "names": {"a", "b"}}
    assert isinstance(easy, Inert) and easy.items == {"path": "x.zip"} and listed.values == [3]
    assert scalar == 0.25 and loss.kind == "Loss" and loss.state == {"P_std": 1.2}
    assert not canary.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_values_are_those_of_every_protocol(protocol, tmp_path):
    value = {"a": [1, -7, 2**40, 10**30, 0.1, None, True, False], "b": (), "c": ("x", "é\n")}
    value |= {"d": {"e": []}, "f": [[], (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]}
    value |= {"g": ["same"] * 2, "h": "long" * 100, "i": list(range(300))}
    value |= {"j": [bytes(3), b"b" * 300], "k": {1, 2}, "l": {3: 4}} if protocol >= 3 else {}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol))
    assert read_pickle(tmp_path / "x.pkl") == value
