"""The course of a network's scores along its training: when it is good, and when it memorizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from reprojax.scoring.crossing import crossing, first_fall
from reprojax.scoring.stats import line_slope

PEAK = 4.0  # the square of the range of [-1, 1], for the peak signal-to-noise ratio


class Course(NamedTuple):
    """The scores of one cell along its training.

    Attributes:
        rows: The scores at each snapshot.
        copied: Which samples are memorized, bool `[snapshots, n]`.
        deviations: The jackknife deviations of the Fréchet distances over noises, float64
            `[snapshots, g]`.
    """

    rows: list[dict[str, Any]]
    copied: np.ndarray
    deviations: np.ndarray


def times(course: Course, memorized_share: float, quality: float, index: int) -> dict[str, Any]:
    """Returns the steps at which a network memorizes and at which it is good.

    Args:
        course: The scores of the network along its training.
        memorized_share: The share of memorized samples at ``t_mem``, which grows like N in arXiv
            2505.17638.
        quality: The multiple of the lowest Fréchet distance at ``t_gen``, which hardly depends on N
            in that paper.
        index: The index of the random streams.

    Returns:
        ``t_mem`` and ``t_gen`` with the fields of `Crossing`, and two steps among the snapshots:
        ``best_step`` with the lowest Fréchet distance and ``best_loss_step`` with the lowest
        held-out loss (geometric mean over noise levels).
    """
    rows = course.rows
    steps = [row["step"] for row in rows]
    t_mem = crossing(steps, course.copied, memorized_share, index=2 * index).as_dict()
    loss = [float(np.mean(np.log(row["loss_heldout"]))) for row in rows]
    result = {"t_mem": t_mem, "best_loss_step": steps[int(np.argmin(loss))]}
    values = [row["frechet"]["value"] for row in rows if row.get("frechet")]
    if len(values) < len(rows) or min(values) <= 0:
        return {**result, "t_gen": None, "best_step": None}
    t_gen = first_fall(steps, values, course.deviations, quality, index=2 * index + 1).as_dict()
    return {**result, "t_gen": t_gen, "best_step": steps[int(np.argmin(values))]}


def growth(cells: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields how the times grow with N, for networks that differ in nothing else.

    Args:
        cells: Rows with ``capacity``, ``subset``, ``seed``, ``n_train``, ``t_mem`` and ``t_gen``.

    Yields:
        For each group its facts and, for each time, the slope of log time on log N with a 95 %
        interval over the networks that reach it, the number of these, and the number of those
        that reach it after their last snapshot or before their first. The former would make the
        slope steeper, so it is a lower bound where there are any.
    """
    facts = ("capacity", "subset", "seed")
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell[fact] for fact in facts), []).append(cell)
    for key, group in groups.items():
        group.sort(key=lambda cell: cell["n_train"])
        row: dict[str, Any] = dict(zip(facts, key)) | {"names": [cell["name"] for cell in group]}
        for name in ("t_mem", "t_gen"):
            crossings = [(cell["n_train"], cell[name]) for cell in group if cell[name]]
            points = [(n, t["value"]) for n, t in crossings if t["value"] is not None]
            line = line_slope(*np.log(np.array(points).reshape(-1, 2)).T) if points else None
            row[name] = {
                "slope": line and line[0],
                "intercept": line and line[1],
                "ci95": line and line[2] and list(line[2]),
                "num_reached": len(points),
                "num_never": sum(t["censored"] == "above" for _, t in crossings),
                "num_at_once": sum(t["censored"] == "below" for _, t in crossings),
            }
        yield row


def loss_gap(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Returns held-out less training loss at the end of training, None if it was not recorded.

    The gap in decibels is that of the peak signal-to-noise ratios, 10 log10(4 / mse) on [-1, 1]
    (arXiv 2310.02557): how much better training images are denoised.

    Args:
        rows: The rows of a metrics file.
    """
    rows = [row for row in rows if row.get("loss_train") and row.get("loss_heldout")]
    if not rows:
        return None
    last = max(rows, key=lambda row: row["step"])
    train, heldout = (np.asarray(last[key], float) for key in ("loss_train", "loss_heldout"))
    psnr_train, psnr_heldout = (10 * np.log10(PEAK / loss) for loss in (train, heldout))
    decibels = psnr_train - psnr_heldout
    most = int(np.argmax(decibels))
    return {
        "step": last["step"],
        "sigma": last["sigma"],
        "gap": (heldout - train).tolist(),
        "psnr_train": psnr_train.tolist(),
        "psnr_heldout": psnr_heldout.tolist(),
        "psnr_gap": decibels.tolist(),
        "psnr_gap_mean": float(decibels.mean()),
        "psnr_gap_max": float(decibels[most]),
        "psnr_gap_sigma": last["sigma"][most],
    }
