"""What has become of each cell of a study, read from its folder alone."""

from __future__ import annotations

import enum
import json
import socket
import time
import traceback
from dataclasses import dataclass
from typing import Any

from reprojax.errors import (
    EndedPeerError,
    InputError,
    InterruptedRunError,
    LostClaimError,
    one_line,
)
from reprojax.models.families import count_params
from reprojax.runtime.console import duration
from reprojax.runtime.files import refresh, write_json
from reprojax.study.cells import Cell
from reprojax.study.planning.costs import BACKWARD, evaluations
from reprojax.study.stages import Context, cell_network, is_sampled, is_trained

FAILED = "failed.json"
# What ends a worker, or its hold on a cell, and is no failure of the cell.
PASSED_ON = (InterruptedRunError, InputError, LostClaimError, EndedPeerError)
HISTORY = "history.jsonl"
CLOSED_FORM = 1000  # counted as its parameters: a closed form costs little beside a network


class State(enum.Enum):
    """Of a cell: whole, claimed by somebody, failed, or none of these."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    OPEN = "open"


@dataclass(frozen=True)
class Board:
    """The cells at one moment.

    Args:
        cells: of the study, in order.
        states: by name.
        waiting: names of cells that cannot begin before their teacher has weights.
        stuck: names of those among them whose teacher failed, so that they never will.
    """

    cells: tuple[Cell, ...]
    states: dict[str, State]
    waiting: frozenset[str]
    stuck: frozenset[str]

    def named(self, *states: State) -> list[str]:
        """The cells in these states."""
        return [c.name for c in self.cells if self.states[c.name] in states]

    @property
    def missing(self) -> list[str]:
        """Cells that failed, and those that cannot begin without them."""
        return [n for n in self.states if self.states[n] is State.FAILED or n in self.stuck]

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do: each cell is whole, or it failed, or its teacher did."""
        return len(self.named(State.DONE, State.FAILED)) + len(self.stuck) == len(self.cells)


def read_board(context: Context, *, sample: bool) -> Board:
    """Looks at the folder.

    Args:
        context: of the study.
        sample: whether a whole cell is sampled too, not only trained.
    """
    cells = context.study.cells
    _look_again(context, *cells)
    states = {cell.name: _state(context, cell, sample=sample) for cell in cells}
    trained = {cell.name: is_trained(context, cell) for cell in cells}
    waiting, stuck = set(), set()
    for cell in cells:  # a teacher stands before its students
        if cell.teacher and not trained[cell.name] and not trained[cell.teacher]:
            waiting.add(cell.name)
            if states[cell.teacher] is State.FAILED or cell.teacher in stuck:
                stuck.add(cell.name)
    stuck = {name for name in stuck if states[name] is State.OPEN}
    return Board(cells, states, frozenset(waiting), frozenset(stuck))


def cell_state(context: Context, cell: Cell, *, sample: bool) -> State:
    """The state of one cell; what is whole is done, whatever else lies beside it."""
    _look_again(context, cell)
    return _state(context, cell, sample=sample)


def _look_again(context: Context, *cells: Cell) -> None:
    folders = [context.workdir.path / context.folder(cell) for cell in cells]
    refresh(*dict.fromkeys(folder.parent for folder in folders), *folders)


def _state(context: Context, cell: Cell, *, sample: bool) -> State:
    if is_trained(context, cell) and (is_sampled(context, cell) or not sample):
        return State.DONE
    if read_failure(context, cell) is not None:
        return State.FAILED
    taken = context.claims.taken(context.claim_name(cell))
    return State.RUNNING if taken else State.OPEN


def read_failure(context: Context, cell: Cell) -> dict[str, Any] | None:
    """What failed.json of a cell says, or None."""
    path = context.workdir.path / context.folder(cell) / FAILED
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def write_failure(context: Context, cell: Cell, error: Exception) -> None:
    """Leaves failed.json in the cell's folder: what went wrong, where and when."""
    failure = {
        "cell": cell.name,
        "error": type(error).__name__,
        "message": one_line(str(error), 2000),
        "traceback": "".join(traceback.format_exception(error)),
        "host": socket.gethostname(),
        "time": _now(),
    }
    write_json(context.workdir.own(f"{context.folder(cell)}/{FAILED}"), failure)


def forget_failures(context: Context, cells: list[Cell]) -> int:
    """Removes failed.json of these cells; says how many there were."""
    paths = [context.workdir.path / context.folder(cell) / FAILED for cell in cells]
    there = [path for path in paths if path.exists()]
    for path in there:
        path.unlink(missing_ok=True)
    return len(there)


def note_done(context: Context, cell: Cell, what: str, seconds: float) -> None:
    """Appends to the cell's history what was finished ("trained", "sampled") in what time."""
    path = context.workdir.own(f"{context.folder(cell)}/{HISTORY}")
    path.parent.mkdir(parents=True, exist_ok=True)  # of given weights only samples are kept here
    row = {"done": what, "seconds": round(seconds, 3), "host": socket.gethostname(), "time": _now()}
    with open(path, "a") as file:
        file.write(json.dumps(row) + "\n")


def read_history(context: Context, cell: Cell) -> list[dict[str, Any]]:
    """The lines of `note_done`."""
    try:
        text = (context.workdir.path / context.folder(cell) / HISTORY).read_text()
    except FileNotFoundError:
        return []
    rows = []
    for line in text.splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # torn off by a kill
    return rows


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def progress_line(context: Context, board: Board, *, sample: bool, idle: bool = True) -> str:
    """``12 done, 2 running, 41 open; about 35 min left``, from what cells took in this folder.

    The time is left out before a cell is done, and when nothing is left.

    Args:
        context: of the study.
        board: as it was read last.
        sample: whether cells are sampled too.
        idle: whether who asks is only waiting, and not about to take a cell.
    """
    counts = {state: len(board.named(state)) for state in State}
    said = ", ".join(f"{n} {state.value}" for state, n in counts.items() if n)
    workers = len(board.named(State.RUNNING)) + (0 if idle else 1)
    left = _seconds_left(context, board, sample=sample) / max(1, workers)
    return f"cells: {said}" + (f"; about {duration(left)} left" if left else "")


def _seconds_left(context: Context, board: Board, *, sample: bool) -> float:
    """What is left would take one worker so long, at the rate of what was done here."""
    spent = known = ahead = 0.0
    for cell in board.cells:
        work = _work(context, cell)
        state = board.states[cell.name]
        for row in read_history(context, cell):
            spent += row["seconds"]
            known += work.get(row["done"], 0.0)
        if state in (State.OPEN, State.RUNNING) and cell.name not in board.stuck:
            there = [] if not is_trained(context, cell) else ["trained"]
            there += [] if sample else ["sampled"]
            todo = sum(value for what, value in work.items() if what not in there)
            # Of what is under way, half is done on average.
            ahead += todo / 2 if state is State.RUNNING else todo
    return ahead * spent / known if known else 0.0


def _work(context: Context, cell: Cell) -> dict[str, float]:
    """Relative cost of training and sampling a cell: parameters times images that pass through."""
    passes = context.bank.n * evaluations(context.study.sampler_of(cell))
    if cell.kind == "closed_form":
        return {"sampled": float(CLOSED_FORM * passes)}
    size = count_params(cell_network(cell, context.images.shape), context.images.shape)
    seen = 0 if cell.weights else cell.training.steps * cell.training.batch_size
    return {"trained": float(BACKWARD * size * seen), "sampled": float(size * passes)}
