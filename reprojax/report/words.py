"""Phrases that captions, notes and tables share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reprojax.drawing import formats
from reprojax.scoring.scores import Scores

SCORE_NAMES = {"rp": "RP", "mae": "MAE score", "gl": "GL", "memorized": "memorized"}
FIXED = {"mae": "fixed, as in arXiv 2310.05264", "memorized": "fixed, as in arXiv 2310.02664"}


def listed(words: Sequence[str]) -> str:
    """Returns words as a sentence has them: ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def chance_words(scores: Scores) -> str:
    """Returns which samples ``chance`` compares."""
    within = any(row.condition == "same" for row in scores.pairs)
    return "samples of different noises" + (" with the same condition" if within else "")


def sampling_words(scores: Scores, n: int | None = None) -> str:
    """Returns the number of noises and the solver: ``512 noises, heun with 35 evaluations``.

    Args:
        scores: The scores of a study.
        n: The number of noises, where not all of the study's were used.
    """
    count = n or (scores.noise or {}).get("n")
    count = count or max((row.n for row in (*scores.pairs, *scores.models)), default=0)
    samplers = {(cell.solver, cell.nfe) for cell in scores.cells.values() if cell.solver}
    words = [f"{formats.count(count)} noises"] if count else []
    if len(samplers) == 1:
        solver, nfe = samplers.pop()
        words.append(f"{solver} with {nfe} evaluations" if nfe else solver)
    elif samplers:
        words.append(f"{len(samplers)} samplers")
    return ", ".join(words)


def threshold_words(scores: Scores) -> list[str]:
    """Returns a sentence for each threshold that was used: its value and how it came about."""
    rows = [row for row in (*scores.pairs, *scores.models) if row.threshold is not None]
    used = dict.fromkeys((row.score, row.descriptor, row.threshold, row.point) for row in rows)
    lines = []
    for score, descriptor, threshold, point in used:
        # grey levels, a ratio of distances, or a cosine
        value = f"{threshold:g} of 255" if score == "mae" else f"{threshold:.3g}".removeprefix("0")
        name = SCORE_NAMES.get(score, score)
        lines.append(f"{name} {value} ({descriptor}): {_point(scores, score, point)}.")
    return lines


def _point(scores: Scores, score: str, point: str | None) -> str:
    """Returns how a threshold came about, with what it rests on where that is recorded."""
    basis = scores.calibration.get(score) or {}
    if point == "alike":
        images = basis.get("source", "real images")
        often = formats.count(round(1 / basis.get("rate", 1e-3)))
        return f"calibrated on {images}: random pairs of them pass it once in {often}"
    if point == "copy":
        images = basis.get("source", "held-out images")
        share = 100 * (1 - basis.get("target", 0.95))
        return f"calibrated on {images}: {share:.3g} in 100 have a training image that passes it"
    if point == "paper":
        return "published with the descriptor or, for given features, in arXiv 2310.05264"
    return FIXED.get(score, "chosen by the user")


def crossing_words(crossing: Mapping[str, Any] | None) -> str:
    """Returns where a curve crosses its level: ``312 [290, 340]``, ``below 16``, ``above 16,384``.

    Args:
        crossing: A `Crossing` as an analysis stores it, or None.
    """
    if crossing is None:
        return formats.MISSING
    low, high = crossing["ci95"]
    smallest, largest = (formats.count(round(crossing[k])) for k in ("smallest", "largest"))
    if crossing["censored"]:
        return f"below {smallest}" if crossing["censored"] == "below" else f"above {largest}"
    ends = [f"<{smallest}" if low is None else _digits(low)]
    ends.append(f">{largest}" if high is None else _digits(high))
    return f"{_digits(crossing['value'])} [{', '.join(ends)}]"


def _digits(value: float) -> str:
    """Returns a count with three significant digits."""
    digits = max(0, len(str(int(value))) - 3)
    return formats.count(int(round(value, -digits)))
