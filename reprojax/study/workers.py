"""A worker, one of any number on a study: it claims and makes cell after cell, then the scores."""

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
from reprojax.study.analysing import Analyses, read_analyses, run_analyses
from reprojax.study.board import (
    PASSED_ON,
    Board,
    State,
    cell_state,
    note_done,
    progress_line,
    read_board,
    write_failure,
)
from reprojax.study.cells import Cell
from reprojax.study.context import Context
from reprojax.study.packs import Packer
from reprojax.study.scores import read_scores, score_study
from reprojax.study.stages import is_trained, sample_cell, train_cell
from reprojax.study.study import Study

STAGES = ("train", "sample", "score", "analyse")
POLL_SECONDS = 1.0  # between two looks at what other workers do
NAP_SECONDS = 0.1  # between two looks for a signal
SAY_SECONDS = 60.0  # between two lines of a worker that waits, where something changed


@dataclass(frozen=True)
class Share:
    """What one worker does of a study, and how long it waits for the others.

    Attributes:
        index: The number of this share, from 0.
        count: The number of shares; 1 for a worker that takes whatever is open.
        retry_failed: Whether cells of this share that failed are tried again.
        wait_seconds: How long to wait for other workers in all; None for as long as they live.
    """

    index: int = 0
    count: int = 1
    retry_failed: bool = False
    wait_seconds: float | None = None

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            requirement = "must be i/n with 0 <= i < n, e.g. 0/4"
            raise InputError("--shard", f"{self.index}/{self.count}", requirement)
        if self.wait_seconds is not None:
            require_number("--wait_seconds", self.wait_seconds, at_least=0)

    def cells(self, study: Study) -> list[Cell]:
        """Returns every ``count``-th cell from ``index`` on; a student goes with its teacher."""
        index = {cell.name: i for i, cell in enumerate(study.cells)}
        for cell in study.cells:  # a teacher stands before its students
            if cell.model.teacher and cell.model.trains:
                index[cell.name] = index[cell.model.teacher]
        return [cell for cell in study.cells if index[cell.name] % self.count == self.index]


class Patience:
    """The time that one worker waits for others, of which there may be a bound.

    Args:
        context: The study's context, whose stop is asked while waiting.
        seconds: The bound, or None.
    """

    def __init__(self, context: Context, seconds: float | None):
        self._context, self._seconds = context, seconds
        self.waited = 0.0

    def wait(self) -> bool:
        """Waits a little; returns False, without waiting, when the bound is reached."""
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
    """What a worker did, and what the board was when it had nothing left to do.

    Attributes:
        counts: How many things of each kind it made.
        board: The cells at the end.
        complete: Whether everything asked for is there, but for what failed.
    """

    counts: Counter
    board: Board
    complete: bool


class Worker:
    """Does what is missing of a study, beside any number of other workers.

    Args:
        context: The study's context.
        share: The cells of this worker.
        last: The last stage, a name of `STAGES`.
        analyses: All analyses by name.
    """

    def __init__(self, context: Context, share: Share, last: str, analyses: Analyses):
        self.context, self.share, self._last = context, share, last
        self._analyses = analyses
        self.patience = Patience(context, share.wait_seconds)
        self.counts: Counter = Counter()
        self._names = {cell.name for cell in share.cells(context.study)}
        self._line, self._line_time = "", -SAY_SECONDS

    def _reaches(self, stage: str) -> bool:
        return STAGES.index(self._last) >= STAGES.index(stage)

    @property
    def samples(self) -> bool:
        """Whether cells are sampled, and not only trained."""
        return self._reaches("sample")

    def work(self, identity: str) -> Outcome:
        """Does the cells of its share, then the scores and the analyses.

        Args:
            identity: The identity of the study's scores.

        Raises:
            DivergedError: Every cell that is trained diverged.
            InputError: A mistake of the user that only a cell shows.
            InterruptedRunError: A stop was asked for.
        """
        self.run_cells()
        board = self.read_board()
        self._raise_if_all_diverged(board)
        if not board.settled:
            return Outcome(self.counts, board, False)
        complete = True
        if self._reaches("score") and not self.context.workdir.is_current():
            line = "the study gained cells meanwhile: its scores are left to its workers"
            self.context.reporter.say(line)
            complete = False
        elif self._reaches("score") and board.named(State.DONE):
            complete = self._score(identity, board.missing)
            if complete and self._reaches("analyse") and not board.missing:
                complete = self._analyse(identity)
        return Outcome(self.counts, board, complete)

    def read_board(self) -> Board:
        """Returns the state of all cells."""
        return read_board(self.context, sample=self.samples)

    def run_cells(self) -> None:
        """Does the cells of the share until each is whole or failed, or patience ends."""
        packer = Packer(self.context)
        self._tidy()
        while True:
            self.context.stop.check("between cells")
            board = self.read_board()
            taken = self._claim_next(board)
            if taken is not None:
                make_room()
                with_others = partial(
                    packer.train_with, taken[0], board, self._names, self.claim, self.counts
                )
                self._attempt(*taken, first=with_others)
                self._say_board(self.read_board())
                continue
            if not any(board.is_unsettled(name) for name in self._names):
                return
            self._say_waiting(board)
            if not self.patience.wait():
                return

    def _tidy(self) -> None:
        """Removes what killed runs left of the share's cells."""
        for cell in self.context.study.cells:
            if cell.name in self._names:
                # What a killed run was at is open again, and comes before untouched cells.
                self.context.claims.bury(self.context.claim_name(cell))
                if cell_state(self.context, cell, sample=self.samples) is State.DONE:
                    self.context.files(cell).remove_parts()  # left by a run killed at its very end

    def _claim_next(self, board: Board) -> tuple[Cell, Claim] | None:
        """Chooses and claims a cell; returns None if living workers hold all that are left."""
        refused: set[str] = set()
        while (cell := next_cell(board, self._names, refused)) is not None:
            claim = self.claim(cell)
            if claim is not None:
                return cell, claim
            refused.add(cell.name)
        return None

    def claim(self, cell: Cell) -> Claim | None:
        """Claims a cell; returns None if a living worker holds it, or if nothing is left to do."""
        claim = self.context.claims.take(self.context.claim_name(cell))
        if claim is None:
            return None
        if cell_state(self.context, cell, sample=self.samples) in (State.DONE, State.FAILED):
            claim.release()
            return None
        return claim

    def _attempt(self, cell: Cell, claim: Claim, *, first: Callable[[], bool]) -> None:
        """Does a claimed cell and releases the claim; a failure is written into its folder.

        Args:
            cell: The cell.
            claim: The claim on it.
            first: Called before; returns False if nothing is left to do.
        """
        context = self.context
        try:
            with claim:
                try:
                    if first():
                        self._do(cell)
                except PASSED_ON:
                    raise
                except Exception as error:
                    claim.require()  # no failure if another worker took the cell
                    write_failure(context, cell, error)
                    reason = one_line(f"{type(error).__name__}: {error}", 2000)
                    context.reporter.say(f"{cell.name} failed: {reason}")
        except LostClaimError as error:
            context.reporter.say(f"{cell.name}: dropped; {error}")

    def _do(self, cell: Cell) -> None:
        """Trains and samples a claimed cell, as far as that is missing."""
        context = self.context
        context.files(cell).remove_temporaries()  # of a killed worker: a living one has a claim
        stages = [("trained", train_cell), ("sampled", sample_cell)]
        for name, stage in stages[: 2 if self.samples else 1]:
            start = time.monotonic()
            if stage(context, cell):
                self.counts[name] += 1
                note_done(context, cell, name, time.monotonic() - start)
            context.stop.check(f"after {cell.name} was {name}")

    def alone(
        self, name: str, make: Callable[[], None], exists: Callable[[], bool] = lambda: False
    ) -> bool:
        """Makes what one worker makes for all, once no other worker is making it.

        Args:
            name: The name to claim.
            make: Makes it.
            exists: Returns True if it is made already.

        Returns:
            True if it is there; False when patience ended before.
        """
        while not self._exists(exists):
            claim = self.context.claims.take(name)
            if claim is None:
                if not self.patience.wait():
                    return False
                continue
            try:
                with claim:
                    if not self._exists(exists):
                        make()
                    return True
            except LostClaimError as error:
                self.context.reporter.say(f"{name}: dropped; {error}")
        return True

    def _exists(self, exists: Callable[[], bool]) -> bool:
        path = self.context.workdir.path
        refresh(path, *(p for p in path.iterdir() if p.is_dir()))
        return exists()

    def _score(self, identity: str, missing: list[str]) -> bool:
        own = scores_identity(identity, missing)

        def make() -> None:
            self.counts["described"] += score_study(self.context, own, missing)
            self.counts["scored"] += 1

        def exists() -> bool:
            return read_scores(self.context.workdir.path, own) is not None

        return self.alone("scores", make, exists)

    def _analyse(self, identity: str) -> bool:
        def make() -> None:
            self.counts["analysed"] += run_analyses(self.context, identity, self._analyses)

        def exists() -> bool:
            results = read_analyses(self.context, identity)
            return len(results) == len(self.context.study.analyses)

        return self.alone("analyses", make, exists)

    def _raise_if_all_diverged(self, board: Board) -> None:
        context = self.context
        trained = [c for c in board.cells if c.model.trains]
        if not trained or any(is_trained(context, cell) for cell in trained):
            return
        failures = [context.files(c).read_failure() for c in trained if c.name not in board.stuck]
        if all(f is not None and f["error"] == DivergedError.__name__ for f in failures):
            raise DivergedError(failures[0]["message"])

    def raise_failed(self, board: Board) -> None:
        """Raises FailedCellsError, in one line, if cells are missing that this worker answers for.

        While others are still at work, they answer for theirs.
        """
        names = [n for n in board.missing if board.settled or n in self._names]
        if not names:
            return
        cells = [c for c in board.cells if c.name in names]
        failures = [self.context.files(c).read_failure() for c in cells]
        reasons = (f"{f['error']}: {f['message']}" for f in failures if f is not None)
        raise FailedCellsError(
            f"{len(names)} of {len(board.cells)} cells failed: {', '.join(names)}; the first with "
            f"{next(reasons, 'no record')}; the same command with --retry_failed tries again"
        )

    def _say_board(self, board: Board) -> None:
        """Prints a line with the state of all cells."""
        self._line = progress_line(self.context, board, sample=self.samples, idle=False)
        self._line_time = time.monotonic()
        self.context.reporter.say(self._line)

    def _say_waiting(self, board: Board) -> None:
        """Prints such a line now and then while waiting, where something changed."""
        if time.monotonic() - self._line_time < SAY_SECONDS:
            return
        line = progress_line(self.context, board, sample=self.samples)
        if line != self._line:
            self.context.reporter.say(f"waiting for other workers: {line}")
        self._line, self._line_time = line, time.monotonic()


def next_cell(board: Board, share: Collection[str], refused: Collection[str] = ()) -> Cell | None:
    """Returns the cell to try next: the first that is open, else one whose owner may be dead.

    Args:
        board: The cells as they were read last.
        share: Names of the cells that this worker may do.
        refused: Names of those that could not be claimed a moment ago.
    """
    for state in (State.OPEN, State.RUNNING):
        for cell in board.cells:
            free = cell.name in share and cell.name not in refused
            if free and board.states[cell.name] is state and cell.name not in board.waiting:
                return cell
    return None


def scores_identity(identity: str, missing: Collection[str]) -> str:
    """Returns the identity of the scores of a study without its missing cells."""
    return content_hash([identity, "without", sorted(missing)]) if missing else identity
