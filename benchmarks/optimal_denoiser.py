"""Times the empirical optimum against the method of the published reference.

Both compute Theorem 1 of arXiv 2310.05264 on the CPU for the same images and noise levels. The
reference method is written from its description: it broadcasts the differences of all pairs,
`[b, n, d]` float64. Ours is a matrix product in float32. The benchmark needs PyTorch.

    python benchmarks/optimal_denoiser.py --batch 16 64 --n 1024 4096

The exit code is 1 if the results differ by more than 1e-4 or ours is less than 100 times as fast,
2 if PyTorch is not installed, and 0 otherwise.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from reprojax.data.transform import to_float
from reprojax.denoisers.optimum import empirical_optimum

SHAPE = (32, 32, 3)
MAX_BYTES = 2 << 30  # if the reference's differences are larger, it computes image by image
MAX_DIFFERENCE = 1e-4
MIN_RATIO = 100


class Row(NamedTuple):
    """One line of the table. Times are medians in seconds."""

    batch: int
    n: int
    ours: float
    reference: float
    difference: float
    chunked: bool

    @property
    def ratio(self) -> float:
        """The time of the reference over the time of ours."""
        return self.reference / self.ours

    def complaints(self) -> list[str]:
        """Returns a line for each limit that this row does not meet."""
        where = f"B = {self.batch}, N = {self.n}"
        lines = []
        if not self.difference <= MAX_DIFFERENCE:
            lines.append(f"{where}: results differ by {self.difference:.1e} > {MAX_DIFFERENCE:.0e}")
        if self.ratio < MIN_RATIO:
            lines.append(f"{where}: {self.ratio:.0f} times as fast, not {MIN_RATIO}")
        return lines


def inputs(batch: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws images `[n, h, w, c]`, noisy images `[b, h, w, c]` and sigma `[b]` in .002 .. 80.

    All are float32.
    """
    rng = np.random.default_rng(0)
    images = to_float(rng.integers(0, 256, (n, *SHAPE)).astype(np.uint8))
    sigma = np.geomspace(0.002, 80, batch).astype(np.float32)
    z = rng.normal(size=(batch, *SHAPE)).astype(np.float32)
    return images, images[rng.integers(0, n, batch)] + sigma[:, None, None, None] * z, sigma


def seconds(function: Callable[[], object], repetitions: int) -> float:
    """Returns the median time of a call in seconds, after one call that does not count."""
    function()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def reference(images, x, sigma):
    """Computes Theorem 1 from the differences of all pairs, float64 `[b, d]`.

    Args:
        images: The training images, a float64 torch tensor `[n, d]`.
        x: The noisy images, a float64 torch tensor `[b, d]`.
        sigma: The noise levels, a float64 torch tensor `[b]`.
    """
    difference = x[:, None, :] - images[None, :, :]
    logits = -(difference**2).sum(-1) / (2 * sigma[:, None] ** 2)
    weights = logits.softmax(1)
    return (weights[:, :, None] * images[None, :, :]).sum(1)


def compare(batch: int, n: int, repetitions: int) -> Row:
    """Times both methods on the same inputs."""
    import torch

    images, x, sigma = inputs(batch, n)
    denoise = jax.jit(lambda d, x, s: d(x, s))
    arguments = jax.device_put((empirical_optimum(images), x, sigma))
    flat = [torch.from_numpy(a.reshape(len(a), -1)).double() for a in (images, x)]
    levels = torch.from_numpy(sigma).double()
    chunked = batch * n * x[0].size * 8 > MAX_BYTES
    step = 1 if chunked else batch

    def reference_denoise():
        starts = range(0, batch, step)
        return torch.cat(
            [reference(flat[0], flat[1][i : i + step], levels[i : i + step]) for i in starts]
        )

    with torch.inference_mode():
        denoised = np.asarray(denoise(*arguments)).reshape(batch, -1)
        difference = float(np.abs(denoised - reference_denoise().numpy()).max())
        ours = seconds(lambda: denoise(*arguments).block_until_ready(), 5 * repetitions)
        return Row(batch, n, ours, seconds(reference_denoise, repetitions), difference, chunked)


def main(argv: list[str] | None = None) -> int:
    """Prints the table and returns the exit code, which the module's docstring explains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64], help="noisy images")
    parser.add_argument("--n", type=int, nargs="+", default=[1024, 4096], help="training images")
    parser.add_argument(
        "--repetitions", type=int, default=5, help="calls of the reference; ours gets 5 times more"
    )
    options = parser.parse_args(argv)
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is missing: pip install -e '.[bench]'", file=sys.stderr)
        return 2
    import torch

    jax.config.update("jax_platforms", "cpu")
    print(
        f"jax {jax.__version__}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{platform.machine()}, {os.cpu_count()} cores; threads: torch {torch.get_num_threads()}, "
        f"XLA {len(os.sched_getaffinity(0))}; load {os.getloadavg()[0]:.1f}"
    )
    print("3x32x32, sigma .002 to 80; ours float32, the reference float64; median seconds")
    print(f"{'B':>4} {'N':>6} {'ours':>9} {'reference':>10} {'ratio':>7} {'difference':>11}")
    rows = []
    for batch in options.batch:
        for n in options.n:
            row = compare(batch, n, options.repetitions)
            rows.append(row)
            print(
                f"{batch:4} {n:6} {row.ours:9.4f} {row.reference:10.3f} {row.ratio:7.0f} "
                f"{row.difference:11.1e}{' *' * row.chunked}",
                flush=True,
            )
    if any(row.chunked for row in rows):
        print("* image by image for the reference (over 2 GiB at once), which only makes it faster")
    complaints = [line for row in rows for line in row.complaints()]
    for line in complaints:
        print(line, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
