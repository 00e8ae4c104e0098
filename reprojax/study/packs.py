"""Cells of equal shape, claimed and trained together in one program (``loop.pack``)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import ExitStack

import jax

from reprojax.errors import DivergedError, one_line
from reprojax.runtime.claims import Claim
from reprojax.study.board import PASSED_ON, Board, State, note_done, write_failure
from reprojax.study.cells import Cell
from reprojax.study.stages import Context, is_trained, steps_done, train_pack, training_step
from reprojax.training.autopack import choose_pack

ClaimFn = Callable[[Cell], Claim | None]


def same_shape(cell: Cell) -> Hashable | None:
    """What cells of one pack have in common; None for a cell that is not trained.

    They may differ in data, seed, and how they are sampled.
    """
    if cell.kind == "closed_form" or cell.weights:
        return None
    return (
        cell.family,
        cell.network,
        cell.kernel,
        cell.preconditioning,
        cell.objective,
        cell.options,
        cell.sigma_data,
        cell.training,
        cell.teacher,
    )


def pack_of(cell: Cell, others: Sequence[Cell], k: int) -> list[Cell]:
    """The pack of a cell.

    Args:
        cell: its first member.
        others: that are open.
        k: members at most.

    Returns:
        The cell, and of the others the first that have its shape.
    """
    shape = same_shape(cell)
    if shape is None:
        return [cell]
    alike = [other for other in others if other != cell and same_shape(other) == shape]
    return [cell, *alike][: max(k, 1)]


class Packer:
    """Trains a worker's cells in packs, as ``loop.pack`` of the study says.

    Cells of one pack go on from the same step, or some would be done before the others, and the
    rest compiled anew. With "auto", how many go into a pack is measured once for each shape, number
    of cells, and steps that these have left.

    Args:
        context: of the study.
    """

    def __init__(self, context: Context):
        self._context, self._chosen = context, {}
        # One program over several processes is compiled by all of them alike: none is packed.
        self._most = context.study.loop.most_packed if jax.process_count() == 1 else 1

    def train_with(
        self,
        cell: Cell,
        board: Board,
        mine: Collection[str],
        claim_fn: ClaimFn,
        done: Counter,
    ) -> bool:
        """Trains a claimed cell together with open ones of its shape, where there are such.

        The others are claimed too, and given back once all are trained: from then on they are
        cells to be sampled like any others. If anything but a divergence stops the pack, nothing
        more is packed, and each cell goes on alone from its newest checkpoint.

        Args:
            cell: the first member, claimed.
            board: as it was read last.
            mine: names of the cells that this worker may do.
            claim_fn: claims a cell, or gives None.
            done: where "trained" is counted.

        Returns:
            Whether the cell is left to do: False if it diverged, which is then on record.

        Raises:
            InterruptedRunError: a stop was asked for.
            InputError: a user's mistake that only training could find.
            LostClaimError: a claim on one of the pack was lost.
        """
        if self._most < 2 or is_trained(self._context, cell):
            return True
        begun = steps_done(self._context, cell)
        free = [
            other
            for other in board.cells
            if other.name in mine and board.states[other.name] is State.OPEN
            if other.name not in board.waiting and not is_trained(self._context, other)
            if steps_done(self._context, other) == begun
        ]
        wanted = pack_of(cell, free, self._most)
        with ExitStack() as held:
            try:
                left = cell.training.steps - begun
                wanted = wanted[: self._size(cell, len(wanted), left)]
                members = [cell]
                for other in wanted[1:]:
                    theirs = claim_fn(other)
                    if theirs is not None:
                        held.enter_context(theirs)
                        members += [] if is_trained(self._context, other) else [other]
                if len(members) < 2 or self._size(cell, len(members), left) < len(members):
                    return True
                return self._train(members, done)
            except PASSED_ON:
                raise
            except Exception as error:
                self._most = 1
                said = one_line(f"{type(error).__name__}: {error}", 500)
                self._context.reporter.say(f"pack: given up, one after another from here: {said}")
        return True

    def _size(self, cell: Cell, k: int, left: int) -> int:
        """How many of ``k`` cells of this shape to train in one program for ``left`` steps."""
        if self._context.study.loop.pack != "auto" or k < 2:
            return k
        shape = same_shape(cell)
        if (shape, k, left) not in self._chosen:
            chosen = choose_pack(
                training_step(self._context, cell),
                self._context.images.shape,
                k,
                left,
                teacher=bool(cell.teacher),
                log=self._context.reporter.say,
            )
            self._chosen |= {(shape, k, left): chosen, (shape, chosen, left): chosen}
        return self._chosen[shape, k, left]

    def _train(self, members: list[Cell], done: Counter) -> bool:
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
                done["trained"] += 1
                note_done(self._context, member, "trained", seconds)
        return members[0].name not in errors
