"""Fashion-MNIST from its four IDX files (70,000 clothes at 28x28, 10 classes)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from reprojax.data.idx import read_idx
from reprojax.errors import InputError, require_choice

DEBIAN_DIR = "/usr/share/datasets/fashion-mnist"
PREFIXES = {"train": ("train",), "test": ("t10k",), "all": ("train", "t10k")}


def read_fashion_mnist(path: str = "", split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Reads Fashion-MNIST.

    Args:
        path: The folder with the IDX files, gzipped or not. If empty, $REPROJAX_DATA/fashion-mnist
            is searched and then the folder of Debian's package.
        split: ``"train"`` (60,000 images), ``"test"`` (10,000) or ``"all"`` (train, then test).

    Returns:
        Images, uint8 `[n, 28, 28, 1]`, and labels, int32 `[n]` in 0..9.

    Raises:
        InputError: The split is unknown, or the files are missing or damaged.
    """
    require_choice("data.split", split, PREFIXES)
    parts = [_read_part(path, prefix) for prefix in PREFIXES[split]]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts))
    return images[..., None], labels.astype(np.int32)


def _read_part(path: str, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    images_path = _find(path, f"{prefix}-images-idx3-ubyte")
    images = read_idx(images_path, ndim=3)
    labels = read_idx(_find(path, f"{prefix}-labels-idx1-ubyte"), ndim=1)
    if len(images) != len(labels):
        requirement = f"must hold as many images ({len(images)}) as labels ({len(labels)})"
        raise InputError("data.path", str(images_path), requirement)
    return images, labels


def _find(path: str, name: str) -> Path:
    home = os.environ.get("REPROJAX_DATA")
    defaults = ([f"{home}/fashion-mnist"] if home else []) + [DEBIAN_DIR]
    folders = [Path(folder).expanduser() for folder in ([path] if path else defaults)]
    for folder in folders:
        for file in (folder / f"{name}.gz", folder / name):
            if file.is_file():
                return file
    requirement = (
        f"{name}.gz is not in {' or '.join(map(str, folders))}; apt-get install "
        "dataset-fashion-mnist, or set data.path to a folder with the four IDX files"
    )
    raise InputError("data.path", path or None, requirement)
