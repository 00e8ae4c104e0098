"""Tables of short texts, the same in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reprojax.drawing import formats
from reprojax.report.summary import headline
from reprojax.report.words import chance_words
from reprojax.scoring.scores import CellRow, ModelRow, PairRow, Scores
from reprojax.scoring.views import PAIR_KINDS, model_views, pair_views

if TYPE_CHECKING:
    from rich.console import Console

    from reprojax.report.inputs import ReportInputs, Shows

MOST_PRINTED = 60  # rows in a terminal; the page has all


@dataclass(frozen=True)
class Table:
    """A table of short texts.

    Attributes:
        title: The heading of the table.
        columns: The heads of the columns.
        num_words: The number of columns, from the left, that hold words; the others hold numbers.
        rows: The rows, a text for each column.
        note: A line beneath, or "".
        spared: The columns that a narrow terminal leaves out, in this order.
    """

    title: str
    columns: tuple[str, ...]
    num_words: int
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    spared: tuple[str, ...] = ()


def print_table(table: Table, console: Console) -> None:
    """Prints a table of which the numbers stay whole from 80 columns on.

    Where not all fits, the spared columns are left out, then words fold.
    """
    from rich import box
    from rich import table as rich_table
    from rich.text import Text

    note, rows, columns = table.note, table.rows[:MOST_PRINTED], table.columns
    if len(table.rows) > len(rows):
        cut = f"the first {len(rows)} of {len(table.rows)}, the page has them all"
        note = "; ".join(filter(None, [note, cut]))
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    shown = list(range(len(columns)))
    for name in table.spared:
        if sum(widths[i] + 1 for i in shown) > console.width:
            shown.remove(columns.index(name))
    gap = int(sum(widths[i] + 2 for i in shown) <= console.width)
    style = {"box": box.SIMPLE_HEAD, "show_edge": False, "padding": (0, gap, 0, 0)}
    printed = rich_table.Table(title=table.title, caption=note, **style)
    for i in shown:
        if i < table.num_words:
            printed.add_column(columns[i], overflow="fold")
        else:
            printed.add_column(columns[i], justify="right", no_wrap=True, min_width=widths[i])
    for row in rows:
        printed.add_row(*(Text(row[i]) for i in shown))  # Text: a name is not console markup
    console.print(printed, "")


def print_scores(scores: Scores, console: Console | None = None) -> None:
    """Prints the models, the pairs and the headline.

    Args:
        scores: The scores of a study.
        console: Where to print; the terminal if None.
    """
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    for table in score_tables(scores):
        print_table(table, console)
    console.print(Text(headline(scores)))


def print_analyses(inputs: ReportInputs, shows: Mapping[str, Shows], console: Console) -> None:
    """Prints the tables of the analyses.

    Args:
        inputs: The results; scores and analyses are enough.
        shows: The module that shows each analysis, by the name of the analysis.
        console: Where to print.
    """
    for table in analysis_tables(inputs, shows):
        print_table(table, console)


def analysis_tables(inputs: ReportInputs, shows: Mapping[str, Shows]) -> list[Table]:
    """Returns the tables of those analyses that have results, in the order of ``shows``."""
    return [
        table
        for name, show in shows.items()
        if inputs.analyses.get(name)
        for table in show.tables(inputs)
    ]


def score_tables(scores: Scores) -> list[Table]:
    """Returns the tables of the models and of the pairs, without those that have no row."""
    tables = [_models(scores), _pairs(scores)]
    return [table for table in tables if table.rows]


def describe(cell: CellRow) -> str:
    """Returns what a cell is, in short: ``unet-64 vp``, ``gaussian closed form``, ``external``."""
    family = f"{cell.family}-{cell.width}" if cell.width else cell.family
    kind = "" if cell.kind in ("network", cell.family) else cell.kind.replace("_", " ")
    return " ".join(filter(None, (family, cell.kernel, kind)))


def _models(scores: Scores) -> Table:
    views = model_views(scores)
    several = len({view.descriptor for view in views}) > 1
    rows = tuple(
        (
            f"{view.name} ({view.descriptor})" if several else view.name,
            describe(view.cell),
            formats.params(view.cell.params),
            formats.count(view.cell.n_train or None),
            _value(view.gl),
            formats.share(view.gl and view.gl.reference),
            formats.share(view.memorized and view.memorized.value),
            formats.distance(view.frechet and view.frechet.value),
            formats.distance(view.frechet and view.frechet.reference),
        )
        for view in views
    )
    columns = ("model", "kind", "params", "N", "GL", "held-out", "mem.", "Fréchet", "ref")
    note = (
        "95 % intervals in brackets; held-out: GL of held-out real images; mem.: memorized share; "
        "ref: Fréchet distance of training images"
    )
    return Table("Models", columns, 2, rows, note, ("kind", "params", "N"))


def _pairs(scores: Scores) -> Table:
    views = pair_views(scores)
    several = len({view.descriptor for view in views}) > 1
    rows = tuple(
        (
            view.a,
            f"{view.b} ({view.descriptor or formats.MISSING})" if several else view.b,
            PAIR_KINDS[view.kind],
            _value(view.rp),
            formats.share(view.rp and view.rp.chance),
            _value(view.mae),
            formats.share(view.mae and view.mae.chance),
        )
        for view in views
    )
    columns = ("a", "b", "compares", "RP", "chance", "MAE score", "chance")
    note = f"95 % intervals in brackets; chance, of the score on its left: {chance_words(scores)}"
    return Table("Pairs", columns, 3, rows, note, ("compares",))


def _value(row: ModelRow | PairRow | None) -> str:
    return formats.with_interval(row.value, row.ci95) if row else formats.MISSING
