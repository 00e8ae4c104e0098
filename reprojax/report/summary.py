"""The headline: what the scores say, in words that hold whatever the scores are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reprojax.report.formats import (
    format_bound,
    format_count,
    format_distance,
    format_percent,
    format_share,
    format_span,
)
from reprojax.report.rows import PEERS, TRAINED, ModelRow, PairRow, main_models, main_pairs

MOST = 0.5  # "most" noises or images: more than half of them
GL_SLACK = 0.05  # a generalizing model's GL may lie this much below that of held-out images
FEW_COPIES = 0.05  # share of memorized samples up to which a model can count as generalizing
FAR = 10.0  # Fréchet distance in units of the reference from which samples are not like the data
AMONG_PEERS = ("networks", "data", "ceiling", "sampler")  # kinds of pair, the main question first

STATES = {
    "generalizing": "Generalizing",
    "memorizing": "Memorizing",
    "between": "Between memorizing and generalizing",
    "far": "Not copies, but far from the data",
    "unjudged": "Generalization not judged (no held-out reference)",
}


def headline(scores: Mapping[str, Any]) -> str:
    """Sums the scores up in a few sentences: agreement, then copies or new images.

    Models are compared at one training set size. Where there are several sizes, the smallest, the
    one of the lowest agreement and the largest are told, since agreement can be U-shaped in the
    size (arXiv 2310.05264).

    Args:
        scores: the content of ``scores.json``.

    Returns:
        Plain text, one sentence or two for each size told.
    """
    models = [row for row in main_models(scores) if row.cell.get("kind") in PEERS]
    if not models:
        return "No trained model or sample set was scored: closed forms and contrast models only."
    by_size: dict[int | None, list[ModelRow]] = {}
    for row in models:
        by_size.setdefault(row.cell.get("n_train"), []).append(row)
    pairs = {n: _pairs_at(n, group, scores) for n, group in by_size.items()}
    told = _sizes_to_tell(pairs)
    lead = {n: f"N = {format_count(n)}: " if len(by_size) > 1 else "" for n in told}
    return " ".join(
        f"{lead[n]}{_agreement(by_size[n], pairs[n])} {_states(by_size[n])}".rstrip() for n in told
    )


def model_state(row: ModelRow) -> str | None:
    """Judges one model: a key of `STATES`, or None where nothing was measured.

    A memorized share above one half proves copies by itself (arXiv 2310.02664). GL is judged only
    against the GL of held-out images, and noise, which also has GL 1, is kept out by the Fréchet
    distance.
    """
    copies = row.memorized["value"] if row.memorized else 0.0
    if copies > MOST:
        return "memorizing"
    if row.gl is None:
        return None
    value, reference = row.gl["value"], row.gl.get("reference")
    if reference is None:
        return "unjudged"
    if value < MOST * reference:
        return "memorizing"
    if value < reference - GL_SLACK or copies > FEW_COPIES:
        return "between"
    far = row.frechet and row.frechet.get("reference") is not None
    return (
        "far" if far and row.frechet["value"] > FAR * row.frechet["reference"] else "generalizing"
    )


def _pairs_at(
    n_train: int | None, group: Sequence[ModelRow], scores: Mapping[str, Any]
) -> dict[str, list[PairRow]]:
    """The pairs within the group, or of it with a baseline at the same size, by kind of pair."""
    names, cells = {row.name for row in group}, scores["cells"]
    found: dict[str, list[PairRow]] = {}
    for row in main_pairs(scores):
        others = {row.a, row.b} - names
        baseline = len(others) == 1 and row.kind in ("closed", "contrast")
        if baseline and cells.get(*others, {}).get("n_train") not in (n_train, None):
            continue
        if baseline or not others:
            found.setdefault(row.kind, []).append(row)
    return found


def _sizes_to_tell(pairs: Mapping[int | None, dict[str, list[PairRow]]]) -> list[int | None]:
    """The smallest size, that of the lowest mean agreement, and the largest."""
    sizes = sorted(pairs, key=lambda n: n or 0)
    means = {}
    for n in sizes:
        rows = pairs[n].get("networks", ())
        if rows:
            means[n] = sum(row.rp["value"] for row in rows) / len(rows)
    told = {sizes[0], sizes[-1], min(means, key=means.get, default=sizes[0])}
    return [n for n in sizes if n in told]


def _agreement(group: Sequence[ModelRow], pairs: Mapping[str, list[PairRow]]) -> str:
    """How often the group's models turn one noise into one image."""
    trained = all(row.cell.get("kind") in TRAINED for row in group)
    noun = "network" if trained else "sample set"
    subject = f"{len(group)} {noun}{'s' if len(group) > 1 else ''}"
    main = next((kind for kind in AMONG_PEERS if kind in pairs), None)
    aside = _baselines(group, pairs)
    if main is None:
        if len(group) > 1:
            why = "RP was not scored between them"
        else:
            why = "compared with baselines only" if aside else "nothing to compare it with"
        return f"{subject}, {why}{f' (RP {aside})' if aside else ''}."
    rows = pairs[main]
    scored = [row for kind in AMONG_PEERS for row in pairs.get(kind, ())]
    notes = [f"chance ≤ {format_bound(max(row.rp['chance'] for row in scored))}"]
    notes += [
        f"{words} {format_span(row.rp['value'] for row in pairs[kind])}"
        for kind, words in (
            ("ceiling", "two seeds of one model:"),
            ("data", "trained on other images:"),
            ("sampler", "one network, two samplers:"),
        )
        if kind in pairs and kind != main
    ]
    notes += [aside] if aside else []
    span = format_span(row.rp["value"] for row in rows)
    return (
        f"{subject} {_verb(scored)}: RP {_contrast(main, rows, group)} {span} ({'; '.join(notes)})."
    )


def _verb(rows: Sequence[PairRow]) -> str:
    """As strong as the intervals of all the pairs allow."""
    above = [row.rp["ci95"][0] > row.rp["chance"] for row in rows]
    if all(above) and all(row.rp["ci95"][0] > MOST for row in rows):
        return "agree on most noises"
    if all(above):
        return "agree more often than chance"
    return "agree beyond chance in some pairs only" if any(above) else "do not agree beyond chance"


def _contrast(main: str, rows: Sequence[PairRow], group: Sequence[ModelRow]) -> str:
    """What lies between the two models of each pair."""
    if main == "ceiling":
        return "between seeds of one model"
    if main == "data":
        return "between models trained on different images"
    if main == "sampler":
        return "between samplers of one network"
    cells = {row.name: row.cell for row in group}
    if all(cell.get("kind") in TRAINED for cell in cells.values()):
        for words, keys in (("architectures", ("family", "width")), ("kernels", ("kernel",))):
            if all(any(cells[r.a].get(k) != cells[r.b].get(k) for k in keys) for r in rows):
                return f"between {words}"
    return "between them"


def _baselines(group: Sequence[ModelRow], pairs: Mapping[str, list[PairRow]]) -> str:
    """RP of the group with each closed form and contrast model."""
    names, values = {row.name for row in group}, {}
    for row in [*pairs.get("closed", ()), *pairs.get("contrast", ())]:
        other = row.b if row.a in names else row.a
        values.setdefault(other, []).append(row.rp["value"])
    return ", ".join(f"with {name} {format_span(spans)}" for name, spans in values.items())


def _states(group: Sequence[ModelRow]) -> str:
    """Whether the group's models make new images or copies, with the numbers that say so."""
    states: dict[str, list[str]] = {}
    for row in group:
        states.setdefault(model_state(row) or "", []).append(row.name)
    states.pop("", None)
    if not states:
        return ""
    if len(states) == 1:
        lead = STATES[next(iter(states))]
    else:
        told = (f"{STATES[s].lower()} {', '.join(states[s])}" for s in STATES if s in states)
        lead = f"Mixed ({'; '.join(told)})"
    numbers = [
        _with_reference("GL", [row.gl for row in group], "held-out images", format_share),
        _with_reference("memorized", [row.memorized for row in group], "", format_percent),
        _with_reference(
            "Fréchet", [row.frechet for row in group], "training images", format_distance
        ),
    ]
    return f"{lead}: {', '.join(text for text in numbers if text)}."


def _with_reference(label: str, records: Sequence, what: str, fmt) -> str:
    records = [record for record in records if record]
    if not records:
        return ""
    text = f"{label} {format_span((r['value'] for r in records), fmt)}"
    references = [r["reference"] for r in records if r.get("reference") is not None]
    return f"{text} ({what} {format_span(references, fmt)})" if what and references else text
