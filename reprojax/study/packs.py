"""Cells of equal shape, claimed and trained together in one program (``loop.pack``)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import jax

from reprojax.errors import DivergedError, one_line
from reprojax.runtime.claims import Claim
from reprojax.study.board import PASSED_ON, Board, State, note_done, write_failure
from reprojax.study.cells import Cell
from reprojax.study.context import Context
from reprojax.study.models import Trained
from reprojax.study.stages import is_trained, train_pack, training_step
from reprojax.training.autopack import choose_pack

ClaimFn = Callable[[Cell], Claim | None]


def same_shape(cell: Cell) -> Hashable | None:
    """Returns what cells of one pack have in common; None for a cell that no pack can train.

    They may differ in data, seed, and how they are sampled.
    """
    return replace(cell.model, seed=0) if isinstance(cell.model, Trained) else None


def pack_of(cell: Cell, others: Sequence[Cell], k: int) -> list[Cell]:
    """Returns a pack: a cell, and the first of the others that have its shape.

    Args:
        cell: The first member.
        others: Open cells.
        k: The number of members at most.
    """
    shape = same_shape(cell)
    if shape is None:
        return [cell]
    alike = [other for other in others if other != cell and same_shape(other) == shape]
    return [cell, *alike][: max(k, 1)]


class Packer:
    """Trains a worker's cells in packs, as ``loop.pack`` of the study says.

    Cells of one pack go on from the same step, or some would be done before the others, and the
    rest compiled anew. With "auto", the size of a pack is measured once for each shape, number of
    cells, and number of steps that are left.

    Args:
        context: The study's context.
    """

    def __init__(self, context: Context):
        self._context, self._sizes = context, {}
        # One program over several processes is compiled by all of them alike: none is packed.
        self._most = context.study.loop.most_packed if jax.process_count() == 1 else 1

    def train_with(
        self,
        cell: Cell,
        board: Board,
        share: Collection[str],
        claim_fn: ClaimFn,
        counts: Counter,
    ) -> bool:
        """Trains a claimed cell together with open cells of its shape, where there are any.

        The others are claimed too, and released once all are trained: from then on they are cells
        to be sampled like any others. If anything but a divergence stops the pack, nothing more is
        packed, and each cell goes on alone from its newest checkpoint.

        Args:
            cell: The first member, claimed.
            board: The cells as they were read last.
            share: Names of the cells that this worker may do.
            claim_fn: Claims a cell, or returns None.
            counts: Where "trained" is counted.

        Returns:
            True if the cell is left to do; False if it diverged, which is recorded then.

        Raises:
            InterruptedRunError: A stop was asked for.
            InputError: A mistake of the user that only training shows.
            LostClaimError: The claim on a cell of the pack was lost.
        """
        if self._most < 2 or is_trained(self._context, cell) or same_shape(cell) is None:
            return True
        begun = self._context.files(cell).steps_done()
        members = pack_of(cell, self._open_at(board, share, begun), self._most)
        with ExitStack() as claims:
            try:
                left = cell.model.training.steps - begun
                members = members[: self._size(cell, len(members), left)]
                for other in members[1:]:
                    claim = claim_fn(other)
                    if claim is not None and is_trained(self._context, other):
                        claim.release()  # another worker may sample it meanwhile
                        claim = None
                    if claim is None:
                        members = [member for member in members if member != other]
                    else:
                        claims.enter_context(claim)
                if len(members) < 2 or self._size(cell, len(members), left) < len(members):
                    return True
                return self._train(members, counts)
            except PASSED_ON:
                raise
            except Exception as error:
                self._most = 1
                reason = one_line(f"{type(error).__name__}: {error}", 500)
                line = f"pack: given up, one after another from here: {reason}"
                self._context.reporter.say(line)
        return True

    def _open_at(self, board: Board, share: Collection[str], step: int) -> list[Cell]:
        """Returns the open, untrained cells of the share whose training would go on at a step."""
        return [
            cell
            for cell in board.cells
            if cell.name in share and board.states[cell.name] is State.OPEN
            if cell.name not in board.waiting and not is_trained(self._context, cell)
            if self._context.files(cell).steps_done() == step
        ]

    def _size(self, cell: Cell, k: int, left: int) -> int:
        """Returns how many of ``k`` cells to train in one program for ``left`` steps."""
        if self._context.study.loop.pack != "auto" or k < 2:
            return k
        shape = same_shape(cell)
        if (shape, k, left) not in self._sizes:
            size = choose_pack(
                training_step(self._context, cell),
                self._context.images.shape,
                k,
                left,
                teacher=bool(cell.model.teacher),
                log=self._context.reporter.say,
            )
            self._sizes |= {(shape, k, left): size, (shape, size, left): size}
        return self._sizes[shape, k, left]

    def _train(self, members: list[Cell], counts: Counter) -> bool:
        start = time.monotonic()
        errors: dict[str, DivergedError] = train_pack(self._context, members)
        seconds = (time.monotonic() - start) / len(members)
        for member in members:
            if member.name in errors:
                error = errors[member.name]
                self._context.stop.require_claim()
                write_failure(self._context, member, error)
                self._context.reporter.say(f"{member.name} failed: DivergedError: {error}")
            else:
                counts["trained"] += 1
                note_done(self._context, member, "trained", seconds)
        return members[0].name not in errors
