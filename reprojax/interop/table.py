"""Prints which foreign tensors our parameters were made of, by module or tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from reprojax.interop.exchange import Model
from reprojax.interop.mapping import Row

DROPPED = "(dropped)"


def print_rows(rows: Sequence[Row], *, verbose: bool) -> None:
    """Prints a line for each of our modules (or tensors), then for unused tensors, then totals."""
    console = Console(markup=False, emoji=False, highlight=False)  # the file chooses the names
    table = Table()
    table.add_column("ours", no_wrap=True)  # names differ in their ends: never cut them
    table.add_column("theirs", overflow="fold")
    for title in ("tensors", "parameters", "what was done"):
        table.add_column(title)
    for (ours, _), group in _groups(rows, verbose).items():
        theirs = _names([name for row in group for name in row.theirs], verbose)
        steps = dict.fromkeys(part for row in group for part in row.how.split(", "))
        how = group[0].how if ours == DROPPED else ", ".join(steps)
        size = sum(math.prod(row.shape) for row in group if row.ours)
        table.add_row(ours, theirs, str(len(group)), f"{size:,}", how)
    console.print(table)
    parameters = [row for row in rows if row.ours]
    total = sum(math.prod(row.shape) for row in parameters)
    sources = len({name for row in parameters for name in row.theirs})
    console.print(
        f"{total:,} parameters in {len(parameters)} tensors, from {sources} of theirs; "
        f"{len(rows) - len(parameters)} dropped",
        soft_wrap=True,
    )


def print_model(model: Model, where: str) -> None:
    """Prints how the network must be used, and the folder that it was written to."""
    facts = model.facts
    console = Console(markup=False, emoji=False, highlight=False)
    network = ", ".join(f"{k} {v}" for k, v in facts.network)
    shape = "x".join(map(str, facts.image_shape))
    console.print(f"{facts.family} ({network}) for images {shape}", soft_wrap=True)
    console.print(
        f"kernel {facts.kernel}, preconditioning {facts.preconditioning}, "
        f"sigma_data {facts.sigma_data}, {facts.kind}, {model.count():,} parameters",
        soft_wrap=True,
    )
    console.print(f"wrote {where}", soft_wrap=True)


def _groups(rows: Sequence[Row], verbose: bool) -> dict[tuple[str, str], list[Row]]:
    """Groups the rows that share a line of the table: by module, and unused tensors by reason."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if verbose:
            key = (row.ours or DROPPED, row.theirs[0])
        else:
            key = (row.ours.split("/")[0], "") if row.ours else (DROPPED, row.how)
        groups.setdefault(key, []).append(row)
    return groups


def _names(names: Sequence[str], verbose: bool) -> str:
    """Joins the names, or returns the part that they have in common."""
    if verbose or len(set(names)) == 1:
        return ", ".join(names)
    parts = [name.replace("/", ".").split(".") for name in names]
    common = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return ".".join([*common, "*"])
