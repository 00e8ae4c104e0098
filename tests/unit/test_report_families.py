"""The analysis "shared_solver" from samples to the page: rows, summary, figures, table."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from itertools import combinations
from statistics import fmean

import jax
import numpy as np
import pytest
from rich.console import Console

from reprojax.analyses.common import study_ruler
from reprojax.analyses.shared_solver import show
from reprojax.analyses.shared_solver.measure import SharedSolver, check_shared_solver
from reprojax.analyses.shared_solver.show import DAGGER, SMALLEST
from reprojax.analyses.table import ANALYSES
from reprojax.data.source import SourceSpec
from reprojax.data.subset import DataSpec
from reprojax.data.transform import to_uint8
from reprojax.diffusion.grids import GridSpec
from reprojax.errors import InputError
from reprojax.models.families import build_network, param_shapes
from reprojax.report.inputs import ReportInputs
from reprojax.report.tables import print_analyses
from reprojax.report.write import write_report
from reprojax.runtime.console import Reporter
from reprojax.sampling.flow import SamplerSpec, sample
from reprojax.sampling.noise import NoiseSpec
from reprojax.scoring.pairs import mae_score, rp
from reprojax.scoring.published import PAPER_MODELS, published_pair
from reprojax.scoring.scores import Scores
from reprojax.scoring.summary import summarise
from reprojax.study.analysing import read_analyses
from reprojax.study.cells import Cell
from reprojax.study.models import ClosedForm, Contrast, Imported
from reprojax.study.runner import prepare, run_study
from reprojax.study.study import Study
from reprojax.training.weights import save_weights

pytestmark = pytest.mark.filterwarnings("error:.*ayout")  # matplotlib's, where a layout failed

# --- the paper's numbers ---------------------------------------------------------------------


def test_the_papers_table_is_whole_and_reads_both_ways():
    pairs = list(combinations(PAPER_MODELS, 2))
    found = [published_pair(a, b) for a, b in pairs]
    assert len(pairs) == 21 and found == [published_pair(b, a) for a, b in pairs]
    assert fmean(pair.rp for pair in found) == pytest.approx(17.18 / 21)
    assert fmean(pair.mae for pair in found) == pytest.approx(17.22 / 21)
    assert published_pair("UViT", "CT") == min(found) == (0.70, 0.68)
    assert published_pair("Progressivev1", "CT") == (0.91, 0.83)
    assert published_pair("DDPMv4", "DDPMv6") == (0.89, 0.92)
    assert published_pair("Multistagev1", "UViT") == (0.80, 0.76)


@pytest.mark.parametrize("pair", [("UViT", "UVit"), ("CT", "CT")])
def test_the_paper_has_no_such_pair(pair):
    with pytest.raises(InputError, match="paper"):
        published_pair(*pair)


# --- summary ---------------------------------------------------------------------------------


def row(a, b, value, mae, chance=0.01):
    return {"a": a, "b": b, "rp": value, "mae": mae, "chance": chance, "mae_chance": 2 * chance}


ROWS = [
    row("a", "a1", 0.9, 0.8),
    row("a", "b", 0.6, 0.5, 0.03),
    row("a", "c", 0.75, 0.3),
    row("b", "c", 0.45, 0.4),
    row("a1", "b", 0.1, 0.1, 0.5),
    row("a1", "c", 0.1, 0.1),
    row("a", "gaussian", 0.0, 0.0, 0.9),
]


def test_a_summary_is_over_the_group_and_the_ceiling_outside_it():
    found = summarise(ROWS, {"a", "b", "c"}, ("a", "a1"))
    assert found["num_pairs"] == 3
    assert found["rp"].pop("min_pair") == ["b", "c"]
    expected = {"mean": 0.6, "min": 0.45, "chance": 0.03, "ceiling": 0.9, "of_ceiling": 0.6 / 0.9}
    assert found["rp"] == pytest.approx(expected)
    assert found["mae"].pop("min_pair") == ["a", "c"]
    expected = {"mean": 0.4, "min": 0.3, "chance": 0.06, "ceiling": 0.8, "of_ceiling": 0.5}
    assert found["mae"] == pytest.approx(expected)


def test_a_summary_says_none_of_what_is_not_there():
    assert summarise(ROWS, {"a"}, ("a", "a1"))["rp"] == {
        "mean": None,
        "min": None,
        "min_pair": None,
        "chance": None,
        "ceiling": 0.9,
        "of_ceiling": None,
    }
    bare = [{"a": "a", "b": "b", "rp": 0.5, "mae": 0.5}]
    found = summarise(bare, {"a", "b"})["rp"]
    assert (found["mean"], found["chance"], found["ceiling"]) == (0.5, None, None)
    dead = [row("a", "a1", 0.0, 0.0), row("a", "b", 0.5, 0.5)]
    assert summarise(dead, {"a", "b"}, ("a", "a1"))["rp"]["of_ceiling"] is None


# --- the analysis ----------------------------------------------------------------------------

HEUN = SamplerSpec(grid=GridSpec(num_steps=4), batch_size=8)
ONE_STEP = SamplerSpec(solver="consistency", grid=GridSpec(num_steps=1, end="sigma_min"))
FEW = SamplerSpec(solver="ddim", grid=GridSpec(num_steps=2, end="sigma_min"))
NAMES = ("edm", "seed1", "vp", "map", "student", "gaussian")
SPEC = SharedSolver(
    cells=NAMES, n=10, ceiling=("edm", "seed1"), paper=("EDMv1", "", "UViT", "CT", "", "")
)


def make_study(folder) -> Study:
    """Networks of random weights, so that nothing is trained."""
    data = DataSpec(SourceSpec("digits"), n_train=60)
    network = {"width": 16, "depth": 2, "num_heads": 2, "patch": 4}
    shapes = param_shapes(build_network("uvit", (8, 8, 1), network), (8, 8, 1))

    def cell(name: str, seed: int, sampler=None, **fields) -> Cell:
        rng = np.random.default_rng(seed)
        params = jax.tree.map(lambda a: 0.3 * rng.standard_normal(a.shape, np.float32), shapes)
        path = folder / f"{name}.safetensors"
        save_weights(path, params, {})
        fields |= {"network": tuple(sorted(network.items())), "weights": str(path), "seed": seed}
        return Cell(name, Imported("uvit", **fields), data, sampler)

    consistency = {"objective": "ct", "preconditioning": "consistency"}
    cells = (
        cell("edm", 0),
        cell("seed1", 1),
        cell("vp", 2, sampler=FEW),
        cell("map", 3, sampler=ONE_STEP, **consistency),
        cell("student", 4, sampler=FEW, objective="progressive"),
        Cell("gaussian", ClosedForm("gaussian"), data),
    )
    analyses = (("shared_solver", SPEC),)
    return Study("families", data, cells, NoiseSpec(n=12), HEUN, analyses=analyses)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return make_study(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def ran(study, tmp_path_factory):
    """The study's context and the analysis' JSON."""
    prepared = prepare(study, ANALYSES)
    quiet = Reporter(Console(file=io.StringIO()))
    context = run_study(prepared, tmp_path_factory.mktemp("families") / "w", reporter=quiet)
    return context, read_analyses(context, prepared.identity)["shared_solver"], prepared.identity


def by_pair(rows) -> dict:
    return {(row["a"], row["b"]): row for row in rows}


def test_every_pair_is_compared_both_ways(ran):
    _, found, _ = ran
    for key in ("native", "shared"):
        assert list(by_pair(found[key])) == list(combinations(NAMES, 2))
        for row in found[key]:
            assert row["ci95"][0] <= row["rp"] <= row["ci95"][1]
            assert row["mae_ci95"][0] <= row["mae"] <= row["mae_ci95"][1]
            assert 0 <= row["chance"] <= 1 and 0 <= row["mae_chance"] <= 1
    assert found["n"] == 10 and found["cells"] == list(NAMES) and found["closed"] == ["gaussian"]


def test_rows_are_the_scores_of_the_first_noises_images(ran):
    context, found, identity = ran
    ruler, native, shared = study_ruler(context, identity), {}, {}
    for name in NAMES:
        cell = context.study.cell(name)
        native[name] = shared[name] = context.samples(cell)[0][:10]
        if name == "vp":
            images = sample(context.function(cell), context.noise.first(10), HEUN).images
            shared[name] = to_uint8(images)
    assert np.any(native["vp"] != shared["vp"])
    for key, images in (("native", native), ("shared", shared)):
        for (a, b), row in by_pair(found[key]).items():
            features = ruler.descriptor(images[a]), ruler.descriptor(images[b])
            assert row["rp"] == pytest.approx(rp(*features, ruler.tau), abs=1e-6)
            assert row["mae"] == pytest.approx(mae_score(images[a], images[b]), abs=1e-6)


def test_flow_maps_and_students_keep_their_sampler_and_that_is_said(ran):
    context, found, _ = ran
    samplers = found["samplers"]
    assert {name for name in NAMES if samplers[name]["own"]} == {"map", "student"}
    native, shared = by_pair(found["native"]), by_pair(found["shared"])
    assert native["map", "student"] == shared["map", "student"]
    assert samplers["map"]["shared"]["solver"] == "consistency"
    assert samplers["vp"]["native"] == FEW.identity() | {"nfe": 2.0}
    assert samplers["vp"]["shared"] == HEUN.identity() | {"nfe": 7.0} == samplers["edm"]["native"]
    # nothing is sampled again whose stored samples are the shared solver's
    folder = context.workdir.path / "analyses" / "samples"
    assert len(list(folder.glob("*.npz"))) == 1


def test_summaries_leave_out_the_second_seed_and_closed_forms(ran):
    _, found, _ = ran
    peers = [p for p in combinations(NAMES, 2) if not {"seed1", "gaussian"} & set(p)]
    for key in ("native", "shared"):
        rows, summary = by_pair(found[key]), found["summary"][key]
        assert summary["num_pairs"] == 6
        assert summary["rp"]["mean"] == pytest.approx(fmean(rows[p]["rp"] for p in peers), abs=1e-6)
        assert summary["mae"]["min"] == min(rows[p]["mae"] for p in peers)
        assert summary["rp"]["ceiling"] == rows["edm", "seed1"]["rp"]
        own = found["summary"][f"{key}_counterparts"]
        theirs = [rows[p]["mae"] for p in combinations(("edm", "vp", "map"), 2)]
        assert own["num_pairs"] == 3
        assert own["mae"]["mean"] == pytest.approx(fmean(theirs), abs=1e-6)


def test_the_papers_pairs_stand_under_the_cells_names(ran):
    _, found, _ = ran
    assert found["paper"]["models"] == {"edm": "EDMv1", "vp": "UViT", "map": "CT"}
    rows = by_pair(found["paper"]["rows"])
    assert rows["vp", "map"]["rp"] == 0.70 and rows["edm", "map"]["mae"] == 0.72
    summary = found["summary"]["paper"]
    assert summary["rp"]["mean"] == pytest.approx((0.74 + 0.76 + 0.70) / 3, abs=1e-6)
    assert summary["rp"]["min_pair"] == ["vp", "map"] and summary["num_pairs"] == 3


def test_the_analysis_is_plain_json_and_its_report_is_drawn(ran, tmp_path):
    context, found, _ = ran
    assert json.loads((context.workdir.path / "analyses/shared_solver.json").read_text()) == found
    plates = show.figures(ReportInputs("", "", Scores({}), analyses={"shared_solver": found}))
    assert [plate.name for plate in plates] == ["families_rp", "families_mae"]


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"ceiling": ("edm", "vp")}, r"analyses\.shared_solver\.ceiling"),
        ({"ceiling": ("edm", "gaussian")}, r"analyses\.shared_solver\.ceiling"),
        ({"paper": ("", "", "", "", "", "CT")}, r"analyses\.shared_solver\.paper"),
    ],
)
def test_what_the_study_does_not_have_is_said_first(study, changes, field):
    spec = replace(SPEC, **{"paper": (), **changes})
    with pytest.raises(InputError, match=field):
        prepare(replace(study, analyses=(("shared_solver", spec),)), ANALYSES)


def test_a_solver_that_denoisers_do_not_have_is_refused(study):
    maps = tuple(replace(c, sampler=c.sampler or HEUN) for c in study.cells)
    with pytest.raises(InputError, match=r"sampling\.solver.*'shared_solver'"):
        check_shared_solver(replace(study, cells=maps, sampler=ONE_STEP), None, SPEC)


def test_a_contrast_model_has_no_solver_and_is_refused(study):
    cells = (*study.cells, Cell("ppca", Contrast("ppca"), study.data))
    spec = replace(SPEC, cells=(*NAMES, "ppca"), paper=())
    with pytest.raises(InputError, match=r"analyses\.shared_solver\.cells='ppca'"):
        check_shared_solver(replace(study, cells=cells), None, spec)


# --- figure and table ------------------------------------------------------------------------

TEN = (
    ("ddpm", "DDPMv4"),
    ("ddpmpp_vp", "DDPMv6"),
    ("gaussian", ""),
    ("multistage", "Multistagev1"),
    ("edm", "EDMv1"),
    ("edm_seed1", ""),
    ("uvit", "UViT"),
    ("ncsnpp_ve", ""),
    ("consistency", "CT"),
    ("progressive", "Progressivev1"),
)


def made(models=TEN, closed=("gaussian",), ceiling=("edm", "edm_seed1"), own=("consistency",)):
    """What the analysis would have written about made-up samples."""
    cells, rng = [name for name, _ in models], np.random.default_rng(0)
    found = {}
    for key, low in (("native", 0.4), ("shared", 0.7)):
        found[key] = [
            row(a, b, 0.004 if {a, b} & set(closed) else rng.uniform(low, 0.99), 0.5, 0.002)
            for a, b in combinations(cells, 2)
        ]
    peers = set(cells) - {*closed, *ceiling[1:]}
    summary = {key: summarise(rows, peers, ceiling) for key, rows in found.items()}
    theirs = {name: paper for name, paper in models if paper}
    paper = None
    if theirs:
        pairs = [(a, b, published_pair(theirs[a], theirs[b])) for a, b in combinations(theirs, 2)]
        published = [{"a": a, "b": b, **pair._asdict()} for a, b, pair in pairs]
        paper = {"models": theirs, "rows": published}
        summary["paper"] = summarise(published, set(theirs))
        for key, rows in found.items():
            summary[f"{key}_counterparts"] = summarise(rows, set(theirs), ceiling)
    how = {"solver": "heun", "nfe": 35.0}
    samplers = {n: {"native": how, "shared": how, "own": n in own} for n in cells}
    scale = {"n": 1024, "descriptor": "pixels", "threshold": 0.83, "mae_threshold": 15.0}
    names = {"cells": cells, "closed": list(closed), "ceiling": list(ceiling)}
    about = {"solver": {"solver": "heun"}, "samplers": samplers, "paper": paper}
    return {**scale, **names, **about, **found, "summary": summary}


def plates(found):
    scores = Scores({}, data={"source": "cifar10"})
    return show.figures(ReportInputs("", "", scores, analyses={"shared_solver": found}))


@pytest.fixture(scope="module")
def drawn():
    """The figures of `made()`, drawn once."""
    return plates(made())


def panels(plate):
    """The matrices: a colour bar has no image."""
    return [ax for ax in plate.figure.axes if ax.images]


def ticks(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def test_three_panels_in_the_order_of_the_cells_with_closed_forms_last(drawn):
    found = made()
    for plate, score in zip(drawn, ("rp", "mae"), strict=True):
        native, shared, paper = panels(plate)
        order = [name for name, _ in TEN if name != "gaussian"] + ["gaussian"]
        assert ticks(native.xaxis) == ticks(native.yaxis) == order
        assert ticks(paper.xaxis) == ticks(paper.yaxis) == list(PAPER_MODELS)
        for ax, key in ((native, "native"), (shared, "shared")):
            values = ax.images[0].get_array()
            assert values.mask.diagonal().all() and ax.images[0].get_clim() == (0, 1)
            for row in found[key]:
                i, j = order.index(row["a"]), order.index(row["b"])
                assert values[i, j] == values[j, i] == row[score]
        values = paper.images[0].get_array()
        assert values[4, 5] == values[5, 4] == getattr(published_pair("UViT", "CT"), score)
        assert len(native.lines) and not paper.lines  # what sets closed forms apart


def test_every_number_is_printed_where_it_belongs(drawn):
    for ax in panels(drawn[0]):
        values = ax.images[0].get_array()
        printed = {
            tuple(map(round, t.get_position())): t for t in ax.texts if "mean" not in t.get_text()
        }
        n = len(values)
        assert len(printed) == n * (n - 1)
        for (x, y), text in printed.items():
            assert float(text.get_text()) == pytest.approx(values[y, x], abs=0.0051)
            assert text.get_fontsize() >= SMALLEST >= 6.5


def test_a_dagger_marks_who_keeps_its_sampler(drawn):
    plate = drawn[0]
    native, shared, _ = panels(plate)
    assert [t for t in ticks(shared.xaxis) if DAGGER in t] == [f"consistency {DAGGER}"]
    assert ticks(shared.yaxis).index(DAGGER) == ticks(native.yaxis).index("consistency")
    assert DAGGER not in "".join(ticks(native.xaxis))
    assert plate.figure.texts[0].get_text().startswith(DAGGER)
    assert "but consistency keeps its own" in plate.caption
    without = plates(made(own=()))[0]
    assert not without.figure.texts and DAGGER not in without.caption


def test_the_words_say_what_the_summary_says():
    found = made()
    found["summary"]["native"]["rp"] |= {"mean": 0.613, "min": 0.412, "min_pair": ["uvit", "ddpm"]}
    found["summary"]["native"]["rp"] |= {"ceiling": 0.931, "of_ceiling": 0.658, "chance": 0.0123}
    found["summary"]["shared_counterparts"]["rp"]["mean"] = 0.777
    plate, other = plates(found)
    lead = "mean is .61 (lowest .41, uvit × ddpm; 66 % of the .93 between two seeds of edm)"
    assert lead in plate.caption and ".78 with the shared solver" in plate.caption
    assert "most .02" in plate.caption and "heun with 35 evaluations" in plate.caption
    assert "lowest .70, UViT × CT" in plate.caption and "lowest .68, UViT × CT" in other.caption
    assert "averaged: the second seed edm_seed1 and gaussian." in plate.caption
    below = [ax.texts[-1].get_text() for ax in panels(plate)]
    assert below[0] == "mean .61 of 28 pairs\nlowest .41\ntwo seeds .93\nchance ≤ .02"
    assert below[2] == "mean .82 of 21 pairs\nlowest .70"


@pytest.mark.parametrize("count", [2, 3, 10, 16])
def test_nothing_overlaps_or_leaves_the_page(count):
    models = [(f"model_number_{i}", PAPER_MODELS[i] if i < 7 else "") for i in range(count)]
    found = made([*models, ("gaussian", "")], ceiling=(), own=("model_number_1",))
    plate = plates(found)[0]
    figure = plate.figure
    width, height = figure.get_size_inches()
    if count == 10:
        assert width == pytest.approx(9.6, abs=0.02)
    assert width < 12
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    boxes += [text.get_window_extent() for text in figure.texts]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= width * figure.dpi and box.y1 <= height * figure.dpi
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    for ax in panels(plate):  # the words beneath a panel keep clear of its labels
        labels = min(text.get_window_extent().y0 for text in ax.get_xticklabels())
        assert ax.texts[-1].get_window_extent().y1 <= labels
    sides = {ax.get_window_extent().width / len(ax.images[0].get_array()) for ax in panels(plate)}
    assert max(sides) == pytest.approx(min(sides))


def test_without_counterparts_or_trained_pairs_the_rest_is_drawn():
    found = made([("a", ""), ("b", ""), ("gaussian", "")], ceiling=(), own=())
    (plate, _) = plates(found)
    assert len(panels(plate)) == 2 and "paper" not in plate.caption + plate.alt
    closed = made([("a", ""), ("gaussian", "")], ceiling=(), own=())
    plate = plates(closed)[0]
    assert "None" not in plate.caption and "mean" not in plate.caption
    assert panels(plate)[0].texts[-1].get_text() == "no two trained models"


@pytest.mark.parametrize("found", [{}, {"native": []}])
def test_no_data_no_figure(found):
    assert plates(found) == []
    assert show.figures(ReportInputs("", "", Scores({}))) == []


def test_names_are_text_not_markup(tmp_path):
    models = [("<b>x</b>", "UViT"), (r"[red]$\frac$", "CT"), ("_under", ""), ("a$b", "")]
    found = made(models, closed=("a$b",), ceiling=("<b>x</b>", "_under"), own=("_under",))
    inputs = ReportInputs("Nasty", "", Scores({}), analyses={"shared_solver": found})
    write_report(inputs, tmp_path, {"shared_solver": show})
    text = (tmp_path / "report" / "index.html").read_text("utf-8")
    assert "<b>x" not in text and "&lt;b&gt;x" in text
    assert "[red]" in table(found)


def table(found) -> str:
    console = Console(width=160, file=io.StringIO())
    inputs = ReportInputs("", "", Scores({}), analyses={"shared_solver": found})
    print_analyses(inputs, {"shared_solver": show}, console)
    return console.file.getvalue()


def test_the_table_has_native_shared_and_paper():
    found = made()
    found["summary"]["shared"]["mae"] |= {"mean": 0.6131, "of_ceiling": 0.912, "chance": 0.0101}
    lines = [line.split() for line in table(found).splitlines()]
    rows = [line for line in lines if {"RP", "MAE"} & set(line)]
    starts = ["native", "native,", "one", "one", "the"]
    assert [line[0] for line in rows] == [start for start in starts for _ in range(2)]
    assert rows[5][-7:] == ["28", ".61", ".50", ".50", "91", "%", ".02"]
    assert rows[8][-9:] == ["UViT", "×", "CT", "21", ".82", ".70", "–", "–", "–"]


def test_the_table_does_not_repeat_a_row_where_the_paper_has_all_pairs():
    models = [(name.lower(), name) for name in PAPER_MODELS]
    text = table(made(models, closed=(), ceiling=(), own=()))
    assert text.count("native") == 3 and "the paper" in text and "paper's" not in text
