"""The scores in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reprojax.report.formats import (
    MISSING,
    format_count,
    format_distance,
    format_params,
    format_share,
    format_value,
)
from reprojax.report.rows import model_rows, pair_rows
from reprojax.report.summary import headline

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_scores(scores: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the models, the pairs and the headline.

    Args:
        scores: the content of ``scores.json``.
        console: where to; the terminal if None. From 80 columns on numbers stay whole; where
            all does not fit, kind, parameters and N are left out, in this order, and names fold.
    """
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    models, pairs = model_cells(scores), pair_cells(scores)
    if models:
        notes = "held-out: GL of real images; ref: Fréchet distance of training images"
        console.print(_table("Models", MODEL_COLUMNS, models, notes, console.width), "")
    if pairs:
        notes = "95 % intervals in brackets; chance: samples of different noises"
        if len(pairs) > MAX_PAIRS:
            notes += f"; the first {MAX_PAIRS} of {len(pairs)}, all of them are in scores.json"
        console.print(_table("Pairs", PAIR_COLUMNS, pairs[:MAX_PAIRS], notes, console.width), "")
    console.print(Text(headline(scores)))


MODEL_COLUMNS = ("model", "kind", "params", "N", "GL", "held-out", "mem.", "Fréchet", "ref")
PAIR_COLUMNS = ("a", "b", "RP", "chance", "MAE score", "chance")
MAX_PAIRS = 60  # in a terminal; the page has all
WORDS = ("model", "kind", "a", "b")
SPARED = ("kind", "params", "N")  # left out of a terminal too narrow for all, in this order


def describe(cell: Mapping[str, Any]) -> str:
    """What a cell is, in short: ``unet-64 vp``; for a closed form or outside samples, that."""
    family = str(cell.get("family") or "")
    if cell.get("width"):
        family += f"-{cell['width']}"
    kind = {"closed_form": "closed form", "flow_map": "flow map"}.get(cell.get("kind"), "")
    kind = kind or (cell.get("kind") if cell.get("kind") != "network" else "")
    return " ".join(str(part) for part in (family, cell.get("kernel"), kind) if part)


def model_cells(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The texts of the models' table, a tuple for each row, in the order of `MODEL_COLUMNS`."""
    rows = model_rows(scores)
    several = len({row.descriptor for row in rows}) > 1
    return [
        (
            f"{row.name} ({row.descriptor})" if several else row.name,
            describe(row.cell),
            format_params(row.cell.get("params")),
            format_count(row.cell.get("n_train")),
            _value(row.gl),
            format_share(row.gl.get("reference") if row.gl else None),
            format_share(row.memorized["value"] if row.memorized else None),
            format_distance(row.frechet["value"] if row.frechet else None),
            format_distance(row.frechet.get("reference") if row.frechet else None),
        )
        for row in rows
    ]


def pair_cells(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The texts of the pairs' table, a tuple for each row, in the order of `PAIR_COLUMNS`."""
    rows = pair_rows(scores)
    several = len({row.descriptor for row in rows}) > 1
    return [
        (
            row.a,
            f"{row.b} ({row.descriptor or MISSING})" if several else row.b,
            _value(row.rp),
            format_share(row.rp["chance"] if row.rp else None),
            _value(row.mae),
            format_share(row.mae["chance"] if row.mae else None),
        )
        for row in rows
    ]


def _value(record: Mapping[str, Any] | None) -> str:
    return format_value(record["value"], record.get("ci95")) if record else MISSING


def _table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str, width: int
) -> Table:
    """A table for `width` columns: what can be spared goes first, then names fold."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    natural = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    kept = list(range(len(columns)))
    for spare in SPARED:
        if spare in columns and sum(natural[i] + 1 for i in kept) > width:
            kept.remove(columns.index(spare))
    gap = int(sum(natural[i] + 2 for i in kept) <= width)
    table = Table(
        title=title, caption=caption, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, gap, 0, 0)
    )
    for i in kept:
        words = columns[i] in WORDS
        table.add_column(
            columns[i],
            justify="left" if words else "right",
            overflow="fold",
            no_wrap=not words,
            min_width=None if words else natural[i],
        )
    for row in rows:
        table.add_row(*(Text(row[i]) for i in kept))  # Text: a name is not console markup
    return table
