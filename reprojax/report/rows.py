"""The content of ``scores.json`` as rows: which models, which pairs, what kind, in what order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TRAINED = ("network", "flow_map")
PEERS = (*TRAINED, "external")  # what a study asks about; the other kinds are its baselines
KINDS = (*PEERS, "contrast", "closed_form")
PAIR_KINDS = {
    "networks": "two trained models",
    "data": "two models, other training images",
    "sampler": "one network, two samplers",
    "ceiling": "two seeds of one model (ceiling)",
    "contrast": "with a contrast model",
    "closed": "with a closed form",
}


@dataclass(frozen=True)
class ModelRow:
    """One model under one descriptor; an entry is its record in ``scores["models"]`` or None."""

    name: str
    cell: Mapping[str, Any]
    descriptor: str | None
    gl: Mapping[str, Any] | None
    memorized: Mapping[str, Any] | None
    frechet: Mapping[str, Any] | None


@dataclass(frozen=True)
class PairRow:
    """Two models under one descriptor; an entry is its record in ``scores["pairs"]`` or None."""

    a: str
    b: str
    kind: str
    descriptor: str | None
    rp: Mapping[str, Any] | None
    mae: Mapping[str, Any] | None


def kind_rank(cell: Mapping[str, Any]) -> int:
    """Place of a cell's kind in tables and figures: what was trained first."""
    kind = cell.get("kind")
    return KINDS.index(kind) if kind in KINDS else len(KINDS)


def model_names(scores: Mapping[str, Any]) -> list[str]:
    """All models: networks first, closed forms last, by training set size, else as stored."""
    cells = scores.get("cells", {})
    return sorted(cells, key=lambda n: (kind_rank(cells[n]), cells[n].get("n_train") or 0))


def main_descriptor(scores: Mapping[str, Any]) -> str | None:
    """The descriptor that figures and headline use: the first one that RP or GL was scored in."""
    for record in [*scores.get("pairs", []), *scores.get("models", [])]:
        if record["score"] in ("rp", "gl"):
            return record["descriptor"]
    return None


def pair_kind(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """Says what a pair of cells compares: a key of `PAIR_KINDS`."""
    kinds = {a.get("kind"), b.get("kind")}
    if "closed_form" in kinds:
        return "closed"
    if "contrast" in kinds:
        return "contrast"
    if not kinds <= set(TRAINED):
        return "networks"  # of samples made elsewhere no more is known

    def differ(*keys: str) -> bool:
        return any(a.get(key) != b.get(key) for key in keys)

    if differ("n_train", "subset"):
        return "data"
    if differ("kind", "family", "width", "kernel"):
        return "networks"
    if differ("seed"):
        return "networks" if differ("solver", "nfe") else "ceiling"
    return "sampler" if differ("solver", "nfe") else "networks"


def pair_rows(scores: Mapping[str, Any]) -> list[PairRow]:
    """All pairs, one row for each descriptor: by kind of pair, then the highest RP first."""
    cells, order = scores.get("cells", {}), model_names(scores)
    place = {name: i for i, name in enumerate(order)}
    rp, mae = {}, {}
    for record in scores.get("pairs", []):
        a, b = sorted((record["a"], record["b"]), key=lambda n: place.get(n, len(place)))
        if record["score"] == "rp":
            rp[a, b, record["descriptor"]] = record
        elif record["score"] == "mae":
            mae[a, b] = record
    covered = {key[:2] for key in rp}
    keys = [*rp, *((a, b, None) for a, b in mae if (a, b) not in covered)]
    rows = [
        PairRow(
            a,
            b,
            pair_kind(cells.get(a, {}), cells.get(b, {})),
            d,
            rp.get((a, b, d)),
            mae.get((a, b)),
        )
        for a, b, d in keys
    ]
    kinds = list(PAIR_KINDS)
    return sorted(rows, key=lambda r: (kinds.index(r.kind), -(r.rp["value"] if r.rp else 0.0)))


def main_pairs(scores: Mapping[str, Any]) -> list[PairRow]:
    """The rows that have an RP in the main descriptor."""
    main = main_descriptor(scores)
    return [row for row in pair_rows(scores) if row.rp and row.descriptor == main]


def model_rows(scores: Mapping[str, Any]) -> list[ModelRow]:
    """All models, one row for each descriptor that GL was scored in, in `model_names` order."""
    found: dict[tuple[str, str], dict[str | None, Mapping]] = {}
    for record in scores.get("models", []):
        found.setdefault((record["name"], record["score"]), {})[record["descriptor"]] = record
    main, rows = main_descriptor(scores), []
    for name in model_names(scores):
        by_score = {s: found.get((name, s), {}) for s in ("gl", "memorized", "frechet")}
        for d in by_score["gl"] or by_score["frechet"] or {main: None}:
            # memorized is measured in pixels whatever the descriptor
            memorized = next(iter(by_score["memorized"].values()), None)
            gl, frechet = by_score["gl"].get(d), by_score["frechet"].get(d)
            rows.append(ModelRow(name, scores["cells"][name], d, gl, memorized, frechet))
    return rows


def main_models(scores: Mapping[str, Any]) -> list[ModelRow]:
    """One row for each model: that of the main descriptor, else its first."""
    main, chosen = main_descriptor(scores), {}
    for row in model_rows(scores):
        if row.name not in chosen or row.descriptor == main:
            chosen[row.name] = row
    return list(chosen.values())


def thresholds(scores: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """The distinct (score, descriptor, threshold) that were used, as stored."""
    records = [*scores.get("pairs", []), *scores.get("models", [])]
    used = {(r["score"], r["descriptor"], r.get("threshold")): None for r in records}
    return [key for key in used if key[2] is not None]
