"""One of any number of workers on a study: choose a cell, claim it, do it; then the scores."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from reprojax.errors import (
    DivergedError,
    FailedCellsError,
    InputError,
    LostClaimError,
    one_line,
    require_number,
)
from reprojax.runtime.claims import Claim
from reprojax.runtime.files import content_hash, refresh
from reprojax.runtime.programs import make_room
from reprojax.study.analyses.run import read_analyses, run_analyses
from reprojax.study.board import (
    PASSED_ON,
    Board,
    State,
    cell_state,
    note_done,
    progress_line,
    read_board,
    read_failure,
    write_failure,
)
from reprojax.study.cells import Cell, Study
from reprojax.study.packs import Packer
from reprojax.study.scores import read_scores, score_study
from reprojax.study.stages import Context, is_trained, remove_parts, sample_cell, train_cell

POLL_SECONDS = 1.0  # between two looks at what others do
NAP_SECONDS = 0.1  # between two looks for a signal
SAY_SECONDS = 60.0  # between two lines of a worker that waits, where something changed


@dataclass(frozen=True)
class Share:
    """What one worker does of a study, and how long it waits for the others.

    Args:
        index: of this share, from 0.
        count: shares in all; 1 for a worker that takes whatever is open.
        retry_failed: forget first that cells of this share failed.
        wait_seconds: how long to wait for other workers in all, None for as long as they live.
    """

    index: int = 0
    count: int = 1
    retry_failed: bool = False
    wait_seconds: float | None = None

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            allowed = "must be i/n with 0 <= i < n, e.g. 0/4"
            raise InputError("--shard", f"{self.index}/{self.count}", allowed)
        if self.wait_seconds is not None:
            require_number("--wait_seconds", self.wait_seconds, at_least=0)

    def cells(self, study: Study) -> list[Cell]:
        """Every ``count``-th cell from ``index`` on; a student goes where its teacher does."""
        index = {cell.name: i for i, cell in enumerate(study.cells)}
        for cell in study.cells:  # a teacher stands before its students
            if cell.teacher and not cell.weights:
                index[cell.name] = index[cell.teacher]
        return [cell for cell in study.cells if index[cell.name] % self.count == self.index]


class Patience:
    """The waiting of one worker for others, of which there may be a bound.

    Args:
        context: whose stop is asked while waiting.
        seconds: in all, or None.
    """

    def __init__(self, context: Context, seconds: float | None):
        self._context, self._seconds = context, seconds
        self.waited = 0.0

    def wait(self) -> bool:
        """Waits a little; gives False, without waiting, when the bound is reached."""
        if self._seconds is not None and self.waited >= self._seconds:
            return False
        start = time.monotonic()
        while (spent := time.monotonic() - start) < POLL_SECONDS:
            self._context.stop.check("while waiting for other workers")
            time.sleep(min(NAP_SECONDS, POLL_SECONDS - spent))
        self.waited += time.monotonic() - start
        return True


@dataclass
class Outcome:
    """What a worker did, and what it found when it had nothing left to do.

    Args:
        done: how many things of each kind it made.
        board: the cells at the end.
        complete: whether everything asked for is there, but for what failed.
    """

    done: Counter
    board: Board
    complete: bool


def work(
    context: Context, share: Share, identity: str, *, sample: bool, score: bool, analyse: bool
) -> Outcome:
    """Does what is missing, beside any number of others.

    Args:
        context: of the study.
        share: which cells are this worker's.
        identity: of the study's scores.
        sample: whether cells are sampled, not only trained.
        score: whether scores are made once every cell is done.
        analyse: whether analyses follow them.

    Raises:
        DivergedError: every cell that is trained diverged.
        InputError: a user's mistake that only a cell could find.
        InterruptedRunError: a stop was asked for.
    """
    done: Counter = Counter()
    patience = Patience(context, share.wait_seconds)
    run_cells(context, share, patience, done, sample=sample)
    board = read_board(context, sample=sample)
    _raise_if_all_diverged(context, board)
    if not board.settled:
        return Outcome(done, board, False)
    complete = True
    if score and not context.workdir.is_current():
        context.reporter.say("the study gained cells meanwhile: its scores are left to its workers")
        complete = False
    elif score and board.named(State.DONE):
        complete = _score(context, identity, board.missing, patience, done)
        if complete and analyse and not board.missing:
            complete = _analyse(context, identity, patience, done)
    return Outcome(done, board, complete)


def run_cells(
    context: Context, share: Share, patience: Patience, done: Counter, *, sample: bool
) -> None:
    """Does the cells of a share until each is whole or failed, or patience is at its end."""
    mine = {cell.name for cell in share.cells(context.study)}
    said, packer = _Sayings(context, sample), Packer(context)
    claim_fn = lambda cell: claim_cell(context, cell, sample=sample)  # noqa: E731
    for cell in context.study.cells:
        if cell.name in mine:
            # What a killed run was at is open again, and comes before cells that nobody began.
            context.claims.bury(context.claim_name(cell))
            if cell_state(context, cell, sample=sample) is State.DONE:
                remove_parts(context, cell)  # left by a run killed at its very end
    while True:
        context.stop.check("between cells")
        board = read_board(context, sample=sample)
        found = claim_next(context, board, mine, sample=sample)
        if found is not None:
            make_room()
            with_others = partial(packer.train_with, found[0], board, mine, claim_fn, done)
            attempt(context, *found, done, sample=sample, first=with_others)
            said.now(read_board(context, sample=sample))
            continue
        if not any(_unsettled(board, name) for name in mine):
            return
        said.sometimes(board)
        if not patience.wait():
            return


def _unsettled(board: Board, name: str) -> bool:
    return board.states[name] in (State.OPEN, State.RUNNING) and name not in board.stuck


def claim_next(
    context: Context, board: Board, mine: Collection[str], *, sample: bool
) -> tuple[Cell, Claim] | None:
    """Chooses and claims a cell; None where all that is left is with living workers."""
    refused: set[str] = set()
    while (cell := next_cell(board, mine, refused)) is not None:
        claim = claim_cell(context, cell, sample=sample)
        if claim is not None:
            return cell, claim
        refused.add(cell.name)
    return None


def next_cell(board: Board, mine: Collection[str], refused: Collection[str] = ()) -> Cell | None:
    """The cell to try next: the first that is open, else one whose owner may be dead.

    Args:
        board: as it was read last.
        mine: names of the cells that this worker may do.
        refused: names of those that could not be claimed a moment ago.
    """
    for state in (State.OPEN, State.RUNNING):
        for cell in board.cells:
            free = cell.name in mine and cell.name not in refused
            if free and board.states[cell.name] is state and cell.name not in board.waiting:
                return cell
    return None


def claim_cell(context: Context, cell: Cell, *, sample: bool) -> Claim | None:
    """Claims a cell; None where a living worker has it, or it was settled a moment ago."""
    claim = context.claims.take(context.claim_name(cell))
    if claim is None:
        return None
    if cell_state(context, cell, sample=sample) in (State.DONE, State.FAILED):
        claim.release()
        return None
    return claim


def attempt(
    context: Context,
    cell: Cell,
    claim: Claim,
    done: Counter,
    *,
    sample: bool,
    first: Callable[[], bool] = lambda: True,
) -> None:
    """Does a claimed cell and gives the claim back; a failure stays in the cell's folder.

    Args:
        context: of the study.
        cell: to do.
        claim: on it.
        done: where what is made is counted.
        sample: whether it is sampled, not only trained.
        first: what comes before; says whether anything is left to do.
    """
    try:
        with claim:
            try:
                if not first():
                    return
                do_cell(context, cell, done, sample=sample)
            except PASSED_ON:
                raise
            except Exception as error:
                claim.require()  # what breaks because another worker is at it is no failure
                write_failure(context, cell, error)
                said = one_line(f"{type(error).__name__}: {error}", 2000)
                context.reporter.say(f"{cell.name} failed: {said}")
    except LostClaimError as error:
        context.reporter.say(f"{cell.name}: dropped; {error}")


def do_cell(context: Context, cell: Cell, done: Counter, *, sample: bool) -> None:
    """Trains and samples a claimed cell, as far as that is missing.

    Args:
        context: of the study.
        cell: claimed.
        done: where "trained" and "sampled" are counted.
        sample: whether to sample it.
    """
    folder = context.workdir.path / context.folder(cell)
    left = [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")]
    for path in left:  # by a worker that was killed; whoever lives has a claim
        path.unlink(missing_ok=True)
    stages = [("trained", train_cell), ("sampled", sample_cell)]
    for what, stage in stages[: 2 if sample else 1]:
        start = time.monotonic()
        if stage(context, cell):
            done[what] += 1
            note_done(context, cell, what, time.monotonic() - start)
        context.stop.check(f"after {cell.name} was {what}")


def alone(
    context: Context,
    name: str,
    do: Callable[[], None],
    *,
    patience: Patience,
    there: Callable[[], bool] = lambda: False,
) -> bool:
    """Does what one worker does for all, once no other is at it.

    Args:
        context: of the study.
        name: to claim.
        do: makes it.
        patience: with another worker.
        there: whether it is made, so that nothing is left to do.

    Returns:
        Whether it is there; False when patience ended before.
    """
    path = context.workdir.path

    def found() -> bool:
        refresh(path, *(p for p in path.iterdir() if p.is_dir()))
        return there()

    while not found():
        claim = context.claims.take(name)
        if claim is None:
            if not patience.wait():
                return False
            continue
        try:
            with claim:
                if not found():
                    do()
                return True
        except LostClaimError as error:
            context.reporter.say(f"{name}: dropped; {error}")
    return True


def scores_identity(identity: str, missing: Collection[str]) -> str:
    """Identity of the scores of a study without its missing cells."""
    return content_hash([identity, "without", sorted(missing)]) if missing else identity


def _score(
    context: Context, identity: str, missing: list[str], patience: Patience, done: Counter
) -> bool:
    own = scores_identity(identity, missing)

    def make() -> None:
        done["described"] += score_study(context, own, missing)
        done["scored"] += 1

    there = lambda: read_scores(context.workdir.path, own) is not None  # noqa: E731
    return alone(context, "scores", make, patience=patience, there=there)


def _analyse(context: Context, identity: str, patience: Patience, done: Counter) -> bool:
    def make() -> None:
        done["analysed"] += run_analyses(context, identity)

    wanted = len(context.study.analyses)
    there = lambda: len(read_analyses(context, identity)) == wanted  # noqa: E731
    return alone(context, "analyses", make, patience=patience, there=there)


def _raise_if_all_diverged(context: Context, board: Board) -> None:
    trained = [c for c in board.cells if c.kind != "closed_form" and not c.weights]
    if not trained or any(is_trained(context, cell) for cell in trained):
        return
    failures = [read_failure(context, c) for c in trained if c.name not in board.stuck]
    if all(f is not None and f["error"] == DivergedError.__name__ for f in failures):
        raise DivergedError(failures[0]["message"])


def raise_failed(context: Context, board: Board, names: Collection[str]) -> None:
    """Raises FailedCellsError if any cell is among ``names``, in one line."""
    if not names:
        return
    failures = [read_failure(context, c) for c in board.cells if c.name in names]
    first = next((f"{f['error']}: {f['message']}" for f in failures if f is not None), "no record")
    raise FailedCellsError(
        f"{len(names)} of {len(board.cells)} cells failed: {', '.join(names)}; the first with "
        f"{first}; the same command with --retry_failed tries again"
    )


class _Sayings:
    """The board's line: after each cell, and now and then while waiting."""

    def __init__(self, context: Context, sample: bool):
        self._context, self._sample = context, sample
        self._last, self._when = "", -SAY_SECONDS

    def now(self, board: Board) -> None:
        line = progress_line(self._context, board, sample=self._sample, idle=False)
        self._context.reporter.say(line)
        self._last, self._when = line, time.monotonic()

    def sometimes(self, board: Board) -> None:
        if time.monotonic() - self._when < SAY_SECONDS:
            return
        line = progress_line(self._context, board, sample=self._sample)
        if line != self._last:
            self._context.reporter.say(f"waiting for other workers: {line}")
        self._last, self._when = line, time.monotonic()
