"""Views of the scores, one row per model or pair and descriptor, in the order of the tables."""

from __future__ import annotations

from dataclasses import dataclass

from reprojax.scoring.scores import CellRow, ModelRow, PairRow, Scores

TRAINED = ("network", "flow_map")
PEERS = (*TRAINED, "external")  # what a study asks about; the other kinds are its baselines
KINDS = (*PEERS, "contrast", "closed_form")
PAIR_KINDS = {
    "networks": "two models",
    "data": "two models, other training images",
    "sampler": "one network, two samplers",
    "seeds": "two seeds of one model",
    "contrast": "with a contrast model",
    "closed": "with a closed form",
}


@dataclass(frozen=True)
class ModelView:
    """The scores of one model in one descriptor; None stands for what was not scored."""

    name: str
    cell: CellRow
    descriptor: str | None
    gl: ModelRow | None
    memorized: ModelRow | None
    frechet: ModelRow | None


@dataclass(frozen=True)
class PairView:
    """The scores of two models in one descriptor; None stands for what was not scored.

    Attributes:
        a: The name of the model that stands first in the tables.
        b: The name of the other.
        kind: What the pair compares, a key of `PAIR_KINDS`.
        descriptor: The descriptor of the RP score, or None.
        rp: The RP score.
        mae: The MAE score.
    """

    a: str
    b: str
    kind: str
    descriptor: str | None
    rp: PairRow | None
    mae: PairRow | None


def kind_rank(cell: CellRow) -> int:
    """Returns the place of a cell's kind in tables and figures: what is trained comes first."""
    return KINDS.index(cell.kind) if cell.kind in KINDS else len(KINDS)


def model_names(scores: Scores) -> list[str]:
    """Returns all models: networks first, closed forms last, small training sets before large."""
    cells = scores.cells
    return sorted(cells, key=lambda name: (kind_rank(cells[name]), cells[name].n_train))


def pair_kind(a: CellRow, b: CellRow) -> str:
    """Returns what a pair of cells compares, a key of `PAIR_KINDS`."""
    kinds = {a.kind, b.kind}
    if "closed_form" in kinds:
        return "closed"
    if "contrast" in kinds:
        return "contrast"
    if not kinds <= set(TRAINED):
        return "networks"  # nothing more is known of samples that were made elsewhere

    def differ(*fields: str) -> bool:
        return any(getattr(a, field) != getattr(b, field) for field in fields)

    if differ("n_train", "subset"):
        return "data"
    if differ("kind", "family", "width", "params", "num_classes"):
        return "networks"
    if differ("kernel", "preconditioning", "objective", "steps"):
        return "networks"
    if differ("seed"):  # the teachers of two students differ in name where they differ in seed
        return "networks" if differ("solver", "nfe") else "seeds"
    return "sampler" if differ("solver", "nfe") and not differ("teacher") else "networks"


def pair_views(scores: Scores) -> list[PairView]:
    """Returns all pairs, one for each descriptor: by kind of pair, then the highest RP first."""
    place = {name: i for i, name in enumerate(model_names(scores))}
    rp, mae = {}, {}
    for row in scores.pairs:
        a, b = sorted((row.a, row.b), key=place.__getitem__)
        if row.score == "rp":
            rp[a, b, row.descriptor] = row
        elif row.score == "mae":
            mae[a, b] = row
    with_rp = {key[:2] for key in rp}
    keys = [*rp, *((*pair, None) for pair in mae if pair not in with_rp)]
    cells, kinds = scores.cells, list(PAIR_KINDS)
    views = [
        PairView(a, b, pair_kind(cells[a], cells[b]), d, rp.get((a, b, d)), mae.get((a, b)))
        for a, b, d in keys
    ]
    return sorted(views, key=lambda v: (kinds.index(v.kind), -(v.rp.value if v.rp else 0.0)))


def main_pairs(scores: Scores) -> list[PairView]:
    """Returns the pairs that have an RP in the main descriptor."""
    return [v for v in pair_views(scores) if v.rp and v.descriptor == scores.descriptor]


def model_views(scores: Scores) -> list[ModelView]:
    """Returns all models, one for each descriptor that GL was scored in, as `model_names` has them.

    The memorized share is the same in each of them: it is measured in pixels.
    """
    rows: dict[tuple[str, str], dict[str | None, ModelRow]] = {}
    for row in scores.models:
        rows.setdefault((row.name, row.score), {})[row.descriptor] = row
    views = []
    for name in model_names(scores):
        gl, memorized, frechet = (rows.get((name, s), {}) for s in ("gl", "memorized", "frechet"))
        copies = next(iter(memorized.values()), None)
        views += [
            ModelView(name, scores.cells[name], d, gl.get(d), copies, frechet.get(d))
            for d in gl or frechet or [scores.descriptor]
        ]
    return views


def main_models(scores: Scores) -> list[ModelView]:
    """Returns one view of each model: that in the main descriptor, else its first."""
    chosen: dict[str, ModelView] = {}
    for view in model_views(scores):
        if view.name not in chosen or view.descriptor == scores.descriptor:
            chosen[view.name] = view
    return list(chosen.values())
