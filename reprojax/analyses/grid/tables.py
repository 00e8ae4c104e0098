"""Tables of a grid of capacity and number of training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reprojax.drawing import formats
from reprojax.report.tables import Table
from reprojax.report.words import crossing_words

Analysis = Mapping[str, Any]


def grid_tables(analysis: Analysis) -> list[Table]:
    """Makes the tables that have rows; each fits into a terminal of 80 columns."""
    tables = [_valleys(analysis), _crossings(analysis), _disjoint(analysis)]
    return [table for table in tables if table.rows]


def _valleys(analysis: Analysis) -> Table:
    """Makes a table with a row for each pair of capacities."""
    rows = tuple(
        (
            f"{pair['a']} × {pair['b']}",
            formats.count(valley["n_train"]),
            formats.with_interval(valley["rp"]["value"], valley["rp"]["ci95"]),
            formats.with_interval(valley["end_rp"]["value"], valley["end_rp"]["ci95"]),
            _ratio(valley["ratio"], valley["ratio_ci95"]),
            "yes" if valley["disjoint"] else "no",
        )
        for pair in analysis["pairs"]
        if (valley := pair["valley"])
    )
    columns = ("pair", "N", "RP there", "lower end", "ratio", "apart")
    return Table("The valley of RP between capacities", columns, 1, rows)


def _crossings(analysis: Analysis) -> Table:
    """Makes a table with a row for each capacity."""
    rows = tuple(
        (
            model["capacity"],
            formats.params(model["params"]),
            crossing_words(model["gl_crossing"]),
            formats.share(analysis["memorized_share"]),
            crossing_words(model["memorization"]),
        )
        for model in analysis["models"]
    )
    columns = ("capacity", "parameters", "GL half at N", "memorized", "up to N")
    return Table("Where memorizing ends", columns, 1, rows)


def _disjoint(analysis: Analysis) -> Table:
    """Makes a table with a row for each network that has another training set or seed beside it."""
    rows = tuple(
        (
            row["capacity"],
            formats.count(row["n_train"]),
            *(
                formats.MISSING if r is None else formats.with_interval(r["value"], r["ci95"])
                for r in compared
            ),
            _ratio(row["ratio"], row["ratio_ci95"]),
            formats.share(row["gaussian"] and row["gaussian"]["value"]),
        )
        for row in analysis["disjoint"]
        if (compared := (row["parts"], row["seeds"]))
    )
    columns = ("capacity", "N", "disjoint", "two seeds", "ratio", "Gaussian")
    return Table("RP of networks of disjoint images, beside two seeds", columns, 1, rows)


def _ratio(value: float | None, interval: Sequence[float] | None) -> str:
    """Returns a ratio, which may exceed 1, with its interval."""
    if value is None:
        return formats.MISSING
    texts = [formats.share(x) if x <= 1 else f"{x:.2f}" for x in (value, *(interval or ()))]
    return texts[0] + (f" [{', '.join(texts[1:])}]" if interval else "")
