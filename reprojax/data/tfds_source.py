"""TFDS image sets by random access to their array_record files, without TensorFlow."""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np

from reprojax.data.transform import CHANNELS, Layout
from reprojax.errors import InputError


class TfdsSource:
    """A prepared TFDS data set; each image is read, decoded and fitted when it is asked for.

    Args:
        dataset: the TFDS name (``"cifar10"``, ``"lsun/bedroom"``).
        split: any TFDS split (``"train"``, ``"train[:50%]+test"``, ``"all"``).
        data_dir: where TFDS keeps its sets; its own default if empty.
        layout: the side and channels of the images.

    Raises:
        InputError: an unknown data set or split, one that is not prepared as array_record, or
            whose images are not uint8 or differ in size while ``layout.size`` is 0.
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
        """Class labels, int32 `[n]`, or None; the first use reads all records, not their images."""
        if not self._has_labels:
            return None
        import tensorflow_datasets as tfds

        records = self._open(decoders={"image": tfds.decode.SkipDecoding()})
        return np.array([records[i]["label"] for i in range(len(records))], np.int32)

    def fingerprint(self, indices: np.ndarray) -> str:
        """Sha256 of the set's name, version and split, the layout, and the indices.

        Not of the pixels: reading a million images to name them would cost more than it protects.
        """
        digest = hashlib.sha256(f"{self._identity}:{self._layout}:".encode())
        digest.update(np.asarray(indices, "<i8").tobytes())
        return digest.hexdigest()

    def _open(self, decoders: dict | None = None):
        try:
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise InputError("data.source", "tfds", "pip install tensorflow-datasets") from error
        dataset, data_dir = self._dataset, self._data_dir or None
        try:
            builder = tfds.builder(dataset, data_dir=data_dir)
        except (ValueError, ImportError) as error:
            reason = str(error).partition("\n")[0]  # what follows lists all that TFDS knows
            catalog = "https://www.tensorflow.org/datasets/catalog"
            raise InputError("data.dataset", dataset, f"see {catalog} ({reason})") from error
        try:
            return builder.as_data_source(split=self._split, decoders=decoders)
        except ValueError as error:
            raise InputError(
                "data.split", self._split, f"a split of {dataset} ({error})"
            ) from error
        except (NotImplementedError, AssertionError, OSError, ImportError) as error:
            where = f", data_dir={data_dir!r}" if data_dir else ""
            raise InputError(
                "data.dataset",
                dataset,
                "it is not prepared as array_record; once, pip install 'reprojax[tensorflow]' and "
                f'python -c "import tensorflow_datasets as tfds; tfds.builder({dataset!r}{where})'
                ".download_and_prepare(file_format='array_record')\"",
            ) from error

    def _image_shape(self, features: dict) -> tuple[int, int, int]:
        image = features.get("image")
        if image is None or np.dtype(image.np_dtype) != np.uint8 or image.shape[-1] not in CHANNELS:
            raise InputError(
                "data.dataset", self._dataset, "a set whose 'image' is uint8 with 1 or 3 channels"
            )
        if None in image.shape and not self._layout.size:
            raise InputError(
                "data.size", 0, f"a side in pixels: the images of {self._dataset} differ in size"
            )
        return self._layout.shape(image.shape)
