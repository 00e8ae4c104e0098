"""Sets scores in a grid of capacity and number of training images, and places transitions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from reprojax.analyses.common import cell_rows, progress
from reprojax.errors import InputError, require_number
from reprojax.scoring.course import loss_gap
from reprojax.scoring.descriptors import Descriptor
from reprojax.scoring.grid import Flags, count, grid_of_scores, record
from reprojax.scoring.layout import DISJOINT, Layout, lay_out
from reprojax.scoring.models import is_new
from reprojax.scoring.published import paper_grid
from reprojax.scoring.scores import Scores, plain
from reprojax.scoring.similarity import paired_cosines
from reprojax.scoring.spurious import STATES, sample_states, state_shares
from reprojax.scoring.stats import mean_interval, share_ratio
from reprojax.scoring.threads import mapped
from reprojax.study.cells import Cell
from reprojax.study.context import Context
from reprojax.study.images import Images, image_rows
from reprojax.study.scores import read_scores, study_descriptor
from reprojax.study.study import AnalysisSettings, Study

MEMORIZED = STATES.index("memorized")


@dataclass(frozen=True)
class Grid(AnalysisSettings):
    """Settings for scores over capacity and number of training images.

    Attributes:
        cells: Networks that differ in what is recorded of them (network, images, part or seed), and
            the closed forms of their images.
        n: The number of noises whose samples are sorted into memorized, spurious and generalized,
            and which place the two transitions.
        memorized_share: A number of training images counts as memorized if at least this share of
            samples is memorized (effective model memorization, arXiv 2310.02664, which uses .9).
    """

    n: int = 512
    memorized_share: float = 0.9

    def __post_init__(self):
        super().__post_init__()
        require_number("memorized_share", self.memorized_share, above=0, below=1)


def check_grid(study: Study, images: Images, settings: Grid) -> None:
    """Raises InputError unless the cells form a grid."""
    field = "analyses.grid.cells"
    layout = lay_out(cell_rows(study, images, settings.cells), field)
    for values, what in (
        (layout.capacities, "capacities"),
        (layout.sizes, "numbers of training images"),
    ):
        if len(values) < 2:
            requirement = f"must have networks of at least two {what}"
            raise InputError(field, settings.cells, requirement)


def analyse_grid(context: Context, settings: Grid, identity: str) -> dict[str, Any]:
    """Sets the scores of a study in a grid.

    Scores come from scores.json. The analysis itself measures which samples count (for the
    transitions and the states), cosines between models of disjoint images, and the gap between the
    losses that training recorded.

    Returns:
        ``capacities``, ``sizes``, and lists of rows: ``pairs`` (two capacities, a point per size,
        the valley), ``models`` (a capacity, a point per size, the transitions of GL and
        memorization), ``disjoint``, ``states``, ``loss_gaps``; and the published ``paper``.
    """
    scores = read_scores(context.workdir.path, identity)
    layout = lay_out({name: scores.cells[name] for name in settings.cells})
    descriptor, study, n = study_descriptor(context), context.study, settings.n
    facts = {
        name: {"capacity": layout.label(c), "n_train": size, "name": name}
        for c in range(len(layout.capacities))
        for size in layout.sizes
        if (name := layout.network(c, size))
    }
    one_of = {row["n_train"]: study.cell(name) for name, row in facts.items()}
    states, flags, total = [], {}, len(facts) + len(one_of) + 1

    def measure(name: str) -> tuple[np.ndarray, np.ndarray | None]:
        cell = study.cell(name)
        train = context.images.real_set(cell, descriptor)
        features = context.features(cell, descriptor)[:n]
        new = is_new(features, train.features, scores.threshold("gl"))
        return new, _states(context, cell, context.samples(cell)[0][:n])

    with progress(context, "grid", total, "sets of samples") as step:

        def each(function: Callable, items: Collection) -> Iterator[tuple]:
            with mapped(function, items) as results:
                for item, result in zip(items, results, strict=True):
                    step()
                    yield item, result

        disjoint = list(_disjoint(context, layout, scores, descriptor))
        step()
        references = dict(each(lambda size: _heldout_states(context, one_of[size], n), one_of))
        for name, (new, state) in each(measure, facts):
            flags[name] = Flags(new, None if state is None else state == MEMORIZED)
            if state is not None:
                reference = references[facts[name]["n_train"]]
                states.append({**facts[name], **state_shares(state), "reference": reference})
    gaps = {name: loss_gap(context.files(study.cell(name)).read_metrics()) for name in facts}
    return plain(
        {
            "n": min(n, context.banks.n),
            "disjoint": disjoint,
            "states": states,
            **grid_of_scores(scores, layout, flags, settings.memorized_share),
            "loss_gaps": [{**facts[name], **gap} for name, gap in gaps.items() if gap],
            "paper": paper_grid(),
        }
    )


def _disjoint(
    context: Context, layout: Layout, scores: Scores, descriptor: Descriptor
) -> Iterator[dict[str, Any]]:
    """Yields models of disjoint images beside two seeds on the same images (arXiv 2310.02557).

    Models of disjoint images also differ in their seed if the study has such models. With the same
    seed they share the order of the images and the noises of training.
    """
    other_part = DISJOINT.get(layout.subset, "-")

    def measured(a: str | None, b: str | None) -> dict[str, Any] | None:
        rp = record(scores.pair(a, b)) if a and b else None
        if rp is None:
            return None
        features = [context.features(context.study.cell(x), descriptor) for x in (a, b)]
        mean, interval = mean_interval(paired_cosines(*features))
        return {"a": a, "b": b, **rp, "cosine": mean, "cosine_ci95": list(interval)}

    for c, seed in enumerate(layout.seeds):
        others = sorted({key[3] for key in layout.networks if key[0] == c} - {seed})
        for n in layout.sizes:
            own = layout.network(c, n)
            across = (layout.network(c, n, other_part, s) for s in (*others, seed))
            across = next(filter(None, across), None)
            twin = next(filter(None, (layout.network(c, n, seed=s) for s in others)), None)
            parts, seeds = measured(own, across), measured(own, twin)
            if not parts and not seeds:
                continue
            ratio = share_ratio(*count(parts), *count(seeds)) if parts and seeds else (None, None)
            gaussian = layout.closed.get(("gaussian", n, layout.subset))
            yield {
                "capacity": layout.label(c),
                "n_train": n,
                "parts": parts,
                "seeds": seeds,
                # what the two parts share as Gaussians, arXiv 2410.24060 and 2602.02908
                "gaussian": measured(gaussian, across),
                "ratio": ratio[0],
                "ratio_ci95": ratio[1] and list(ratio[1]),
            }


def _states(context: Context, cell: Cell, images: np.ndarray) -> np.ndarray | None:
    """Returns the state of each image, or None if there are too few to compare with."""
    train = context.images.train(cell)
    if len(train) < 2 or len(images) < 2:
        return None
    return sample_states(images, image_rows(train))


def _heldout_states(context: Context, cell: Cell, n: int) -> dict[str, float] | None:
    """Returns the shares of as many held-out images in place of samples, None without so many."""
    heldout, count = context.images.heldout, min(n, context.noise.n)
    if heldout is None or len(heldout) < count:
        return None
    state = _states(context, cell, heldout.images(0, count))
    if state is None:
        return None
    return {name: share["value"] for name, share in state_shares(state).items()}
