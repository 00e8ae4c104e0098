"""Times training several models in one program against training them one after another.

Both ways run the train steps of a study (forward, backward, Adam, moving average; with the batches
on the device already), alternating in one process. The benchmark also compares what
``loop.pack = "auto"`` chooses for a long training with the faster of the two ways.

    python benchmarks/packing.py --k 1 4 16 --json packing.json

The exit code is 1 if the choice of auto is more than 10 % slower than the faster way, and 0
otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from typing import Any, NamedTuple

import jax

from reprojax.diffusion.losses.denoising import DenoisingObjective
from reprojax.diffusion.preconditioning import Preconditioning
from reprojax.models.families import build_network
from reprojax.runtime.mesh import make_mesh
from reprojax.training.autopack import Timing, Trial, choose_pack, seconds_of, time_steps
from reprojax.training.spec import TrainingSpec
from reprojax.training.step import StepSpec

SHAPE = (8, 8, 1)
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "U-Net width 8": ("unet", dict(width=8, multipliers=(1, 2), num_blocks=1, attention=())),
    "U-ViT dim 64": ("uvit", dict(width=64, depth=4, num_heads=4, patch=2)),
}
LONG = 10**9  # steps, so many that auto always takes the time to measure
MOST_SLOWER = 0.10


class Row(NamedTuple):
    """One line of the table.

    Args:
        network: The name of the network.
        timing: The seconds per step of a model in both ways.
        compiling: The seconds of the first packed call, which compiles.
        chosen: The number of models per program that auto chooses.
    """

    network: str
    timing: Timing
    compiling: float
    chosen: int

    @property
    def ratio(self) -> float:
        """The time per step of a model in a pack over the time alone."""
        return self.timing.packed / self.timing.alone

    @property
    def slower(self) -> float:
        """The share by which the way that auto chooses is slower than the faster way."""
        ways = {self.timing.k: self.ratio, 1: 1.0}
        return ways[self.chosen] / min(ways.values()) - 1.0 if self.timing.k > 1 else 0.0

    def facts(self) -> dict[str, Any]:
        """Returns the row as JSON values, times in milliseconds."""
        return {
            "network": self.network,
            "k": self.timing.k,
            "alone_ms": round(1e3 * self.timing.alone, 4),
            "packed_ms": round(1e3 * self.timing.packed, 4),
            "ratio": round(self.ratio, 4),
            "compile_s": round(self.compiling, 2),
            "auto": self.chosen,
            "auto_slower_by": round(self.slower, 4),
        }


def measure(name: str, k: int, batch: int, repeats: int) -> Row:
    """Times both ways and lets auto choose."""
    family, network = NETWORKS[name]
    training = TrainingSpec(batch_size=batch)
    module = build_network(family, SHAPE, network)
    spec = StepSpec(module, Preconditioning(), DenoisingObjective(), training, make_mesh())
    trial = Trial(spec, SHAPE, k)
    alone, packed = trial.alone(), trial.packed()
    seconds_of(alone)
    compiling = seconds_of(packed)
    timing = time_steps(alone, packed, k, repeats)
    chosen = choose_pack(spec, SHAPE, k, LONG, log=lambda line: print(f"  {line}", flush=True))
    return Row(name, timing, compiling, chosen)


def main(argv: list[str] | None = None) -> int:
    """Prints the table and returns the exit code, which the module's docstring explains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--k", type=int, nargs="+", default=[1, 4, 16], help="models")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--batch", type=int, default=64, help="images per step of a model")
    parser.add_argument("--repeats", type=int, default=15, help="measurements per median")
    parser.add_argument("--json", help="file to write the table to")
    options = parser.parse_args(argv)
    machine = {
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "cores": os.cpu_count(),
        "batch": options.batch,
        "repeats": options.repeats,
    }
    print(", ".join(f"{k} {v}" for k, v in machine.items()) + f", load {os.getloadavg()[0]:.1f}")
    rows = []
    for name in options.networks:
        for k in options.k:
            row = measure(name, k, options.batch, options.repeats)
            rows.append(row)
            print(
                f"{name:14} K = {k:2}: one after another {1e3 * row.timing.alone:8.2f} ms, packed "
                f"{1e3 * row.timing.packed:8.2f} ms per step of a model, ratio {row.ratio:5.2f}; "
                f"compiled in {row.compiling:.1f} s; auto packs {row.chosen}",
                flush=True,
            )
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"machine": machine, "rows": [r.facts() for r in rows]}, file, indent=1)
            file.write("\n")
    slower_rows = [row for row in rows if row.slower > MOST_SLOWER]
    for row in slower_rows:
        print(
            f"{row.network}, K = {row.timing.k}: auto's choice is {100 * row.slower:.0f} % slower",
            file=sys.stderr,
        )
    return 1 if slower_rows else 0


if __name__ == "__main__":
    sys.exit(main())
