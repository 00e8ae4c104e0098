"""Rows of the tables of the analyses "grid" and "along_training"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reprojax.report.formats import (
    MISSING,
    format_count,
    format_params,
    format_share,
    format_value,
)

Found = Mapping[str, Any]
Rows = Iterator[tuple[str, ...]]

# each row fits into a terminal of 80 columns; what has no place there is in the JSON
VALLEY_COLUMNS = ("pair", "|", "N", "RP there", "lower end", "ratio", "apart")
CROSSING_COLUMNS = ("capacity", "|", "parameters", "GL half at N", "memorized", "up to N")
DISJOINT_COLUMNS = ("capacity", "|", "N", "disjoint", "two seeds", "ratio", "Gaussian")
TIMES_COLUMNS = ("model", "|", "N", "good at step", "memorizes at step", "memorized", "GL")
GROWTH_COLUMNS = ("capacity", "time", "|", "slope in log N", "reached", "never", "at once")
TIMES = {"t_mem": "memorizes", "t_gen": "good"}


def crossing_words(found: Found | None) -> str:
    """Where a share crosses its level: ``312 [290, 340]``, ``below 16``, ``above 16,384``."""
    if found is None:
        return MISSING
    low, high = found["ci95"]
    smallest, largest = (format_count(round(found[k])) for k in ("smallest", "largest"))
    if found["censored"]:
        return f"below {smallest}" if found["censored"] == "below" else f"above {largest}"
    texts = [f"<{smallest}" if low is None else _count(low)]
    texts.append(f">{largest}" if high is None else _count(high))
    return f"{_count(found['value'])} [{', '.join(texts)}]"


def _count(value: float) -> str:
    """A count with three significant digits."""
    digits = max(0, len(str(int(value))) - 3)
    return format_count(int(round(value, -digits)))


def ratio_words(value: float | None, ci: Any) -> str:
    """A ratio, which may exceed 1, with its interval."""
    if value is None:
        return MISSING
    text = lambda x: format_share(x) if x <= 1 else f"{x:.2f}"  # noqa: E731
    return text(value) + (f" [{text(ci[0])}, {text(ci[1])}]" if ci else "")


def valleys(found: Found) -> Rows:
    """A row per pair of capacities."""
    for pair in found["pairs"]:
        v = pair["valley"]
        if v is None:
            continue
        low, end = v["rp"], v["end_rp"]
        yield (
            f"{pair['a']} × {pair['b']}",
            format_count(v["n_train"]),
            format_value(low["value"], low["ci95"]),
            format_value(end["value"], end["ci95"]),
            ratio_words(v["ratio"], v["ratio_ci95"]),
            "yes" if v["disjoint"] else "no",
        )


def crossings(found: Found) -> Rows:
    """A row per capacity."""
    for model in found["models"]:
        half, most = (crossing_words(model[k]) for k in ("gl_crossing", "memorization"))
        share = format_share(found["memorized_share"])
        yield (model["capacity"], format_params(model["params"]), half, share, most)


def disjoint(found: Found) -> Rows:
    """A row per capacity and size that has a second training set or a second seed."""
    for row in found["disjoint"]:
        parts, seeds, gaussian = (row[k] for k in ("parts", "seeds", "gaussian"))
        yield (
            row["capacity"],
            format_count(row["n_train"]),
            _rp(parts),
            _rp(seeds),
            ratio_words(row["ratio"], row["ratio_ci95"]),
            format_share(gaussian and gaussian["value"]),
        )


def _rp(record: Found | None) -> str:
    return MISSING if record is None else format_value(record["value"], record["ci95"])


def times(found: Found) -> Rows:
    """A row per network."""
    for cell in found["cells"]:
        last = cell["rows"][-1]
        yield (
            cell["name"],
            format_count(cell["n_train"]),
            crossing_words(cell["t_gen"]),
            crossing_words(cell["t_mem"]),
            format_share(last["memorized"]["value"]),
            format_share(last["gl"]["value"]),
        )


def growth(found: Found) -> Rows:
    """Two rows per capacity and seed with more than one size."""
    for group in found["groups"]:
        if len(group["names"]) < 2:
            continue
        name = group_name(group, found["groups"])
        for key, words in TIMES.items():
            line = group[key]
            counts = [format_count(line[k]) for k in ("num_reached", "num_never", "num_at_once")]
            yield (name, words, slope_words(line), *counts)


def group_name(group: Found, groups: Sequence[Found]) -> str:
    """The capacity of a group, with its seed where another has that capacity."""
    alike = sum(other["capacity"] == group["capacity"] for other in groups)
    return group["capacity"] + (f", seed {group['seed']}" if alike > 1 else "")


def slope_words(line: Found) -> str:
    """A slope with its interval, which may be negative."""
    if line["slope"] is None:
        return MISSING
    text = f"{line['slope']:.2f}"
    if line["ci95"]:
        text += f" [{line['ci95'][0]:.2f}, {line['ci95'][1]:.2f}]"
    return text.replace("-", "−")
