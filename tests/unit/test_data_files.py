import zipfile

import numpy as np
import pytest
from PIL import Image

from reprojax.data.files import natural_key, read_images, read_npz
from reprojax.data.transform import Layout
from reprojax.errors import InputError


def images(n=5, side=4, channels=3):
    return np.random.default_rng(0).integers(0, 256, (n, side, side, channels), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Pictures 1, 2 and 10 in one subfolder, 3 beside it in another, and what is no picture."""
    root = tmp_path / "pictures"
    for name, image in zip(("a/1", "a/2", "a/10", "b/3"), images()):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / f"{name}.png")
    (root / "notes.txt").write_text("not a picture")
    (root / "a/._1.png").write_bytes(b"a resource fork")
    return root


@pytest.fixture
def archive(folder):
    path = folder.parent / "pictures.zip"
    with zipfile.ZipFile(path, "w") as file:
        for picture in folder.rglob("*"):
            file.write(picture, picture.relative_to(folder))
    return path


def refused(read, *args):
    """The message with which ``read`` refuses, after checks that hold for every one."""
    with pytest.raises(InputError) as caught:
        read(*args)
    assert caught.value.field == "data.path"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_npz_round_trip(tmp_path):
    np.savez(tmp_path / "s.npz", images=images(), labels=np.arange(5))
    read, labels = read_npz(tmp_path / "s.npz")
    np.testing.assert_array_equal(read, images())
    np.testing.assert_array_equal(labels, np.arange(5))
    assert labels.dtype == np.int32


def test_npz_of_grey_images_without_a_channel_or_labels(tmp_path):
    np.savez_compressed(tmp_path / "s.npz", images=images(channels=1)[..., 0])
    read, labels = read_npz(tmp_path / "s.npz")
    np.testing.assert_array_equal(read, images(channels=1))
    assert labels is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.full((1, 2, 2), np.nan)}, "NaN or infinity at \\[0, 0, 0\\]"),
        ({"images": np.zeros((1, 2, 2), np.float32)}, "uint8.*not float32"),
        ({"images": np.array([{}, {}])}, "objects are pickles"),
        ({"images": np.zeros((2, 3, 32, 32), np.uint8)}, r"n, h, w, c.*\(2, 3, 32, 32\)"),
        ({"images": np.zeros((0, 2, 2), np.uint8)}, r"not \("),
        ({"pictures": images()}, "key 'images'"),
        ({"images": images(), "labels": np.arange(4)}, "one for each of 5"),
        ({"images": images(), "labels": np.linspace(0, 1, 5)}, "integers"),
        ({"images": images(), "labels": np.arange(5) - 1}, "at least 0"),
    ],
)
def test_npz_that_does_not_hold_images(tmp_path, arrays, message):
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(InputError, match=message) as caught:
        read_npz(tmp_path / "s.npz")
    assert "s.npz" in str(caught.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.98])
def test_truncated_npz(tmp_path, save, share):
    path = tmp_path / "s.npz"
    save(path, images=images())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "s.npz" in refused(read_npz, path)


def test_npz_that_is_missing_or_something_else(tmp_path):
    assert "nowhere.npz" in refused(read_npz, tmp_path / "nowhere.npz")
    np.save(tmp_path / "one.npy", images())
    assert "single array" in refused(read_npz, tmp_path / "one.npy")
    assert str(tmp_path) in refused(read_npz, tmp_path)


def test_an_error_blames_the_field_of_the_caller(tmp_path):
    with pytest.raises(InputError) as caught:
        read_npz(tmp_path / "nowhere.npz", field="--samples")
    assert caught.value.field == "--samples"


def test_two_comes_before_ten():
    names = ["x10.png", "x2.png", "x02.png", "x1.png", "10.png", "b/1.png", "a/3.png"]
    assert sorted(names, key=natural_key) == [
        "10.png", "a/3.png", "b/1.png", "x1.png", "x02.png", "x2.png", "x10.png",
    ]  # fmt: skip


def test_folder_and_zip_read_the_same_pictures_in_natural_order(folder, archive):
    np.testing.assert_array_equal(read_images(folder), images()[:4])
    np.testing.assert_array_equal(read_images(archive), images()[:4])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA"])
def test_modes_become_grey_or_colour(tmp_path, mode):
    image = Image.fromarray(images(1)[0]).convert(mode)
    image.save(tmp_path / "x.png")
    expected = image.convert("L" if mode in "1L" else "RGB")
    read = read_images(tmp_path)[0]
    np.testing.assert_array_equal(read.squeeze(), np.asarray(expected))
    assert read.ndim == 3


def test_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    assert "8 bits" in refused(read_images, tmp_path)


def test_pictures_of_two_sizes_need_a_layout(folder):
    Image.fromarray(images(1, side=6)[0]).save(folder / "large.png")
    message = refused(read_images, folder)
    assert "large.png" in message and "data.size" in message
    assert read_images(folder, Layout(size=5)).shape == (5, 5, 5, 3)


@pytest.mark.parametrize("content", ["truncated", "nonsense", "empty"])
def test_broken_picture_is_named(folder, content):
    path = folder / "a/2.png"
    Image.fromarray(images(1, side=64)[0]).save(path)
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "nonsense": b"?", "empty": b""}[content])
    assert "a/2.png" in refused(read_images, folder)


def test_broken_zips(folder, archive):
    data = archive.read_bytes()
    start = data.index(b"IDAT")
    archive.write_bytes(data[:start] + b"!" + data[start + 1 :])  # its CRC no longer holds
    assert ".png" in refused(read_images, archive)
    archive.write_bytes(data[: len(data) // 2])
    assert "pictures.zip" in refused(read_images, archive)
    assert "nowhere" in refused(read_images, folder / "nowhere")


def test_folder_without_pictures(tmp_path):
    assert "at least one picture" in refused(read_images, tmp_path)
