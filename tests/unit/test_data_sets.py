"""The known data sets, from small files of the same format."""

import gzip
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from reprojax.data import fashion
from reprojax.data.cifar import read_cifar10
from reprojax.data.fashion import read_fashion_mnist
from reprojax.data.idx import read_idx
from reprojax.data.source import ArraySource, SourceSpec, open_source
from reprojax.errors import InputError


def idx(array):
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + bytes(array)
    )


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def refused(call, *args):
    with pytest.raises(InputError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_round_trip(tmp_path, pack):
    (tmp_path / "x").write_bytes(pack(idx(pixels(3, 4, 5))))
    np.testing.assert_array_equal(read_idx(tmp_path / "x", ndim=3), pixels(3, 4, 5))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:-1], "60 bytes, and it holds 59"),
        (lambda data: data + b"?", "60 bytes, and it holds 61"),
        (lambda data: data[:7], "3 dimensions"),
        (lambda data: b"", "3 dimensions"),
        (lambda data: b"\0\0\x0d" + data[3:], "unsigned bytes"),
        (lambda data: b"\0\0\x08\x01" + data[4:], "3 dimensions"),
        (lambda data: data[:4] + b"\xff" * 12 + data[16:], "complete IDX"),
        (lambda data: gzip.compress(data)[:-12], "complete IDX"),
        (lambda data: gzip.compress(data)[:5], "complete IDX"),
        (lambda data: gzip.compress(data[:-1]), "holds 59"),
    ],
)
def test_spoilt_idx(tmp_path, spoil, message):
    (tmp_path / "x").write_bytes(spoil(idx(pixels(3, 4, 5))))
    error = refused(read_idx, tmp_path / "x", 3)
    assert message in error and str(tmp_path / "x") in error


def write_fashion(folder):
    folder.mkdir()
    for name, n in (("train", 3), ("t10k", 2)):
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pixels(n, 28, 28))))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx(np.arange(n, dtype=np.uint8)))


def test_fashion_mnist_splits(tmp_path, monkeypatch):
    write_fashion(tmp_path / "fashion-mnist")
    monkeypatch.setenv("REPROJAX_DATA", str(tmp_path))
    images, labels = read_fashion_mnist(split="all")
    assert images.shape == (5, 28, 28, 1) and labels.dtype == np.int32
    np.testing.assert_array_equal(labels, [0, 1, 2, 0, 1])
    for split, part in (("train", slice(3)), ("test", slice(3, 5))):
        read = read_fashion_mnist(str(tmp_path / "fashion-mnist"), split)
        np.testing.assert_array_equal(read[0], images[part])
        np.testing.assert_array_equal(read[1], labels[part])


def test_fashion_mnist_with_other_labels(tmp_path):
    write_fashion(tmp_path / "f")
    (tmp_path / "f/t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(3, np.uint8)))
    assert "as labels (3)" in refused(read_fashion_mnist, str(tmp_path / "f"), "test")


def test_missing_fashion_mnist_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("REPROJAX_DATA", raising=False)
    monkeypatch.setattr(fashion, "DEBIAN_DIR", str(tmp_path))
    for path in ("", str(tmp_path / "nowhere")):
        assert "apt-get install dataset-fashion-mnist" in refused(read_fashion_mnist, path)


@pytest.mark.skipif(not os.path.isdir(fashion.DEBIAN_DIR), reason="needs Debian's package")
def test_fashion_mnist_of_debian(monkeypatch):
    monkeypatch.delenv("REPROJAX_DATA", raising=False)
    images, labels = read_fashion_mnist(split="test")
    assert images.shape == (10_000, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(labels), [1000] * 10)


# The archive itself was written by Python 2: protocol 2, byte strings. Python 3 writes the same
# arrays with _codecs.encode (protocol 2) or as bytes (from 3 on).
PROTOCOLS = (2, 4)


def cifar_batch(seed, protocol, n=4):
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
    batch = {b"data": data, b"labels": rng.integers(0, 10, n).tolist()}
    return pickle.dumps(batch, protocol), batch


def write_tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(path)


NAMES = ("test_batch", *(f"data_batch_{i}" for i in (2, 1, 3, 4, 5)))  # in no helpful order


@pytest.fixture(params=PROTOCOLS)
def cifar(tmp_path, request):
    """An archive, its members, and what is in them."""
    batches = {name: cifar_batch(i, request.param) for i, name in enumerate(NAMES)}
    members = {name: data for name, (data, _) in batches.items()}
    path = write_tar(tmp_path / "cifar-10-python.tar.gz", members)
    return path, members, {name: batch for name, (_, batch) in batches.items()}


def test_cifar10_from_the_archive(cifar):
    path, _, batches = cifar
    images, labels = read_cifar10(path, "all")
    order = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    planes = np.concatenate([batches[name][b"data"] for name in order]).reshape(-1, 3, 32, 32)
    for channel in range(3):
        np.testing.assert_array_equal(images[..., channel], planes[:, channel])
    np.testing.assert_array_equal(labels, np.concatenate([batches[k][b"labels"] for k in order]))
    np.testing.assert_array_equal(read_cifar10(path)[0], images[:20])
    np.testing.assert_array_equal(read_cifar10(path, "test")[0], images[20:])


def test_cifar10_from_a_folder_or_the_environment(cifar, tmp_path, monkeypatch):
    path, members, _ = cifar
    folder = tmp_path / "home" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, data in members.items():
        (folder / name).write_bytes(data)
    expected = read_cifar10(path)[0]
    np.testing.assert_array_equal(read_cifar10(str(folder))[0], expected)
    np.testing.assert_array_equal(read_cifar10(str(folder.parent))[0], expected)
    monkeypatch.setenv("REPROJAX_DATA", str(tmp_path))
    np.testing.assert_array_equal(read_cifar10()[0], expected)


def test_cifar10_written_by_python_2(tmp_path):
    # What Python 2 wrote, opcode by opcode: byte strings (T, U) for keys, dtype and pixels.
    data = pixels(1, 3072)
    batch = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x00\x0c\x00\x00"
        + data.tobytes()
        + b"tbU\x06labels]K\x07au."
    )
    path = write_tar(tmp_path / "c.tar.gz", {"test_batch": batch})
    images, labels = read_cifar10(path, "test")
    np.testing.assert_array_equal(images[0].transpose(2, 0, 1).ravel(), data[0])
    np.testing.assert_array_equal(labels, [7])


class Hostile:
    def __init__(self, call, *args):
        self.reduced = (call, args)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("where", ["whole", "data", "labels"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_hostile_pickle_runs_nothing(tmp_path, where, protocol):
    witness = tmp_path / "ran"
    hostile = Hostile(os.system, f"touch {witness}")
    _, batch = cifar_batch(0, protocol)
    content = hostile if where == "whole" else batch | {where.encode(): hostile}
    path = write_tar(tmp_path / "c.tar.gz", {"test_batch": pickle.dumps(content, protocol)})
    message = refused(read_cifar10, path, "test")
    assert "system" in message and "refused" in message and "test_batch" in message
    assert not witness.exists()


@pytest.mark.parametrize("call", [eval, np.fromfile, pickle.loads, getattr])
def test_every_other_function_is_refused(tmp_path, call):
    path = write_tar(tmp_path / "c.tar.gz", {"test_batch": pickle.dumps(Hostile(call, "1"))})
    assert "refused" in refused(read_cifar10, path, "test")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {b"data": pixels(2, 3072), b"labels": [1]},
        {b"data": pixels(1, 3072), b"labels": [10]},
        {b"data": pixels(1, 3071), b"labels": [1]},
        {b"data": np.zeros((1, 3072)), b"labels": [1]},
        {b"data": [1, 2], b"labels": [1]},
        [],
    ],
)
def test_pickle_that_is_no_batch(tmp_path, content):
    path = write_tar(tmp_path / "c.tar.gz", {"test_batch": pickle.dumps(content)})
    assert "a batch of CIFAR-10" in refused(read_cifar10, path, "test")


def test_damaged_cifar10(cifar, tmp_path):
    _, members, _ = cifar
    whole = (tmp_path / "cifar-10-python.tar.gz").read_bytes()
    for data in (whole[: len(whole) // 2], whole[:5], b""):
        (tmp_path / "cut.tar.gz").write_bytes(data)
        assert "cut.tar.gz" in refused(read_cifar10, str(tmp_path / "cut.tar.gz"))
    cut = write_tar(tmp_path / "c.tar.gz", {"test_batch": members["test_batch"][:-50]})
    assert "test_batch" in refused(read_cifar10, cut, "test")
    assert "lacks data_batch_1" in refused(read_cifar10, cut, "train")


def test_missing_cifar10_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("REPROJAX_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    for path in ("", str(tmp_path / "nowhere")):
        assert "https://www.cs.toronto.edu" in refused(read_cifar10, path)


def test_digits():
    source = open_source(SourceSpec("digits"))
    assert len(source) == 1797 and source.shape == (8, 8, 1)
    images = source.gather(np.arange(1797))
    assert images.dtype == np.uint8
    assert set(np.unique(images)) == {round(v * 255 / 16) for v in range(17)}
    assert source.labels.dtype == np.int32 and set(source.labels) == set(range(10))


@pytest.mark.parametrize("name", ["npz", "samples"])
def test_open_source_applies_the_layout(tmp_path, name):
    np.savez(tmp_path / "s.npz", images=pixels(3, 8, 8), labels=np.arange(3))
    spec = SourceSpec(name, path=str(tmp_path / "s.npz"), size=4, channels=3)
    source = open_source(spec)
    assert source.shape == (4, 4, 3)
    assert source.gather(np.array([2, 0])).shape == (2, 4, 4, 3)
    np.testing.assert_array_equal(source.labels, np.arange(3))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            SourceSpec("digit"),
            "data.source='digit': must be one of cifar10, digits, fashion_mnist, folder, mixture, "
            "npz, samples, tfds; did you mean 'digits'?",
        ),
        (SourceSpec("digits", split="test"), "data.split"),
        (SourceSpec("fashion_mnist", split="val"), "data.split"),
        (SourceSpec("cifar10", split="val"), "data.split"),
        (SourceSpec("digits", size=-8), "data.size"),
        (SourceSpec("digits", size=4, fit="pad"), "data.size"),
        (SourceSpec("digits", channels=4), "data.channels"),
        (SourceSpec("digits", fit="crop"), "data.fit"),
        (SourceSpec("npz"), "data.path"),
        (SourceSpec("folder"), "data.path"),
        (SourceSpec("samples"), "data.path"),
        (SourceSpec("tfds"), "data.dataset"),
    ],
)
def test_open_source_names_the_field_that_is_wrong(spec, message):
    assert refused(open_source, spec).startswith(message)


def test_fingerprint_tells_pixels_order_and_shape():
    images = pixels(4, 2, 4, 1)
    indices = np.arange(4)
    base = ArraySource(images).fingerprint(indices)
    assert len(base) == 64
    assert base == ArraySource(images.copy()).fingerprint(indices)
    assert base == ArraySource(images[::-1]).fingerprint(indices[::-1])
    other = images.copy()
    other[3, 1, 3, 0] ^= 1
    others = [
        ArraySource(other).fingerprint(indices),
        ArraySource(images).fingerprint(indices[::-1]),
        ArraySource(images).fingerprint(indices[:3]),
        ArraySource(images.reshape(4, 4, 2, 1)).fingerprint(indices),
    ]
    assert len({base, *others}) == 5


def test_array_source_refuses_what_is_no_image():
    with pytest.raises(ValueError, match="float64"):
        ArraySource(np.zeros((1, 2, 2, 1)))
    with pytest.raises(ValueError, match="labels"):
        ArraySource(pixels(2, 2, 2, 1), np.zeros(3, np.int32))
