"""The state of every cell of a study, read from its folder alone."""

from __future__ import annotations

import enum
import json
import socket
import time
import traceback
from dataclasses import dataclass

from reprojax.errors import (
    EndedPeerError,
    InputError,
    InterruptedRunError,
    LostClaimError,
    one_line,
)
from reprojax.models.costs import BACKWARD
from reprojax.runtime.console import duration
from reprojax.runtime.files import refresh, write_json
from reprojax.study.cells import Cell
from reprojax.study.context import Context
from reprojax.study.stages import is_sampled, is_trained

# What ends a worker, or its claim on a cell, and is no failure of the cell.
PASSED_ON = (InterruptedRunError, InputError, LostClaimError, EndedPeerError)


class State(enum.Enum):
    """The state of a cell: whole, claimed by a worker, failed, or none of these."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    OPEN = "open"


@dataclass(frozen=True)
class Board:
    """The cells of a study at one moment.

    Attributes:
        cells: The cells in the order of the study.
        states: The state of every cell, by name.
        waiting: Names of cells that cannot begin before their teacher has weights.
        stuck: Names of those among them whose teacher failed, so that they never will.
    """

    cells: tuple[Cell, ...]
    states: dict[str, State]
    waiting: frozenset[str]
    stuck: frozenset[str]

    def named(self, *states: State) -> list[str]:
        """Returns the names of the cells in these states."""
        return [c.name for c in self.cells if self.states[c.name] in states]

    @property
    def missing(self) -> list[str]:
        """Names of cells that failed, and of those that cannot begin without them."""
        return [n for n in self.states if self.states[n] is State.FAILED or n in self.stuck]

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do: each cell is whole, or it failed, or its teacher did."""
        return len(self.named(State.DONE, State.FAILED)) + len(self.stuck) == len(self.cells)

    def is_unsettled(self, name: str) -> bool:
        """Returns True if a cell is open or running, and may still be done."""
        return self.states[name] in (State.OPEN, State.RUNNING) and name not in self.stuck


def read_board(context: Context, *, sample: bool) -> Board:
    """Reads the state of every cell from the folder.

    Args:
        context: The study's context.
        sample: Whether a whole cell is sampled too, and not only trained.
    """
    cells = context.study.cells
    _look_again(context, *cells)
    states = {cell.name: _state(context, cell, sample=sample) for cell in cells}
    trained = {cell.name: is_trained(context, cell) for cell in cells}
    waiting, stuck = set(), set()
    for cell in cells:  # a teacher stands before its students
        teacher = cell.model.teacher
        if teacher and not trained[cell.name] and not trained[teacher]:
            waiting.add(cell.name)
            if states[teacher] is State.FAILED or teacher in stuck:
                stuck.add(cell.name)
    stuck = {name for name in stuck if states[name] is State.OPEN}
    return Board(cells, states, frozenset(waiting), frozenset(stuck))


def cell_state(context: Context, cell: Cell, *, sample: bool) -> State:
    """Returns the state of one cell. A whole cell is done, whatever else lies beside it."""
    _look_again(context, cell)
    return _state(context, cell, sample=sample)


def _look_again(context: Context, *cells: Cell) -> None:
    folders = [context.files(cell).path for cell in cells]
    refresh(*dict.fromkeys(folder.parent for folder in folders), *folders)


def _state(context: Context, cell: Cell, *, sample: bool) -> State:
    if is_trained(context, cell) and (is_sampled(context, cell) or not sample):
        return State.DONE
    if context.files(cell).read_failure() is not None:
        return State.FAILED
    taken = context.claims.taken(context.claim_name(cell))
    return State.RUNNING if taken else State.OPEN


def write_failure(context: Context, cell: Cell, error: Exception) -> None:
    """Writes into the cell's folder what went wrong, where and when."""
    failure = {
        "cell": cell.name,
        "error": type(error).__name__,
        "message": one_line(str(error), 2000),
        "traceback": "".join(traceback.format_exception(error)),
        **_here_and_now(),
    }
    files = context.files(cell)
    files.own(files.failure)
    write_json(files.failure, failure)


def forget_failures(context: Context, cells: list[Cell]) -> None:
    """Removes the failures of these cells, so that they are tried again."""
    for cell in cells:
        context.files(cell).failure.unlink(missing_ok=True)


def note_done(context: Context, cell: Cell, stage: str, seconds: float) -> None:
    """Appends a stage that was finished ("trained", "sampled"), and its time, to the history."""
    files = context.files(cell)
    files.own(files.history)
    files.path.mkdir(parents=True, exist_ok=True)  # of given weights only samples are kept here
    row = {"done": stage, "seconds": round(seconds, 3), **_here_and_now()}
    with open(files.history, "a") as file:
        file.write(json.dumps(row) + "\n")


def _here_and_now() -> dict[str, str]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"host": socket.gethostname(), "time": now}


def progress_line(context: Context, board: Board, *, sample: bool, idle: bool = True) -> str:
    """Returns a line such as ``12 done, 2 running, 41 open; about 35 min left``.

    The time follows from what cells took in this folder. It is left out before a cell is done, and
    when nothing is left.

    Args:
        context: The study's context.
        board: The cells as they were read last.
        sample: Whether cells are sampled too.
        idle: Whether the worker that asks is waiting, and not about to take a cell.
    """
    counts = {state: len(board.named(state)) for state in State}
    words = ", ".join(f"{n} {state.value}" for state, n in counts.items() if n)
    workers = len(board.named(State.RUNNING)) + (0 if idle else 1)
    left = _seconds_left(context, board, sample=sample) / max(1, workers)
    return f"cells: {words}" + (f"; about {duration(left)} left" if left else "")


def _seconds_left(context: Context, board: Board, *, sample: bool) -> float:
    """Returns how long one worker would take for the rest, at the rate of what was done here."""
    spent = finished = ahead = 0.0
    for cell in board.cells:
        work = _work(context, cell)
        state = board.states[cell.name]
        for row in context.files(cell).read_history():
            spent += row["seconds"]
            finished += work.get(row["done"], 0.0)
        if board.is_unsettled(cell.name):
            skipped = ["trained"] if is_trained(context, cell) else []
            skipped += [] if sample else ["sampled"]
            todo = sum(value for stage, value in work.items() if stage not in skipped)
            # Of what is under way, half is done on average.
            ahead += todo / 2 if state is State.RUNNING else todo
    return ahead * spent / finished if finished else 0.0


def _work(context: Context, cell: Cell) -> dict[str, float]:
    """Returns the relative cost of the stages of a cell: parameters times images through it."""
    model, size = cell.model, cell.model.size(context.images.shape)
    passes = context.study.expected_nfe(cell) * context.banks.n
    trained = BACKWARD * size * model.images_seen
    return {"trained": float(trained), "sampled": float(size * passes)}
