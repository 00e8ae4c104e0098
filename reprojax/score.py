"""Scores anyone's samples: ``python -m reprojax.score --samples A=a.npz --samples B=b/ --out DIR``.

Reads sets of samples whose row i came from the same noise, and leaves in DIR what a study leaves:
``scores.json``, figures, and a page. The command is flags and a study of external cells.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reprojax.errors import InputError, InterruptedRunError, ReprojaxError

if TYPE_CHECKING:
    from reprojax.interop.samples import ImageSet
    from reprojax.study.context import Context
    from reprojax.study.runner import Prepared

NAME = "python -m reprojax.score"  # of the study; no config has such a name

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

DIR gets scores.json, figures/ and report/index.html. It may be new, empty, or hold the results of
this command, which are replaced; the results of a study are not.
"""


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose error is one line."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {' '.join(message.split())} (see --help)\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Scores the sample sets named on the command line.

    Args:
        argv: The arguments; None takes those of the process.

    Raises:
        SystemExit: With 2 for bad input, after one line on stderr and before anything is written;
            with 130 when interrupted.
    """
    parser = _build_parser()
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parser.parse_args(argv)
    try:
        _run(args, f"python -m reprojax.score {shlex.join(argv)}")
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
    add(
        "--samples",
        metavar="NAME=PATH",
        action="append",
        required=True,
        help="the samples of one model",
    )
    add("--train", metavar="PATH", help="the images that the models were trained on")
    add("--heldout", metavar="PATH", help="real images that they were not trained on")
    add(
        "--descriptor",
        metavar="NAME[:FILE]",
        help="what to compare images by (pixels); default: the given features where every PATH has "
        "them, else pixels",
    )
    add(
        "--threshold",
        metavar="T",
        type=float,
        help="the threshold of the cosine, in place of a calibrated one",
    )
    add("--noise", metavar="FILE", help="the .npz of the noise, whose fingerprint is recorded")
    add("--out", metavar="DIR", required=True, help="where the results go")
    return parser


def _run(args: argparse.Namespace, command: str) -> None:
    _check_options(args)
    # Late: most mistakes in the options are found before what is slow to import.
    from reprojax.analyses.table import show_modules
    from reprojax.report.from_study import report_study
    from reprojax.study.runner import run_study

    prepared = _prepared(args)

    def report(context: Context) -> None:
        report_study(
            context,
            prepared.identity,
            command=command,
            title=f"Scores of {', '.join(cell.name for cell in prepared.study.cells)}",
            shows=show_modules(),
        )

    try:
        run_study(prepared, args.out, overwrite=_owner(args.out) == NAME, report=report)
    except InputError as error:
        if error.field != "workdir":
            raise
        raise InputError("--out", args.out, error.requirement) from error
    print(f"wrote {Path(args.out) / 'scores.json'}")


def _owner(out: str) -> str | None:
    """Returns the name of the study whose results a folder holds, or None."""
    from reprojax.runtime.workdir import owner

    return owner(out)


def _prepared(args: argparse.Namespace) -> Prepared:
    """Reads all sets and makes a study of them."""
    from reprojax.interop.samples import read_image_set
    from reprojax.sampling.noise import read_noise_record
    from reprojax.scoring.scores import GIVEN_FEATURES
    from reprojax.study.cells import Cell
    from reprojax.study.context import Banks
    from reprojax.study.images import GivenImages
    from reprojax.study.models import External
    from reprojax.study.runner import prepare
    from reprojax.study.study import ScoringSpec, Study

    cells = [Cell(n, External(path, f"--samples {n}")) for n, path in _named_paths(args.samples)]
    sets = [cell.model.images for cell in cells]
    train = read_image_set("--train", args.train) if args.train else None
    heldout = read_image_set("--heldout", args.heldout) if args.heldout else None
    every = [*sets, *(s for s in (train, heldout) if s)]
    by_features = args.descriptor is None and all(s.features is not None for s in every)
    _check_shapes(every, by_features)
    n = len(sets[0])
    for image_set in sets:
        if len(image_set) != n:
            requirement = (
                f"has {len(image_set)} samples; must have {n}, as {sets[0].field} has: row i comes "
                "from noise i"
            )
            raise InputError(image_set.field, None, requirement)
    scoring = ScoringSpec(
        descriptor=GIVEN_FEATURES if by_features else args.descriptor or "pixels",
        threshold=None if args.threshold is None else round(args.threshold, 6),
    )
    record = read_noise_record(args.noise, n, "--noise") if args.noise else None
    return prepare(
        Study(NAME, None, tuple(cells), scoring=scoring),
        images=GivenImages(sets[0], train, heldout),
        banks=Banks(None, None, n, record),
    )


def _check_options(args: argparse.Namespace) -> None:
    """Refuses what can be refused before any file is read."""
    from reprojax.scoring.descriptors import check_descriptor

    if args.descriptor:
        check_descriptor(args.descriptor, "--descriptor")
    if args.threshold is not None and not -1 <= args.threshold <= 1:
        raise InputError("--threshold", args.threshold, "must be a cosine, between -1 and 1")
    if args.heldout and not args.train:
        raise InputError("--heldout", args.heldout, "must be used together with --train")
    if len(args.samples) < 2 and not args.train:
        requirement = "must be given twice to make a pair; one set needs --train"
        raise InputError("--samples", args.samples[0], requirement)
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise InputError("--out", args.out, "must be a folder")
    if _owner(args.out) not in (None, NAME):
        requirement = "must be a new or empty folder, or hold the results of this command alone"
        raise InputError("--out", args.out, requirement)


def _named_paths(options: Sequence[str]) -> Iterator[tuple[str, str]]:
    names = set()
    for option in options:
        name, _, path = option.partition("=")
        if not name or not path:
            raise InputError("--samples", option, "must be NAME=PATH")
        if name in names:
            raise InputError("--samples", option, f"must have another name than {name!r}")
        names.add(name)
        yield name, path


def _check_shapes(sets: Sequence[ImageSet], by_features: bool) -> None:
    """Raises InputError unless all sets have images, or else features, of one shape."""

    def shape(image_set: ImageSet) -> tuple[int, ...]:
        array: Any = image_set.features if by_features else image_set.images
        return array.shape[1:]

    if not by_features:
        for image_set in sets:
            if image_set.images is None:
                requirement = (
                    "has features alone; must have images, or else each of --samples, --train and "
                    "--heldout must have features"
                )
                raise InputError(image_set.field, None, requirement)
    for a, b in itertools.pairwise(sets):
        if shape(a) != shape(b):
            array = "features" if by_features else "images"
            requirement = f"has {array} of shape {shape(b)}; must have {shape(a)}, as {a.field}"
            raise InputError(b.field, None, requirement)


if __name__ == "__main__":
    sys.exit(main())
