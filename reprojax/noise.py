"""Writes a noise bank: ``python -m reprojax.noise export --seed S --n N --shape H,W,C --out FILE``.

The file is for samplers in other programs, e.g. in PyTorch. Start from x = sigma_max * z with the
noises z of the file, sample with a deterministic solver, and score the samples with
``python -m reprojax.score``.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from reprojax.errors import (
    InputError,
    ReprojaxError,
    choices,
    one_line,
    require_number,
    require_seed,
)
from reprojax.runtime.files import write_bytes
from reprojax.sampling.noise import NoiseBank


def _npz(noise: np.ndarray, facts: dict) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, noise=noise, **{k: np.asarray(v) for k, v in facts.items()})
    return buffer.getvalue()


def _safetensors(noise: np.ndarray, facts: dict) -> bytes:
    from safetensors.numpy import save

    return save({"noise": noise}, metadata={"reprojax": json.dumps(facts)})


def _torch(noise: np.ndarray, facts: dict) -> bytes:
    try:
        import torch
    except ImportError as error:
        requirement = "a .pt file needs PyTorch installed; or use .npz or .safetensors"
        raise InputError("--out", None, requirement) from error
    buffer = io.BytesIO()
    torch.save({"noise": torch.from_numpy(noise), **facts}, buffer)
    return buffer.getvalue()


FORMATS: dict[str, Callable[[np.ndarray, dict], bytes]] = {
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".pt": _torch,
}


def export(seed: int, n: int, shape: tuple[int, int, int], out: Path) -> str:
    """Writes noises 0 to n - 1 of a bank, float32 `[n, h, w, c]`, under the name "noise".

    Args:
        seed: The seed of the bank.
        n: The number of noises, at least 1.
        shape: The shape (h, w, c) of a noise, each at least 1.
        out: The file to write. Its suffix, a key of `FORMATS`, chooses the format.

    Returns:
        The fingerprint of the bank.

    Raises:
        InputError: A value is outside its range, or the file cannot be written.
    """
    require_seed("--seed", seed)
    require_number("--n", n, at_least=1)
    if out.suffix not in FORMATS:
        raise InputError("--out", str(out), choices(FORMATS, out.suffix))
    bank = NoiseBank(seed, n, shape)
    facts = {**bank.describe(), "fingerprint": bank.fingerprint()}
    data = FORMATS[out.suffix](bank.all(), facts)
    try:
        write_bytes(out, data)
    except OSError as error:
        requirement = f"must be a file that can be written ({error.strerror})"
        raise InputError("--out", str(out), requirement) from error
    return facts["fingerprint"]


def _shape(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(p.isdigit() and int(p) for p in parts):
        raise InputError("--shape", text, "must be three positive numbers H,W,C, e.g. 32,32,3")
    return tuple(int(p) for p in parts)


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises InputError for a mistake instead of printing the usage."""

    def error(self, message: str) -> None:
        raise InputError("command line", None, f"{message}; see --help")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    parser = _Parser(prog="python -m reprojax.noise", description=__doc__.split("\n\n")[0])
    export_parser = parser.add_subparsers(dest="verb", required=True).add_parser(
        "export", help="write a bank to a file", description=__doc__.split("\n\n")[1]
    )
    export_parser.add_argument("--seed", type=int, default=0, help="seed of the bank [0]")
    export_parser.add_argument("--n", type=int, required=True, help="number of noises")
    export_parser.add_argument("--shape", required=True, help="H,W,C of an image, e.g. 32,32,3")
    export_parser.add_argument("--out", required=True, help=f"file: {', '.join(FORMATS)}")
    try:
        options = parser.parse_args(argv)
        shape, out = _shape(options.shape), Path(options.out)
        fingerprint = export(options.seed, options.n, shape, out)
    except ReprojaxError as error:
        print(f"reprojax.noise: {one_line(str(error), 2000)}", file=sys.stderr)
        return error.exit_code
    print(f"{out}: {options.n} noises of shape {shape}, fingerprint {fingerprint}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
