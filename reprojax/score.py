"""Scores anyone's samples: ``python -m reprojax.score --samples A=a.npz --samples B=b/ --out DIR``.

Reads sets of samples whose row i came from the same noise, and writes DIR/scores.json.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from reprojax.data.source import SourceSpec, open_source
from reprojax.errors import InputError, InterruptedRunError, ReprojaxError
from reprojax.runtime.files import write_json
from reprojax.sampling.noise import NoiseBank
from reprojax.scoring.descriptors import ROWS, descriptor_class, unit_rows
from reprojax.scoring.distance_rows import curve_rows, distance_rows
from reprojax.scoring.scoreboard import SampleSet, TrainSet, score_all
from reprojax.scoring.thresholds import (
    GL_TARGET,
    MAX_IMAGES,
    PAPER_TAU,
    RP_RATE,
    calibrate_gl,
    calibrate_rp,
)

GIVEN = "features"  # the descriptor's name where features came with the samples
WITH_WEIGHTS = ("sscd", "learned")
TRAIN = "train"

EPILOG = """\
PATH is an .npz with `images` (uint8 [n,h,w,c] or [n,h,w]) or `features` (float32 [n,d]), a folder
of images (read recursively, 2 before 10) or a zip of one. Row i of every set must come from the
same noise. Two sets make pairs (rp, mae); --train adds what belongs to one model (gl, memorized,
and frechet with --heldout).

The threshold of the cosine is 0.6 for given features. For pixels it is calibrated: for rp, what a
pair of distinct training images exceeds with probability 0.001; for gl, where held-out images
(without --heldout: training images, each against the others) score .95. Without --train the mean
image is that of all given samples, and the pairs are those of the first set's samples. scores.json
records under `calibration` which it was.
"""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """What one PATH holds: uint8 `[n, h, w, c]`, float32 unit rows `[n, d]`, or both."""

    field: str
    images: np.ndarray | None
    features: np.ndarray | None

    def __len__(self) -> int:
        return len(self.features if self.features is not None else self.images)

    @property
    def hash(self) -> str:
        """Sixteen hex digits of the SHA-256 of the arrays: the same for a folder and its zip."""
        digest = hashlib.sha256()
        for array in (self.images, self.features):
            if array is not None:
                digest.update(f"{array.dtype.str} {array.shape} ".encode())
                digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()[:16]


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose error is one line."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {' '.join(message.split())} (see --help)\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Scores the sample sets named on the command line and writes DIR/scores.json.

    Args:
        argv: the arguments; None takes those of the process.

    Raises:
        SystemExit: 2 for bad input, after one line on stderr and before anything is written; 130
            when interrupted.
    """
    parser = _build_parser()
    args = parser.parse_args(argv)
    try:
        _run(args)
    except ReprojaxError as error:
        parser.exit(error.exit_code, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(InterruptedRunError.exit_code, f"{parser.prog}: interrupted\n")


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m reprojax.score",
        description="How reproducible and how general are these samples?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--samples", metavar="NAME=PATH", action="append", required=True, help="one model's")
    add("--train", metavar="PATH", help="the images that the models were trained on")
    add("--heldout", metavar="PATH", help="real images that they were not trained on")
    add(
        "--descriptor",
        choices=["pixels", *WITH_WEIGHTS],
        help="what to compare images by; default: the given features where every PATH has them, "
        "else pixels",
    )
    add("--weights", metavar="FILE", help="weights of the descriptor (sscd, learned)")
    add("--threshold", metavar="T", type=float, help="of the cosine, in place of a calibrated one")
    add("--noise", metavar="FILE", help="the .npz of the noise, whose fingerprint is recorded")
    add("--out", metavar="DIR", required=True, help="where scores.json goes")
    return parser


def _run(args: argparse.Namespace) -> None:
    out = Path(args.out)
    _check_options(args, out)
    sets = {name: _read(f"--samples {name}", path) for name, path in _named_paths(args.samples)}
    train = _read("--train", args.train) if args.train else None
    heldout = _read("--heldout", args.heldout) if args.heldout else None
    noise = _read_noise(args.noise, len(next(iter(sets.values())))) if args.noise else None
    descriptor, sets, train, heldout = _described(args.descriptor, sets, train, heldout)
    tau_rp, tau_gl, calibration = _thresholds(descriptor, args.threshold, sets, train, heldout)
    key = TRAIN if train else None
    samples = [SampleSet(name, s.images, s.features, key) for name, s in sets.items()]
    pairs, models = score_all(
        samples,
        {TRAIN: _as_train_set(train)} if train else {},
        _as_train_set(heldout) if heldout else None,
        descriptor,
        tau_rp,
        tau_gl,
    )
    num_train = len(train) if train else 0
    scores = {
        "schema": 1,
        "noise": noise,
        "cells": {name: _cell(s, num_train) for name, s in sets.items()},
        "pairs": pairs,
        "models": models,
        "calibration": calibration,
        "distances": distance_rows(samples),
        "rp_curves": curve_rows(samples),
    }
    try:
        write_json(out / "scores.json", scores)
    except OSError as error:
        raise InputError("--out", args.out, f"a folder to write to ({error.strerror})") from error
    _print(pairs, models, out / "scores.json")


def _check_options(args: argparse.Namespace, out: Path) -> None:
    """Refuses what can be refused before any file is read."""
    if args.descriptor in WITH_WEIGHTS:
        allowed = "pixels: sscd and learned come with descriptor weights, not in this version"
        raise InputError("--descriptor", args.descriptor, allowed)
    if args.weights:
        raise InputError("--weights", args.weights, "for sscd and learned only")
    if args.threshold is not None and not -1 <= args.threshold <= 1:
        raise InputError("--threshold", args.threshold, "a cosine is between -1 and 1")
    if args.heldout and not args.train:
        raise InputError("--heldout", args.heldout, "used together with --train only")
    if len(args.samples) < 2 and not args.train:
        raise InputError("--samples", args.samples[0], "two sets make a pair; one needs --train")
    if out.exists() and not out.is_dir():
        raise InputError("--out", args.out, "a folder")


def _named_paths(options: Sequence[str]) -> Iterator[tuple[str, str]]:
    seen = set()
    for option in options:
        name, _, path = option.partition("=")
        if not name or not path:
            raise InputError("--samples", option, "NAME=PATH")
        if name in seen:
            raise InputError("--samples", option, f"a name other than {name!r}, which is taken")
        seen.add(name)
        yield name, path


def _read(field: str, path: str) -> ImageSet:
    """Reads a PATH; raises InputError naming the option where it cannot be used."""
    names = _npz_names(field, path) if path.endswith(".npz") else ["images"]
    if not {"images", "features"} & set(names):
        raise InputError(field, path, f"an .npz with `images` or `features`, not {names}")
    images = features = None
    if "features" in names:
        features = _npz_array(field, path, "features")
        if features.dtype != np.float32 or features.ndim != 2 or not features.shape[1]:
            found = f"{path}: features {features.dtype} {list(features.shape)}"
            raise InputError(field, found, "float32 [n, d]")
        if not np.isfinite(features).all():
            raise InputError(field, path, "features without NaN or infinity")
        features = unit_rows(features)
    if "images" in names:
        images = _read_images(field, path)
    if images is not None and features is not None and len(images) != len(features):
        found = f"{path}: {len(images)} images, {len(features)} features"
        raise InputError(field, found, "one row of features for each image")
    result = ImageSet(field, images, features)
    if not len(result):
        raise InputError(field, path, "a set that is not empty")
    return result


def _read_images(field: str, path: str) -> np.ndarray:
    kind = "npz" if path.endswith(".npz") else "folder"
    try:
        source = open_source(SourceSpec(name=kind, path=path))
        return np.asarray(source.gather(np.arange(len(source))))
    except InputError as error:  # name the option, which is what the user can change
        raise InputError(field, path, str(error)) from error


def _npz_names(field: str, path: str) -> list[str]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return sorted(arrays.files)
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(field, path, "an .npz file that can be read") from error


def _npz_array(field: str, path: str, name: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[name]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(field, path, f"an .npz file with a readable `{name}`") from error


def _read_noise(path: str, n: int) -> dict:
    """The fingerprint that a noise file states, or else that of its noise."""
    names = _npz_names("--noise", path)
    if "noise" not in names:
        raise InputError("--noise", path, f"an .npz with `noise`, not {names}")
    noise = _npz_array("--noise", path, "noise")
    if noise.dtype != np.float32 or noise.ndim != 4 or len(noise) < n:
        found = f"{path}: {noise.dtype} {list(noise.shape)}"
        raise InputError("--noise", found, f"float32 [n, h, w, c], n at least {n}")
    if "fingerprint" in names:
        fingerprint = str(_npz_array("--noise", path, "fingerprint"))
    else:
        bank = NoiseBank(seed=-1, n=len(noise), shape=noise.shape[1:], array=noise)
        fingerprint = bank.fingerprint()
    return {"fingerprint": fingerprint, "n": len(noise)}


def _described(name, sets, train, heldout):
    """(descriptor's name, sets, train, heldout), each set with comparable features."""
    every = [*sets.values(), *(s for s in (train, heldout) if s)]
    if name is None and all(s.features is not None for s in every):
        _require_equal(every, lambda s: s.features.shape[1], "features")
        return GIVEN, sets, train, heldout
    for s in every:
        if s.images is None:
            allowed = "images, or features in every one of --samples, --train and --heldout"
            raise InputError(s.field, "features alone", allowed)
    _require_equal(every, lambda s: s.images.shape[1:], "images")
    fit_on = [train] if train else sets.values()
    blocks = (s.images[i : i + ROWS] for s in fit_on for i in range(0, len(s), ROWS))
    describe = descriptor_class(name or "pixels").fit(blocks)

    def with_features(s: ImageSet | None) -> ImageSet | None:
        return s and ImageSet(s.field, s.images, describe(s.images))

    sets = {key: with_features(s) for key, s in sets.items()}
    return describe.name, sets, with_features(train), with_features(heldout)


def _require_equal(sets: Sequence[ImageSet], shape_of, what: str) -> None:
    for a, b in itertools.pairwise(sets):
        if shape_of(a) != shape_of(b):
            found = f"{what} of shape {shape_of(b)}"
            raise InputError(b.field, found, f"shape {shape_of(a)}, as {a.field} has")


def _thresholds(descriptor, given, sets, train, heldout):
    """(τ of RP, τ of GL, what they rest on); GL's has no use without training images."""
    if given is not None or descriptor == GIVEN:
        source, tau = ("paper", PAPER_TAU) if given is None else ("--threshold", given)
        tau = round(tau, 6)
        row = {"source": source, "threshold": tau}
        return tau, tau, {"rp": row, "gl": row if train else None}
    base = train or next(iter(sets.values()))
    tau = calibrate_rp(base.features)
    row = {"source": base.field, "n": min(len(base), MAX_IMAGES), "rate": RP_RATE, "threshold": tau}
    if not train:
        return tau, tau, {"rp": row, "gl": None}
    tau_gl = calibrate_gl(heldout.features if heldout else None, train.features)
    if heldout:
        gl_row = {"source": "--heldout", "n": len(heldout)}
    else:
        gl_row = {"source": "--train, leave-one-out", "n": min(len(train), MAX_IMAGES)}
    gl_row |= {"target": GL_TARGET, "threshold": tau_gl}
    return tau, tau_gl, {"rp": row, "gl": gl_row}


def _as_train_set(s: ImageSet) -> TrainSet:
    return TrainSet(s.images, s.features, len(s))


def _cell(s: ImageSet, num_train: int) -> dict:
    return {
        "hash": s.hash,
        "kind": "external",
        "family": "external",
        "width": 0,
        "n_train": num_train,
        "subset": "",
        "kernel": "",
        "seed": 0,
        "solver": "",
        "nfe": 0,
    }


def _print(pairs: Sequence[dict], models: Sequence[dict], path: Path) -> None:
    """Two small tables and where the file is."""
    console = Console(markup=False, emoji=False, highlight=False)  # names are the user's
    for title, rows, label, last in (
        ("pairs", pairs, lambda row: f"{row['a']} | {row['b']}", "chance"),
        ("models", models, lambda row: row["name"], "reference"),
    ):
        if not rows:
            continue
        table = Table("set", "score", "value", "95 % interval", last, title=title)
        for row in rows:
            low, high = row["ci95"]
            other = "–" if row[last] is None else f"{row[last]:.3f}"
            interval = f"{low:.3f} … {high:.3f}"
            table.add_row(label(row), row["score"], f"{row['value']:.3f}", interval, other)
        console.print(table)
    console.print(f"wrote {path}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
