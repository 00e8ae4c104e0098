"""The analyses as short tables, in the terminal and on the page; the rest is in their JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reprojax.report import grid_tables
from reprojax.report.formats import (
    MISSING,
    format_bound,
    format_count,
    format_distance,
    format_percent,
    format_share,
    format_value,
)

if TYPE_CHECKING:
    from rich.console import Console

Rows = Iterator[tuple[str, ...]]


def print_analyses(analyses: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Prints a table for each analysis that has one.

    Args:
        analyses: by name, as `read_analyses` gives them.
        console: where to.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    for found in analysis_tables(analyses):
        table = Table(title=found.title, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        for i, column in enumerate(found.columns):
            words = i < found.num_words
            table.add_column(column, justify="left" if words else "right", no_wrap=not words)
        for row in found.rows:
            table.add_row(*(Text(text) for text in row))
        console.print(table, "")


@dataclass(frozen=True)
class AnalysisTable:
    """One analysis in a few rows of text.

    Attributes:
        title: what the numbers are.
        columns: their heads.
        num_words: so many columns, the first, hold words; the others hold numbers.
        rows: a text per column.
    """

    title: str
    columns: tuple[str, ...]
    num_words: int
    rows: tuple[tuple[str, ...], ...]


def analysis_tables(analyses: Mapping[str, Mapping[str, Any]]) -> Iterator[AnalysisTable]:
    """The tables of those analyses that have one, in the order of `TABLES`.

    Args:
        analyses: by name, as `read_analyses` gives them.
    """
    for name, (title, columns, rows) in TABLES.items():
        found = analyses.get(name.partition("/")[0])
        texts = tuple(rows(found)) if found else ()
        if found and (texts or "/" not in name):
            split = columns.index(NUMBERS)
            columns = columns[:split] + columns[split + 1 :]
            yield AnalysisTable(title, columns, split, texts)


def _reached(found: Mapping[str, Any]) -> Rows:
    stochastic = {row["solver"] for row in found["rows"] if row["stochastic"]}
    for row in found["reaches"]:
        best = max(
            (r for r in found["rows"] if (r["cell"], r["solver"]) == (row["cell"], row["solver"])),
            key=lambda r: r["nfe"],
        )
        solver = row["solver"] + (" (stochastic)" if row["solver"] in stochastic else "")
        costs = [MISSING if row[k] is None else f"{row[k]:.0f}" for k in ("nfe_90", "nfe_99")]
        yield (row["cell"], solver, *costs, f"{best['nfe']:.0f}", _share(best))


def _trips(found: Mapping[str, Any]) -> Rows:
    for row in found["round_trips"]:
        yield (row["cell"], row["cell"], row["source"], *_ends(row))
    for row in found["transplants"]:
        yield (row["a"], row["b"], row["source"], *_ends(row))


def _ends(row: Mapping[str, Any]) -> Sequence[str]:
    return _share(row), format_value(row["chance"], None), format_distance(row["pfd"])


def _ceilings(found: Mapping[str, Any]) -> Rows:
    for row in found["rows"]:
        other = row["other_image"]
        landed = MISSING if other is None else format_value(other, row["other_ci95"])
        yield row["cell"], row["change"], landed, _share(row), format_distance(row["pfd"])


def _ranks(found: Mapping[str, Any]) -> Rows:
    for cell in dict.fromkeys(row["cell"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["cell"] == cell]
        top = max(rows, key=lambda row: row["rank"])
        low, high = rows[0], rows[-1]
        ends = [f"{row['rank']:.1f} at {row['sigma']:g}" for row in (low, top, high)]
        yield (cell, *ends, format_count(found["dimension"]))


def _locals(found: Mapping[str, Any]) -> Rows:
    for row in found["models"]:
        median = format_value(row["r2_median"], row["r2_median_ci95"])
        yield row["name"], found["cell"], median, format_value(row["r2_mean"], row["r2_mean_ci95"])


def _families(found: Mapping[str, Any]) -> Rows:
    summary, models = found["summary"], (found["paper"] or {}).get("models", {})
    for key, words in FAMILIES.items():
        group = summary.get(key)
        whole = summary[key.removesuffix("_counterparts")] if group else None
        if group is None or (whole is not group and whole["num_pairs"] == group["num_pairs"]):
            continue  # the paper has all pairs: a second row would only repeat the first
        for score, name in (("rp", "RP"), ("mae", "MAE")):
            own = group[score]
            pair = [models[n] if key == "paper" else n for n in own["min_pair"] or ()]
            chance = MISSING if own["chance"] is None else format_bound(own["chance"])
            numbers = format_share(own["mean"]), format_share(own["min"])
            limit = format_share(own["ceiling"]), format_percent(own["of_ceiling"])
            pairs = format_count(group["num_pairs"])
            yield (words, name, " × ".join(pair) or MISSING, pairs, *numbers, *limit, chance)


def _share(row: Mapping[str, Any]) -> str:
    return format_value(row["rp"], row["ci95"])


NUMBERS = "|"  # columns of words stand before it
FAMILIES = {
    "native": "native",
    "native_counterparts": "native, the paper's pairs",
    "shared": "one solver",
    "shared_counterparts": "one solver, the paper's pairs",
    "paper": "the paper, CIFAR-10",
}
# name of the analysis, "/" and a word where it has several: (title, columns, rows)
TABLES = {
    "solvers": (
        "Evaluations until RP with the limit is",
        ("model", "solver", NUMBERS, ".90", ".99", "most", "RP there"),
        _reached,
    ),
    "encoding": (
        "Images encoded and decoded",
        ("encoded by", "decoded by", "images", NUMBERS, "RP", "chance", "PFD"),
        _trips,
    ),
    "ceiling": (
        "The sampler's own ceiling",
        ("model", "change", NUMBERS, "other image", "RP", "PFD"),
        _ceilings,
    ),
    "jacobian": (
        "Rank of the Jacobian",
        ("model", NUMBERS, "smallest sigma", "most", "largest sigma", "dimension"),
        _ranks,
    ),
    "local": (
        "r² of each image",
        ("model", "with", NUMBERS, "median", "mean"),
        _locals,
    ),
    "shared_solver": (
        "Agreement of trained models: native samplers, and one solver for all",
        (
            "samplers",
            "score",
            "lowest pair",
            NUMBERS,
            "pairs",
            "mean",
            "lowest",
            "two seeds",
            "mean of it",
            "chance",
        ),
        _families,
    ),
    "grid/valleys": (
        "The valley of RP between capacities",
        grid_tables.VALLEY_COLUMNS,
        grid_tables.valleys,
    ),
    "grid/crossings": (
        "Where memorizing ends",
        grid_tables.CROSSING_COLUMNS,
        grid_tables.crossings,
    ),
    "grid/disjoint": (
        "RP of networks of disjoint images, beside two seeds",
        grid_tables.DISJOINT_COLUMNS,
        grid_tables.disjoint,
    ),
    "along_training/times": (
        "When networks get good, and when they memorize",
        grid_tables.TIMES_COLUMNS,
        grid_tables.times,
    ),
    "along_training/growth": (
        "How these times grow with the number of training images",
        grid_tables.GROWTH_COLUMNS,
        grid_tables.growth,
    ),
}
