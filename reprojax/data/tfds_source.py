"""Image sets of TFDS, with random access to their array_record files and without TensorFlow."""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np

from reprojax.data.transform import CHANNELS, Layout
from reprojax.errors import InputError


class TfdsSource:
    """A prepared TFDS data set, of which an image is read and decoded when it is gathered.

    Args:
        dataset: The TFDS name (``"cifar10"``, ``"lsun/bedroom"``).
        split: Any TFDS split (``"train"``, ``"train[:50%]+test"``, ``"all"``).
        data_dir: The folder with the data sets of TFDS; TFDS's default if empty.
        layout: The layout that the images are brought to; the native one by default.

    Raises:
        InputError: The data set or the split is unknown, the data set is not prepared as
            array_record, or its images are not uint8 or differ in size while ``layout.size`` is 0.
    """

    def __init__(self, dataset: str, split: str, data_dir: str = "", layout: Layout | None = None):
        self._layout = layout or Layout()
        self._dataset, self._split, self._data_dir = dataset, split, data_dir
        self._records = self._open()
        info = self._records.dataset_info
        self._identity = f"{info.full_name}:{split}"
        features = dict(info.features.items())
        self._has_labels = "label" in features and features["label"].shape == ()
        self.shape = self._image_shape(features)

    def __len__(self) -> int:
        return len(self._records)

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Reads the images at ``indices``, int64 `[b]`, as uint8 `[b, h, w, c]`."""
        out = np.empty((len(indices), *self.shape), np.uint8)
        for i, record in enumerate(self._records.__getitems__(np.asarray(indices).tolist())):
            out[i] = self._layout.image(record["image"])
        return out

    @cached_property
    def labels(self) -> np.ndarray | None:
        """The class labels, int32 `[n]`, or None. The first use reads all records but no image."""
        if not self._has_labels:
            return None
        import tensorflow_datasets as tfds

        records = self._open(decoders={"image": tfds.decode.SkipDecoding()})
        return np.array([records[i]["label"] for i in range(len(records))], np.int32)

    def fingerprint(self, indices: np.ndarray) -> str:
        """Returns the SHA-256 of the set's name, version and split, the layout and ``indices``.

        The pixels are left out, because reading a million images would take too long.
        """
        digest = hashlib.sha256(f"{self._identity}:{self._layout}:".encode())
        digest.update(np.asarray(indices, "<i8").tobytes())
        return digest.hexdigest()

    def _open(self, decoders: dict | None = None):
        try:
            import tensorflow_datasets as tfds
        except ImportError as error:
            requirement = "needs pip install tensorflow-datasets"
            raise InputError("data.source", "tfds", requirement) from error
        dataset, data_dir = self._dataset, self._data_dir or None
        try:
            builder = tfds.builder(dataset, data_dir=data_dir)
        except (ValueError, ImportError) as error:
            reason = str(error).partition("\n")[0]  # the other lines list all data sets of TFDS
            catalog = "https://www.tensorflow.org/datasets/catalog"
            requirement = f"must be a data set of {catalog} ({reason})"
            raise InputError("data.dataset", dataset, requirement) from error
        try:
            return builder.as_data_source(split=self._split, decoders=decoders)
        except ValueError as error:
            requirement = f"must be a split of {dataset} ({error})"
            raise InputError("data.split", self._split, requirement) from error
        except (NotImplementedError, AssertionError, OSError, ImportError) as error:
            argument = f", data_dir={data_dir!r}" if data_dir else ""
            requirement = (
                "is not prepared as array_record; run once: pip install 'reprojax[tensorflow]' and "
                f'python -c "import tensorflow_datasets as tfds; tfds.builder({dataset!r}'
                f"{argument}).download_and_prepare(file_format='array_record')\""
            )
            raise InputError("data.dataset", dataset, requirement) from error

    def _image_shape(self, features: dict) -> tuple[int, int, int]:
        image = features.get("image")
        if image is None or np.dtype(image.np_dtype) != np.uint8 or image.shape[-1] not in CHANNELS:
            requirement = "must have images ('image') of uint8 with 1 or 3 channels"
            raise InputError("data.dataset", self._dataset, requirement)
        if None in image.shape and not self._layout.size:
            requirement = f"must be above 0, because images of {self._dataset} differ in size"
            raise InputError("data.size", 0, requirement)
        return self._layout.shape(image.shape)
