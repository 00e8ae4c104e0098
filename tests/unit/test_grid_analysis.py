"""The analyses of a grid and of training: arithmetic, figures and tables, on made-up scores."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from matplotlib.text import Text
from rich.console import Console

from reprojax.analyses.along_training.show import figures as training_plates
from reprojax.analyses.grid.show import figures as grid_plates
from reprojax.analyses.table import show_modules
from reprojax.errors import InputError
from reprojax.report.inputs import ReportInputs
from reprojax.report.tables import analysis_tables, print_analyses
from reprojax.report.words import crossing_words
from reprojax.report.write import write_report
from reprojax.scoring.course import Course, growth, times
from reprojax.scoring.grid import Flags, grid_of_scores, valley
from reprojax.scoring.layout import lay_out
from reprojax.scoring.published import PAPER_GRID, paper_grid
from reprojax.scoring.scores import CellRow, ModelRow, PairRow, Scores
from reprojax.scoring.stats import wilson

pytestmark = pytest.mark.filterwarnings("error:.*ayout")  # matplotlib's, where a layout failed

SIZES = (16, 64, 256, 1024, 4096)
WIDTHS = (8, 16, 32)
SEEDS = {8: 4, 16: 0, 32: 2}
COUNT = 512


def share(value):
    count = round(COUNT * float(np.clip(value, 0, 1)))
    return {"value": count / COUNT, "ci95": wilson(count, COUNT), "n": COUNT}


def cell(family="unet", width=0, n=16, subset="A", seed=0):
    common = {"hash": "0", "family": family, "n_train": n, "subset": subset}
    common |= {"solver": "heun", "nfe": 35}
    if not width:
        return CellRow(kind="closed_form", **common)
    return CellRow(
        kind="network",
        width=width,
        params=30 * width**2,
        seed=seed,
        kernel="edm",
        preconditioning="edm",
        **common,
    )


def grid_cells():
    """Names say nothing: facts must."""
    cells = []
    for n in SIZES:
        cells += [cell(width=w, n=n, seed=SEEDS[w]) for w in reversed(WIDTHS)]
        cells += [cell(width=16, n=n, seed=7), cell(width=16, n=n, subset="B", seed=7)]
        cells += [cell("optimum", n=n), cell("gaussian", n=n)]
    return {f"m{i}": row for i, row in enumerate(cells)}


def agreement(a, b):
    depth = (np.log2(a.n_train) - 4) / 8  # 0 to 1
    if a.n_train != b.n_train:
        return 0.05
    if "closed_form" in (a.kind, b.kind):
        return 0.7 - 0.7 * depth if "optimum" in (a.family, b.family) else 0.1 + 0.3 * depth
    if a.subset != b.subset:
        return 0.02 + 0.8 * depth**3
    wide = np.log2(a.width * b.width) / 30
    return 0.85 - wide - 2.4 * depth + 2.5 * depth**2


def grid_scores():
    """Scores as a study has them, with the values of a made-up law."""
    cells = grid_cells()
    pairs, models = [], []
    for a, b in combinations(cells, 2):
        value = share(agreement(cells[a], cells[b]))
        for score, point, tau in (("rp", "alike", 0.83), ("mae", "given", 15.0)):
            row = PairRow(a, b, "pixels", point, tau, score, chance=0.004, **value)
            pairs.append(row)
    for name, row in cells.items():
        new = 0.0
        if row.kind == "network":
            new = 1 / (1 + np.exp(-2 * (np.log2(row.n_train) - 3 - np.log2(row.width))))
        shares = {"n_train": row.n_train, **share(0.97 * new)}
        models.append(ModelRow(name, "gl", "pixels", "copy", 0.9, reference=0.97, **shares))
        shares |= share(1 - new)
        point = ("pixels", "given", 0.333333)
        models.append(ModelRow(name, "memorized", *point, reference=0.01, **shares))
        frechet = {"value": 0.5 + 0.1 * new, "ci95": (0.4, 0.7), "n": COUNT}
        shares |= frechet
        models.append(ModelRow(name, "frechet", "pixels", None, None, reference=0.4, **shares))
    noise = {"fingerprint": "c0ffee0123456789", "n": COUNT}
    return Scores(cells, tuple(pairs), tuple(models), noise=noise)


@pytest.fixture(scope="module")
def scores():
    return grid_scores()


@pytest.fixture(scope="module")
def layout(scores):
    return lay_out(scores.cells)


@pytest.fixture(scope="module")
def grid(scores, layout):
    """The analysis' JSON, with made-up samples and losses."""
    order = np.arange(COUNT) / COUNT
    flags = {
        name: Flags(
            order < scores.model(name, "gl").value,
            order >= 1 - scores.model(name, "memorized").value,
        )
        for name in scores.cells
    }
    found = grid_of_scores(scores, layout, flags, 0.5)
    rows = [(m["capacity"], p) for m in found["models"] for p in m["points"]]
    states, gaps = [], []
    sigma = np.geomspace(0.02, 20, 10)
    for capacity, point in rows:
        copies = point["memorized"]["value"]
        odd = 0.5 * copies * (1 - copies)
        named = {"capacity": capacity, "n_train": point["n_train"], "name": point["name"]}
        shares = {"memorized": copies, "spurious": odd, "generalized": 1 - copies - odd}
        shares = {k: share(v) for k, v in shares.items()}
        reference = {"memorized": 0.01, "spurious": 0.02, "generalized": 0.97}
        states.append({**named, **shares, "reference": reference})
        gap = 20 * copies * np.exp(-((np.log(sigma) + 0.5) ** 2)) + 0.1
        levels = {"sigma": sigma.tolist(), "psnr_gap": gap.tolist(), "psnr_gap_mean": gap.mean()}
        gaps.append({**named, **levels})
    disjoint = []
    for point in found["models"][1]["points"]:
        n = point["n_train"]
        across = agreement(cell(width=16, n=n), cell(width=16, n=n, subset="B"))
        parts, seeds = ({**share(v), "chance": 0.004, "cosine": v} for v in (across, 0.9))
        row = {"capacity": "unet-16", "n_train": n, "parts": parts, "seeds": seeds}
        ratio = {"ratio": across / 0.9, "ratio_ci95": [across / 1.0, across / 0.8]}
        disjoint.append({**row, "gaussian": {**share(0.05), "chance": 0.004}, **ratio})
    extra = {"n": COUNT, "states": states, "loss_gaps": gaps, "disjoint": disjoint}
    return json.loads(json.dumps({**found, **extra, "paper": paper_grid()}))


# --- the grid --------------------------------------------------------------------------------


def test_a_grid_is_laid_out_by_facts(layout, scores):
    assert [c["label"] for c in layout.capacities] == ["unet-8", "unet-16", "unet-32"]
    assert (layout.sizes, layout.subset, layout.seeds) == (SIZES, "A", (4, 0, 2))
    for c, width in enumerate(WIDTHS):
        for n in SIZES:
            row = scores.cells[layout.network(c, n)]
            facts = row.width, row.n_train, row.subset, row.seed
            assert facts == (width, n, "A", SEEDS[width])
    assert scores.cells[layout.network(1, 64, "B", seed=7)].subset == "B"
    assert layout.network(1, 64, "B") is None and layout.network(1, 64, seed=7)
    assert scores.cells[layout.closed["optimum", 64, "A"]].family == "optimum"


def test_two_networks_in_one_place_are_named():
    rows = {"a": cell(width=8), "b": cell(width=8), "o": cell("optimum")}
    with pytest.raises(InputError, match=r"cells='b': must differ from a"):
        lay_out(rows)
    with pytest.raises(InputError, match="at least one network"):
        lay_out({"o": cell("optimum")})


def test_scores_are_those_of_the_study(grid, scores):
    pairs = {(p["a"], p["b"]): p for p in grid["pairs"]}
    assert list(pairs) == [("unet-8", "unet-16"), ("unet-8", "unet-32"), ("unet-16", "unet-32")]
    point = pairs["unet-8", "unet-32"]["points"][2]
    row = scores.pair(point["a"], point["b"])
    assert point["n_train"] == 256 and point["rp"]["value"] == row.value
    assert point["rp"]["chance"] == row.chance
    model = grid["models"][1]
    assert [p["n_train"] for p in model["points"]] == list(SIZES)
    assert model["points"][0]["optimum"]["value"] == pytest.approx(0.7, abs=1e-3)
    assert model["points"][0]["gaussian"]["value"] == pytest.approx(0.1, abs=2e-3)


def test_transitions_move_right_with_capacity(grid):
    found = [m["gl_crossing"]["value"] for m in grid["models"]]
    assert found == pytest.approx([64, 128, 256], rel=0.08)
    copies = [m["memorization"]["value"] for m in grid["models"]]
    assert copies == pytest.approx([64, 128, 256], rel=0.08)
    for model in grid["models"]:
        low, high = model["gl_crossing"]["ci95"]
        assert low < model["gl_crossing"]["value"] < high


def test_a_valley_is_measured_against_the_lower_end():
    values = (0.9, 0.5, 0.1, 0.6)
    points = [{"n_train": 16 * 4**i, "rp": share(v)} for i, v in enumerate(values)]
    found = valley(points)
    assert (found["n_train"], found["end_n_train"], found["disjoint"]) == (256, 1024, True)
    assert found["ratio"] == pytest.approx(51 / 307) and found["ratio_ci95"][0] < 51 / 307
    flat = valley([{"n_train": 2**i, "rp": share(0.5)} for i in range(3)])
    assert flat["ratio"] == 1 and not flat["disjoint"]
    near = valley([{"n_train": 2**i, "rp": share(v)} for i, v in enumerate((0.5, 0.47, 0.55))])
    assert near["ratio"] < 1 and not near["disjoint"]
    rising = valley([{"n_train": 2**i, "rp": share(v)} for i, v in enumerate((0.3, 0.4, 0.8))])
    assert rising["n_train"] == 2 and rising["ratio"] > 1 and not rising["disjoint"]
    assert valley(points[:2]) is None


def test_the_papers_grid_has_the_shape_that_is_to_be_found():
    for curve in (*PAPER_GRID.rp.values(), *PAPER_GRID.gl.values(), *PAPER_GRID.theory.values()):
        assert len(curve) == len(PAPER_GRID.sizes)
    for curve in PAPER_GRID.rp.values():
        assert min(curve) < 0.5 * min(curve[0], curve[-1])
    assert PAPER_GRID.rp[1, 2][-1] == 0.85 and PAPER_GRID.gl[2][7] == 0.29
    assert PAPER_GRID.theory[0][0] == 0.48


# --- training --------------------------------------------------------------------------------

STEPS = (20, 50, 130, 320, 800, 2000, 4000)


def course(n, width):
    """Rows of a network that is good at step 130 and memorizes at about 10 n steps."""
    rows = []
    for step in STEPS:
        copies = share(1 / (1 + np.exp(-3 * np.log(step / (80 * n / width)))))
        value = 0.5 + 20 / step**1.5 * 10
        quality = {"value": value, "ci95": [0.95 * value, 1.05 * value], "n": COUNT}
        rp = {"rp": 0.2 + 0.5 * copies["value"], "ci95": [0.2, 0.8], "chance": 0.01, "n": COUNT}
        new = {"memorized": copies, "gl": share(1 - copies["value"]), "frechet": quality}
        loss = [0.3 + abs(np.log(step / 800)), 0.2]
        rows.append({"step": step, **new, "optimum": rp, "loss_heldout": loss, "final": rp})
    return rows


def seen(rows):
    counts = np.array([[row["memorized"]["value"] * COUNT] for row in rows])
    copied = np.arange(COUNT) < np.round(counts)
    spread = [[0.01 * row["frechet"]["value"] if "frechet" in row else 0.0] for row in rows]
    return Course(rows, copied, np.array(spread))


@pytest.fixture(scope="module")
def training():
    cells = []
    for width in (8, 16):
        for n in SIZES[:4]:
            rows = course(n, width)
            facts = {"capacity": f"unet-{width}", "subset": "A", "seed": 0, "n_train": n}
            found = {"name": f"w{width}_{n}", **facts}
            found |= times(seen(rows), 0.5, 1.1, len(cells))
            cells.append({**found, "gl_reference": 0.97, "rows": rows})
    pairs = [
        {"a": "a", "b": "b", "differ": differ, "n_train": n, "subset": "A",
         "rows": [{"step": r["step"], **r["final"]} for r in course(n, 8)]}
        for n in SIZES[:4] for differ in ("capacity", "seed")
    ]  # fmt: skip
    settings = {"n": COUNT, "memorized_share": 0.5, "quality": 1.1}
    found = {**settings, "cells": cells, "pairs": pairs, "groups": list(growth(cells))}
    return json.loads(json.dumps(found))


def test_times_are_where_they_were_put(training):
    cells = {c["name"]: c for c in training["cells"]}
    assert cells["w8_64"]["t_mem"]["value"] == pytest.approx(640, rel=0.08)
    assert cells["w8_1024"]["t_mem"]["censored"] == "above"
    assert cells["w8_64"]["best_loss_step"] == 800 and cells["w8_64"]["best_step"] == 4000
    good = [c["t_gen"]["value"] for c in cells.values()]
    assert good == pytest.approx([good[0]] * 8) and 130 < good[0] < 320


def test_memorization_grows_with_n_and_quality_does_not(training):
    for group in training["groups"]:
        line = group["t_mem"]
        assert line["slope"] == pytest.approx(1.0, abs=0.1)
        assert line["ci95"][0] < line["slope"] < line["ci95"][1]
        assert group["t_gen"]["slope"] == pytest.approx(0, abs=1e-6)
    small, large = training["groups"]
    assert (small["t_mem"]["num_reached"], small["t_mem"]["num_never"]) == (3, 1)
    assert small["names"] == [f"w8_{n}" for n in SIZES[:4]] and large["capacity"] == "unet-16"


def test_times_without_a_frechet_distance_say_so():
    rows = [{k: v for k, v in row.items() if k != "frechet"} for row in course(64, 8)]
    found = times(seen(rows), 0.5, 1.1, 0)
    assert found["t_gen"] is None and found["t_mem"]["value"] > 0
    facts = {"capacity": "c", "subset": "A", "seed": 0, "n_train": 64, "name": "x"}
    (group,) = growth([{**facts, **found}])
    assert group["t_gen"]["slope"] is None and group["t_mem"]["slope"] is None


# --- figures and tables ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def inputs(scores, grid, training):
    return ReportInputs("t", "c", scores, analyses={"grid": grid, "along_training": training})


def crowded(fig) -> list[tuple[str, str]]:
    """Pairs of texts of a drawn figure that lie on one another."""
    fig.draw_without_rendering()
    texts = {id(t): t for t in fig.findobj(Text) if t.get_text().strip() and t.get_visible()}
    for axis in (axis for ax in fig.axes for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low <= tick.get_loc() <= high:  # exists, and is not drawn
                texts.pop(id(tick.label1), None)
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts.values()]
    boxes = [(text, box) for text, box in boxes if box.width > 1]
    bad = []
    for (a, x), (b, y) in combinations(boxes, 2):
        wide = min(x.x1, y.x1) - max(x.x0, y.x0)
        high = min(x.y1, y.y1) - max(x.y0, y.y0)
        if wide > 2 and high > 2:
            bad.append((a, b))
    return bad


def test_every_figure_is_drawn_and_no_words_overlap(inputs):
    plates = [*grid_plates(inputs), *training_plates(inputs)]
    names = ["grid", "grid_states", "grid_losses", "training", "training_times"]
    assert [plate.name for plate in plates] == names
    for plate in plates:
        assert plate.figure.get_figwidth() <= 13 and not crowded(plate.figure), plate.name
    caption = plates[0].caption
    assert "lowest at N = 256" in caption and "read off its curves" in caption
    assert "in order of size" in caption and "Slopes of unet-8" in plates[4].caption


def test_what_is_not_there_is_not_drawn(inputs, grid, training):
    empty = ReportInputs("t", "c", Scores({}))
    assert grid_plates(empty) == training_plates(empty) == []
    bare = {**grid, "disjoint": [], "states": [], "loss_gaps": [], "paper": None}
    (plate,) = grid_plates(ReportInputs("t", "c", inputs.scores, analyses={"grid": bare}))
    assert [ax.axison for ax in plate.figure.axes] == [True, True, True, False]
    assert "disjoint" not in plate.caption.lower()
    single = {**training, "pairs": [], "groups": [training["groups"][0] | {"names": ["w8_16"]}]}
    inputs = ReportInputs("t", "c", Scores({}), analyses={"along_training": single})
    assert [p.name for p in training_plates(inputs)] == ["training"]


def test_tables_say_where_and_how_sure(inputs):
    tables = {t.title: t for t in analysis_tables(inputs, show_modules())}
    assert len(tables) == 5
    crossings = tables["Where memorizing ends"]
    assert [row[0] for row in crossings.rows] == ["unet-8", "unet-16", "unet-32"]
    assert all("[" in row[2] and "[" in row[4] for row in crossings.rows)
    assert {row[3] for row in crossings.rows} == {".50"}
    valleys = tables["The valley of RP between capacities"].rows
    assert valleys[0][0] == "unet-8 × unet-16" and valleys[0][-1] == "yes"
    for table in tables.values():
        assert table.rows and all(len(row) == len(table.columns) for row in table.rows)
    times_rows = tables["When networks get good, and when they memorize"].rows
    assert "above 4,000" in {row[3] for row in times_rows}
    out = io.StringIO()
    print_analyses(inputs, show_modules(), Console(file=out, width=80))
    assert "slope in log N" in out.getvalue() and "…" not in out.getvalue()


def test_a_crossing_in_words():
    ends = {"smallest": 16.0, "largest": 16384.0}
    inside = {"value": 312.4, "ci95": [290.2, 1023.0], "censored": "", **ends}
    assert crossing_words(inside) == "312 [290, 1,020]"
    assert crossing_words({**inside, "ci95": [None, None]}) == "312 [<16, >16,384]"
    assert crossing_words({**inside, "value": None, "censored": "above"}) == "above 16,384"
    assert crossing_words({**inside, "value": None, "censored": "below"}) == "below 16"
    assert crossing_words(None) == "–"


def test_the_page_shows_both(inputs, tmp_path):
    bare = replace(inputs.scores, pairs=(), models=())  # leaves the other figures out
    write_report(replace(inputs, scores=bare), tmp_path, show_modules())
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Capacity and dataset size" in page and "When networks memorize" in page
    assert (tmp_path / "figures" / "grid.png").exists()
