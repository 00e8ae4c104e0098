"""TFDS against a real array_record set, small enough to be written without TensorFlow."""

import sys

import numpy as np
import pytest
from PIL import Image

from reprojax.data.source import SourceSpec, open_source
from reprojax.errors import InputError

N = 7


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    tfds = pytest.importorskip("tensorflow_datasets")

    class ReprojaxTiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Tensor(shape=(4, 4, 1), dtype=np.uint8)
            label = tfds.features.Scalar(dtype=np.int64)
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(0), "test": self._generate_examples(100)}

        def _generate_examples(self, offset):
            for i in range(offset, offset + N):
                yield i, {"image": np.full((4, 4, 1), i, np.uint8), "label": i}

    path = str(tmp_path_factory.mktemp("tfds"))
    ReprojaxTiny(data_dir=path, file_format="array_record").download_and_prepare()
    return path


def spec(data_dir, **kwargs):
    return SourceSpec("tfds", path=data_dir, **{"dataset": "reprojax_tiny", **kwargs})


def refused(spec):
    with pytest.raises(InputError) as caught:
        open_source(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_random_access_without_tensorflow(data_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # importing it now fails
    source = open_source(spec(data_dir))
    assert len(source) == N and source.shape == (4, 4, 1)
    values = source.gather(np.arange(N))[:, 0, 0, 0]
    assert sorted(values) == list(range(N))
    np.testing.assert_array_equal(source.labels, values)
    assert source.labels.dtype == np.int32
    np.testing.assert_array_equal(source.gather(np.array([5, 2, 5]))[:, 3, 3, 0], values[[5, 2, 5]])


def test_any_split_and_layout(data_dir):
    assert len(open_source(spec(data_dir, split="all"))) == 2 * N
    assert len(open_source(spec(data_dir, split="train[:3]+test"))) == 3 + N
    source = open_source(spec(data_dir, size=6, channels=3, fit="pad"))
    image = source.gather(np.array([0]))
    assert image.shape == (1, 6, 6, 3) == (1, *source.shape)
    assert (image[0, 1:5, 1:5] == source.labels[0]).all()


def test_fingerprint_tells_split_layout_and_indices(data_dir):
    def fingerprint(indices=(0, 1), **kwargs):
        return open_source(spec(data_dir, **kwargs)).fingerprint(np.array(indices))

    assert fingerprint() == fingerprint()
    variants = [
        fingerprint(),
        fingerprint((1, 0)),
        fingerprint(split="test"),
        fingerprint(size=2),
        fingerprint(size=8),
        fingerprint(size=8, fit="pad"),
        fingerprint(channels=3),
    ]
    assert len(set(variants)) == len(variants)


def test_data_that_is_not_prepared_says_how(tmp_path, data_dir):
    message = refused(spec(str(tmp_path), dataset="cifar10"))
    assert message.startswith("data.dataset='cifar10'")
    assert "pip install 'reprojax[tensorflow]'" in message
    assert f"tfds.builder('cifar10', data_dir={str(tmp_path)!r})" in message
    assert "download_and_prepare(file_format='array_record')" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"dataset": "no_such_set"}, "data.dataset"),
        ({"dataset": "two words"}, "data.dataset"),
        ({"split": "validation"}, "data.split"),
    ],
)
def test_the_wrong_field_is_named(data_dir, change, field):
    message = refused(spec(data_dir, **change))
    assert message.startswith(field) and len(message) < 500


def test_pictures_of_many_sizes_are_decoded_and_fitted(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class ReprojaxPictures(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
            features = tfds.features.FeaturesDict({"image": image})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(N):
                yield i, {"image": Image.fromarray(np.full((4 + i, 5, 3), i, np.uint8))}

    ReprojaxPictures(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    assert "differ in size" in refused(spec(str(tmp_path), dataset="reprojax_pictures"))
    source = open_source(spec(str(tmp_path), dataset="reprojax_pictures", size=4))
    images = source.gather(np.arange(N))
    assert images.shape == (N, 4, 4, 3) and source.labels is None
    assert sorted(images[:, 2, 2, 1]) == list(range(N))
