"""Converts networks of other code bases to folders of our format, and exports a study's weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from reprojax.errors import InputError, ReprojaxError, one_line
from reprojax.interop.diffusers_unet import read_diffusers
from reprojax.interop.edm_pickle import read_edm
from reprojax.interop.exchange import convert, export_model, require_free, write_model
from reprojax.interop.facts import ForeignModel
from reprojax.interop.msgpack import USES, read_msgpack
from reprojax.interop.table import print_model, print_rows
from reprojax.interop.uvit_pth import read_uvit


class Reader(NamedTuple):
    """A file format: the function that reads it, the options that it takes, and a description."""

    read: Callable[..., ForeignModel]
    options: tuple[str, ...]
    about: str


READERS = {
    "diffusers": Reader(read_diffusers, (), "folder of a diffusers UNet2DModel (DDPM)"),
    "edm": Reader(read_edm, (), "pickle of EDM's code: DDPM++, NCSN++; nothing in it is executed"),
    "uvit": Reader(read_uvit, ("heads",), "state dict (.pth) of U-ViT; needs PyTorch 2.6 or newer"),
    "msgpack": Reader(
        read_msgpack, ("preconditioning", "size"), "Flax checkpoint of NCSN++ in JAX"
    ),
}


class _Parser(argparse.ArgumentParser):
    """A parser that raises InputError, so that a mistake is one line and not the whole usage."""

    def error(self, message: str) -> None:
        raise InputError("command line", None, f"{message}; see --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m reprojax.interop", description=__doc__)
    commands = parser.add_subparsers(dest="verb", required=True)
    formats = "; ".join(f"{name}: {reader.about}" for name, reader in READERS.items())
    convert_command = commands.add_parser(
        "convert", help="convert a network of another code base", description=formats
    )
    convert_command.add_argument(
        "--from", dest="format", required=True, choices=list(READERS), help="format of the file"
    )
    convert_command.add_argument(
        "--in", dest="path", metavar="PATH", required=True, help="file or folder to read"
    )
    convert_command.add_argument("--verbose", action="store_true", help="list every tensor")
    convert_command.add_argument(
        "--heads", type=int, metavar="N", help="uvit: number of attention heads [by the width]"
    )
    convert_command.add_argument(
        "--preconditioning",
        choices=list(USES),
        help="msgpack: the network's preconditioning, which the file does not name",
    )
    convert_command.add_argument(
        "--size", type=int, metavar="N", help="msgpack: height and width of its images [32]"
    )
    export_command = commands.add_parser(
        "export",
        help="export the weights of a study",
        description="writes a study's weights.safetensors to a folder that describes itself",
    )
    export_command.add_argument(
        "--weights", metavar="FILE", required=True, help="a study's weights.safetensors"
    )
    export_command.add_argument(
        "--shape", metavar="H,W,C", help="shape of the images, if the file does not state it"
    )
    for command in (convert_command, export_command):
        command.add_argument("--out", metavar="DIR", required=True, help="folder to write")
        command.add_argument(
            "--overwrite", action="store_true", help="replace a folder that this command wrote"
        )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    try:
        options = _parser().parse_args(argv)
        require_free(options.out, options.overwrite)  # fail before the conversion takes time
        {"convert": _convert, "export": _export}[options.verb](options)
    except ReprojaxError as error:
        print(f"reprojax.interop: {one_line(str(error), 2000)}", file=sys.stderr)
        return error.exit_code
    return 0


def _convert(options: argparse.Namespace) -> None:
    reader = READERS[options.format]
    keywords = {}
    for name in sorted({name for other in READERS.values() for name in other.options}):
        if (value := getattr(options, name)) is None:
            continue
        if name not in reader.options:
            raise InputError(f"--{name}", value, f"must be left out with --from {options.format}")
        keywords[name] = value
    model, rows = convert(reader.read(Path(options.path), **keywords), options.path)
    write_model(options.out, model, overwrite=options.overwrite)
    print_rows(rows, verbose=options.verbose)
    print_model(model, options.out)


def _export(options: argparse.Namespace) -> None:
    model = export_model(options.weights, _shape(options.shape))
    write_model(options.out, model, overwrite=options.overwrite)
    print_model(model, options.out)


def _shape(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 3 or not all(p.isdecimal() and int(p) for p in parts):
        raise InputError("--shape", text, "must be three positive numbers H,W,C, e.g. 32,32,3")
    return tuple(int(p) for p in parts)
