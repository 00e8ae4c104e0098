"""The headline says what the scores allow and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest
from making import closed_form, external, interval, made_scores, network, revalued

from reprojax.report.summary import headline
from reprojax.scoring.scores import CellRow
from reprojax.scoring.verdict import model_state
from reprojax.scoring.views import ModelView, pair_kind

CONTRAST = CellRow("0" * 12, "contrast", "gan")


def pair(a, b, value, chance=0.004, half=0.03):
    changes = {"value": value, "ci95": interval(value, half), "chance": chance}
    return frozenset((a, b)), changes


def model(name, gl=None, memorized=None, frechet=None, reference=0.95, near=0.8):
    values = {"gl": (gl, reference), "memorized": (memorized, None), "frechet": (frechet, near)}
    return [
        ((name, score), {"value": value, "ci95": (value, value), "reference": other})
        for score, (value, other) in values.items()
        if value is not None
    ]


def scores(cells, pairs=(), models=()):
    """Scores that have these pairs and models only."""
    pairs, models = dict(pairs), dict(models)
    return revalued(
        made_scores(cells, descriptor="sscd"),
        pair=lambda row: pairs.get(frozenset((row.a, row.b))) if row.score == "rp" else None,
        model=lambda row: models.get((row.name, row.score)),
    )


THREE = {"gaussian": closed_form(), "a": network(), "b": network(seed=1), "c": network("uvit")}
BASE = [pair("a", "gaussian", 0.38), pair("c", "gaussian", 0.3)]


def test_generalizing():
    agree = [pair("a", "b", 0.8), pair("a", "c", 0.61), pair("b", "c", 0.75, chance=0.01)]
    judged = [r for n in "abc" for r in model(n, gl=0.991, memorized=0.0, frechet=1.2)]
    assert headline(scores(THREE, [*agree, *BASE], judged)) == (
        "3 networks agree on most noises: RP between architectures .61–.75 (chance ≤ .01; two "
        "seeds of one model: .80; with gaussian .30–.38). Generalizing: GL .99 (held-out images "
        ".95), memorized 0 %, Fréchet 1.20 (training images 0.800)."
    )


def test_memorizing():
    agree = [pair("a", "b", 0.69), pair("a", "c", 0.62), pair("b", "c", 0.65)]
    judged = [r for n in "abc" for r in model(n, gl=0.0, memorized=0.97)]
    text = headline(scores(THREE, agree, judged))
    assert "agree on most noises" in text and "Memorizing: GL .00 (held-out images .95)" in text
    assert "Generalizing" not in text and "gaussian" not in text


def test_mixed():
    pairs = [pair("a", "b", 0.3), pair("a", "c", 0.002), pair("b", "c", 0.02)]
    judged = [*model("a", gl=0.97, memorized=0.0), *model("b", gl=0.1, memorized=0.8)]
    judged += model("c", gl=0.6, memorized=0.2)
    text = headline(scores(THREE, pairs, judged))
    assert "3 networks agree beyond chance in some pairs only: RP" in text
    assert (
        "Mixed (generalizing a; memorizing b; between memorizing and generalizing c): GL .10–.97 "
        "(held-out images .95), memorized 0–80 %." in text
    )


def test_no_agreement_beyond_chance():
    cells = {"a": network(), "c": network("uvit")}
    text = headline(scores(cells, [pair("a", "c", 0.02, chance=0.01)]))
    assert text == (
        "2 networks do not agree beyond chance: RP between architectures .02 (chance ≤ .01)."
    )


def test_high_agreement_at_high_chance_is_not_agreement():
    cells = {"a": network(), "c": network("uvit")}
    text = headline(scores(cells, [pair("a", "c", 0.9, chance=0.89)]))
    assert "do not agree beyond chance" in text


def test_the_weakest_seed_pair_counts_too():
    cells = {n: THREE[n] for n in "abc"}
    pairs = [pair("a", "b", 0.2), pair("a", "c", 0.61), pair("b", "c", 0.75)]
    assert "agree more often than chance" in headline(scores(cells, pairs))


def test_disjoint_training_images_are_told_apart():
    cells = {"a": network(subset="A"), "b": network(subset="B")}
    text = headline(scores(cells, [pair("a", "b", 0.9)]))
    assert "RP between models trained on different images .90" in text


def test_kernels():
    cells = {"a": network(), "b": network(kernel="ve")}
    assert "RP between kernels .90" in headline(scores(cells, [pair("a", "b", 0.9)]))


def test_several_sizes_tell_both_ends_and_the_valley():
    cells, pairs, models = {}, [], []
    for n, rp, gl in ((64, 0.69, 0.0), (512, 0.5, 0.0), (8192, 0.02, 0.5), (32768, 0.7, 0.99)):
        a, b = f"a{n}", f"b{n}"
        cells |= {a: network(n_train=n), b: network("uvit", n_train=n)}
        cells[f"gauss{n}"] = closed_form(n_train=n)
        pairs += [pair(a, b, rp), pair(a, f"gauss{n}", 0.1)]
        models += [*model(a, gl=gl), *model(b, gl=gl)]
    pairs.append(pair("a64", "b32768", 0.001))  # across sizes: none of the headline's business
    text = headline(scores(cells, pairs, models))
    sizes = [part.split(":")[0] for part in text.split("N = ")[1:]]
    assert sizes == ["64", "8,192", "32,768"]
    assert "with gauss64 .10" in text and "gauss512" not in text and ".001" not in text


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        ({}, "No trained model"),
        ({"gaussian": closed_form()}, "No trained model"),
        ({"a": network()}, "1 network, nothing to compare it with."),
        ({"a": network(), "b": network()}, "2 networks, RP was not scored between them."),
    ],
)
def test_little_to_say(cells, wanted):
    assert headline(scores(cells)).startswith(wanted)


def test_one_network_with_its_theory():
    text = headline(
        scores({"a": network(), "gaussian": closed_form()}, [pair("a", "gaussian", 0.4)])
    )
    assert text == "1 network, compared with baselines only (RP with gaussian .40)."


@pytest.mark.parametrize(
    ("given", "state"),
    [
        ({"gl": 0.99, "memorized": 0.0, "frechet": 1.0}, "generalizing"),
        ({"gl": 0.99, "memorized": 0.0}, "generalizing"),
        ({"gl": 1.0, "memorized": 0.0, "frechet": 400.0}, "far"),
        ({"gl": 0.99, "reference": None}, "unjudged"),
        ({"gl": 0.0, "memorized": 0.9, "reference": None}, "memorizing"),
        ({"gl": 0.3}, "memorizing"),
        ({"gl": 0.3, "reference": 0.32}, "generalizing"),
        ({"gl": 0.8}, "between"),
        ({"gl": 0.95, "memorized": 0.2}, "between"),
        ({"memorized": 0.1}, None),
    ],
)
def test_state_of_one_model(given, state):
    made = scores({"a": network()}, models=model("a", **given))
    rows = (made.model("a", score) for score in ("gl", "memorized", "frechet"))
    assert model_state(ModelView("a", network(), "sscd", *rows)) == state


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        (network(), network("uvit"), "networks"),
        (network(), network(seed=1), "seeds"),
        (network(), network(solver="ddim"), "sampler"),
        (network(), network(seed=1, solver="ddim"), "networks"),
        (network(params=9), network(params=8, seed=1), "networks"),
        (network(), network(objective="progressive", teacher="a", solver="ddim"), "networks"),
        (network(teacher="a"), network(teacher="b", solver="ddim"), "networks"),
        (network(teacher="a"), network(teacher="b", seed=1), "seeds"),
        (network(), network(seed=1, n_train=9), "data"),
        (network(), closed_form(), "closed"),
        (network(), CONTRAST, "contrast"),
        (external(), replace(external(), seed=1), "networks"),
    ],
)
def test_kind_of_pair(a, b, kind):
    assert pair_kind(a, b) == kind
