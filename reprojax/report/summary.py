"""The headline: what the scores say, in words that hold whatever the scores are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from reprojax.drawing import formats
from reprojax.scoring.scores import ModelRow, Scores
from reprojax.scoring.verdict import MOST, model_state
from reprojax.scoring.views import PEERS, TRAINED, ModelView, PairView, main_models, main_pairs

AMONG_PEERS = ("networks", "data", "seeds", "sampler")  # kinds of pair, the main question first

STATES = {
    "generalizing": "Generalizing",
    "memorizing": "Memorizing",
    "between": "Between memorizing and generalizing",
    "far": "Not copies, but far from the data",
    "unjudged": "Generalization not judged (no held-out reference)",
}


def headline(scores: Scores) -> str:
    """Sums the scores up in a few sentences: agreement, then copies or new images.

    Models are compared at one training set size. Of several sizes it describes the smallest, the
    one of the lowest agreement and the largest, since agreement can be U-shaped in the size
    (arXiv 2310.05264).

    Args:
        scores: The scores of a study, or of samples that were made elsewhere.

    Returns:
        Plain text, one sentence or two for each size.
    """
    by_size: dict[int, list[ModelView]] = {}
    for view in main_models(scores):
        if view.cell.kind in PEERS:
            by_size.setdefault(view.cell.n_train, []).append(view)
    if not by_size:
        return "No trained model or sample set was scored: closed forms and contrast models only."
    pairs = {n: _pairs_at(n, group, scores) for n, group in by_size.items()}
    sentences = []
    for n in _telling_sizes(pairs):
        size = f"N = {formats.count(n)}: " if n else "N unknown: "
        lead = size if len(by_size) > 1 else ""
        text = f"{lead}{_agreement(by_size[n], pairs[n])} {_states(by_size[n])}"
        sentences.append(text.rstrip())
    return " ".join(sentences)


def _pairs_at(
    n_train: int, group: Sequence[ModelView], scores: Scores
) -> dict[str, list[PairView]]:
    """Returns the pairs within a group, or of it with a baseline of the same size, by kind."""
    names = {view.name for view in group}
    pairs: dict[str, list[PairView]] = {}
    for view in main_pairs(scores):
        others = {view.a, view.b} - names
        baseline = len(others) == 1 and view.kind in ("closed", "contrast")
        if baseline and scores.cells[next(iter(others))].n_train not in (n_train, 0):
            continue
        if baseline or not others:
            pairs.setdefault(view.kind, []).append(view)
    return pairs


def _telling_sizes(pairs: Mapping[int, dict[str, list[PairView]]]) -> list[int]:
    """Returns the smallest size, that of the lowest mean agreement, and the largest."""
    means = {}
    for n, by_kind in pairs.items():
        views = by_kind.get("networks", ())
        if views:
            means[n] = sum(view.rp.value for view in views) / len(views)
    sizes = sorted(pairs)
    return sorted({sizes[0], sizes[-1], min(means, key=means.get, default=sizes[0])})


def _agreement(group: Sequence[ModelView], pairs: Mapping[str, list[PairView]]) -> str:
    """Says how often the models of a group turn one noise into one image."""
    trained = all(view.cell.kind in TRAINED for view in group)
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
    scored = [view for kind in AMONG_PEERS for view in pairs.get(kind, ())]
    notes = [f"chance ≤ {formats.bound(max(view.rp.chance for view in scored))}"]
    notes += [
        f"{words} {formats.span(view.rp.value for view in pairs[kind])}"
        for kind, words in (
            ("seeds", "two seeds of one model:"),
            ("data", "trained on other images:"),
            ("sampler", "one network, two samplers:"),
        )
        if kind in pairs and kind != main
    ]
    notes += [aside] if aside else []
    what = f"RP {_contrast(main, pairs[main], group)}"
    span = formats.span(view.rp.value for view in pairs[main])
    return f"{subject} {_verb(scored)}: {what} {span} ({'; '.join(notes)})."


def _verb(pairs: Sequence[PairView]) -> str:
    """Returns the verb, as strong as the intervals of all the pairs allow."""
    above = [view.rp.ci95[0] > view.rp.chance for view in pairs]
    if all(above) and all(view.rp.ci95[0] > MOST for view in pairs):
        return "agree on most noises"
    if all(above):
        return "agree more often than chance"
    return "agree beyond chance in some pairs only" if any(above) else "do not agree beyond chance"


def _contrast(main: str, pairs: Sequence[PairView], group: Sequence[ModelView]) -> str:
    """Says in what the two models of each pair differ."""
    if main == "seeds":
        return "between seeds of one model"
    if main == "data":
        return "between models trained on different images"
    if main == "sampler":
        return "between samplers of one network"
    cells = {view.name: view.cell for view in group}
    if all(cell.kind in TRAINED for cell in cells.values()):
        facts = {
            "architectures": lambda cell: (cell.family, cell.width),
            "kernels": lambda cell: cell.kernel,
        }
        for words, fact in facts.items():
            if all(fact(cells[view.a]) != fact(cells[view.b]) for view in pairs):
                return f"between {words}"
    return "between them"


def _baselines(group: Sequence[ModelView], pairs: Mapping[str, list[PairView]]) -> str:
    """Says what RP the group has with each closed form and contrast model."""
    names, values = {view.name for view in group}, {}
    for view in [*pairs.get("closed", ()), *pairs.get("contrast", ())]:
        other = view.b if view.a in names else view.a
        values.setdefault(other, []).append(view.rp.value)
    return ", ".join(f"with {name} {formats.span(spans)}" for name, spans in values.items())


def _states(group: Sequence[ModelView]) -> str:
    """Says whether the group's models make new images or copies, with the numbers for it."""
    states: dict[str, list[str]] = {}
    for view in group:
        states.setdefault(model_state(view) or "", []).append(view.name)
    states.pop("", None)
    if not states:
        return ""
    if len(states) == 1:
        lead = STATES[next(iter(states))]
    else:
        parts = (f"{STATES[s].lower()} {', '.join(states[s])}" for s in STATES if s in states)
        lead = f"Mixed ({'; '.join(parts)})"
    gl, memorized, frechet = (
        [row for view in group if (row := getattr(view, score))]
        for score in ("gl", "memorized", "frechet")
    )
    numbers = [
        _with_reference("GL", gl, "held-out images", formats.share),
        _with_reference("memorized", memorized, "", formats.percent),
        _with_reference("Fréchet", frechet, "training images", formats.distance),
    ]
    return f"{lead}: {', '.join(filter(None, numbers))}."


def _with_reference(
    label: str, rows: Sequence[ModelRow], what: str, fmt: Callable[[float], str]
) -> str:
    if not rows:
        return ""
    text = f"{label} {formats.span((row.value for row in rows), fmt)}"
    references = [row.reference for row in rows if row.reference is not None]
    return f"{text} ({what} {formats.span(references, fmt)})" if what and references else text
