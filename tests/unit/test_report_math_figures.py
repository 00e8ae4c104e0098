"""The figures of the mathematics studies, on made-up results."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from making import closed_form, interval, made_scores, network, revalued
from matplotlib.image import imread

from reprojax.analyses.ceiling import show as ceiling_show
from reprojax.analyses.encoding import show as encoding_show
from reprojax.analyses.jacobian import show as jacobian_show
from reprojax.analyses.local import show as local_show
from reprojax.analyses.solvers import show as solvers_show
from reprojax.analyses.solvers.show import solver_styles
from reprojax.analyses.table import show_modules
from reprojax.drawing.draw import Plate, numbers
from reprojax.drawing.size_series import network_groups, size_ticks
from reprojax.report.curve_figure import curve_plate
from reprojax.report.figures import draw_figures
from reprojax.report.inputs import ReportInputs
from reprojax.report.pair_figures import FIRST_BARS, bars_plate, heatmap_plate
from reprojax.report.theory_figure import theory_plate
from reprojax.report.transport_figure import transport_plate
from reprojax.report.write import write_report
from reprojax.scoring.scores import CurveRow, Curves, Scores

pytestmark = pytest.mark.filterwarnings("error")  # matplotlib warns where a layout failed

SIZES = (16, 64, 256, 1024, 4096)
MAKERS = {
    "theory": theory_plate,
    "solvers": solvers_show.figures,
    "encoding": encoding_show.figures,
    "jacobian": jacobian_show.figures,
    "local": local_show.figures,
    "ceiling": ceiling_show.figures,
    "transport": transport_plate,
    "rp_curves": curve_plate,
}
NASTY = ("<b>x</b>", r"[red]$\frac$", "_under", "a$b")


def made(maker, inputs) -> list[Plate]:
    plates = maker(inputs) or []
    return [plates] if isinstance(plates, Plate) else plates


def theory_cells(sizes=SIZES, widths=(8, 16), families=("optimum", "gaussian"), population=False):
    cells = {}
    for n in sizes:
        for width in widths:
            cells[f"unet{width}_n{n}"] = network(width=width, kernel="edm", n_train=n)
        for family in families:
            cells[f"{family}_n{n}"] = closed_form(family, n_train=n)
    if population:
        cells["population"] = closed_form("population", n_train=0)
    return cells


def agreement(a, b):
    """A plausible RP of two cells."""
    kinds, depth = {a.family, b.family}, np.log2(max(a.n_train, b.n_train, 16)) / 12
    if a.n_train != b.n_train:
        return 0.05 + 0.25 * depth
    if kinds == {"unet"}:
        return 0.9 - 1.6 * depth + 1.4 * depth**2
    if "optimum" in kinds and "gaussian" in kinds:
        return 0.1
    if "population" in kinds:
        return 0.2 + 0.5 * depth
    wide = max(a.width, b.width) > 8
    return (1.02 - depth + 0.05 * wide) if "optimum" in kinds else 0.1 + 0.4 * depth


def scores_of(cells):
    def rp(row):
        return float(np.clip(agreement(cells[row.a], cells[row.b]), 0, 1))

    def pair(row):
        chance = 0.004 if row.score == "rp" else 0.02
        return {"value": rp(row), "ci95": interval(rp(row)), "chance": chance, "n": 512}

    def distance(row):
        pfd = 5 + 60 * (1 - rp(row))
        changes = {"pfd": pfd, "pfd_ci95": (pfd - 2, pfd + 2), "pfd_chance": 80.0}
        return {**changes, "r2": rp(row), "r2_ci95": interval(rp(row))}

    def model(row):
        new = 1 / (1 + np.exp(6 - np.log2(max(cells[row.name].n_train, 1))))
        new = 0.0 if cells[row.name].family == "optimum" else float(new)
        if row.score == "frechet":
            return None
        value, reference = (new, 0.95) if row.score == "gl" else (1 - new, 0.01)
        return {"value": value, "ci95": interval(value), "reference": reference, "n": 512}

    return revalued(made_scores(cells), pair=pair, distance=distance, model=model)


def theory_scores(**changes):
    return scores_of(theory_cells(**changes))


def with_curves(scores, count):
    """The same scores with RP curves of the first pairs, whatever their training images."""
    taus = (0.0, *(1 - np.geomspace(0.6, 1e-3, 24)), 1.0)
    rows = tuple(
        CurveRow(a, b, tuple(1 - t ** (2 + k) for t in taus), tuple(0.3 * (1 - t) for t in taus))
        for k, (a, b) in enumerate(list(combinations(scores.cells, 2))[:count])
    )
    return replace(scores, rp_curves=Curves(taus, rows))


def with_transport(scores, names):
    """The same scores with the transport of these models, in this order."""
    rows = {row.name: row for row in scores.transport}
    values = {"cost": 81.2, "optimal": 80.1, "random": 92.0, "matched": 0.3, "n": 512}
    places = ((0.98 - 0.07 * k, rows[name]) for k, name in enumerate(names))
    return replace(
        scores, transport=tuple(replace(row, recovered=share, **values) for share, row in places)
    )


SOLVERS = ("ddim", "heun", "dpm_solver_2", "dpmpp_2m", "dpmpp_3m", "ipndm", "rk45", "unipc_2")
STOCHASTIC = ("ddpm", "edm_churn")


def solvers(cells=("unet16_n4096", "optimum_n64", "gaussian_n64")):
    rows, reaches = [], []
    for cell in cells:
        for k, solver in enumerate((*SOLVERS, *STOCHASTIC)):
            random = solver in STOCHASTIC
            for steps in (4, 8, 16, 32, 64, 128):
                gap = 0.9 if random else 40 * steps ** -(1 + 0.3 * k)
                rp = 0.05 if random else 1 / (1 + gap)
                row = {"cell": cell, "solver": solver, "stochastic": random, "steps": steps}
                row |= {"nfe": steps * (1 + (solver == "heun")), "rp": rp, "ci95": interval(rp)}
                rows.append(row | {"chance": 0.004, "mae": rp, "pfd": 60 if random else gap})
            best = None if random else 12.0 + k
            reaches.append({"cell": cell, "solver": solver, "nfe_90": best, "nfe_99": None})
    limit = {"solver": "heun", "nfe": 1599}
    return {"n": 512, "threshold": 0.83, "limit": limit, "rows": rows, "reaches": reaches}


def encoding(cells=("unet8", "unet16", "optimum", "gaussian")):
    trips, transplants, latents = [], [], []
    for source in ("heldout", "samples"):
        for k, cell in enumerate(cells):
            row = {"cell": cell, "source": source, "pfd": 0.4 + k, "rp": 1 - 0.02 * k}
            trips.append(row | {"ci95": interval(1.0), "chance": 0.004, "max_abs": 0.1})
        for k, (a, b) in enumerate((a, b) for a in cells for b in cells if a != b):
            row = {"a": a, "b": b, "source": source, "rp": 0.9 - 0.06 * k, "ci95": [0.1, 0.9]}
            transplants.append(row | {"chance": 0.006, "mae": 0.5, "pfd": 9.0 + k, "r2": 0.8})
    for a, b in combinations(cells, 2):
        latents.append({"a": a, "b": b, "source": "heldout", "correlation": 0.93, "rmse": 0.4})
    how = {"n": 256, "steps": 64, "solver": "heun", "threshold": 0.83}
    return how | {"round_trips": trips, "transplants": transplants, "latents": latents}


def jacobian(cells=("unet8", "unet16", "optimum", "gaussian")):
    rows = []
    for k, cell in enumerate(cells):
        for sigma in np.geomspace(0.02, 80, 9):
            rank = 64 / (1 + sigma * (k + 1))
            row = {"cell": cell, "sigma": float(sigma), "rank": rank, "ci95": [rank - 1, rank + 1]}
            rows.append(row | {"stable_rank": rank / 2})
    return {"dimension": 64, "eta": 0.99, "n": 32, "rows": rows}


def local(models=("local", "gaussian", "optimum")):
    rng = np.random.default_rng(0)
    rows = []
    for k, name in enumerate(models):
        values = rng.beta(12 / (k + 1), 2 + 2 * k, 64)
        row = {"name": name, "r2_median": float(np.median(values)), "values": values.tolist()}
        row |= {"r2_median_ci95": [np.median(values) - 0.03, np.median(values) + 0.03]}
        mean = float(values.mean())
        rows.append(row | {"r2_mean": mean, "r2_mean_ci95": [mean - 0.03, mean + 0.03]})
    sigmas, radii = np.geomspace(0.02, 30, 12).round(3).tolist(), [0, 1, 2, 3, 4, 5, 6, 8, 12, 15]
    r2 = [[0.9 / (1 + abs(np.log2(s + 1) - r)) for r in radii] for s in sigmas]
    chosen = [radii[int(np.argmax(row))] for row in r2]
    images = {name: rng.integers(0, 256, (10, 16, 16, 1)).tolist() for name in ("network", *models)}
    found = {"cell": "unet16_n4096", "n": 64, "n_train": 4096, "models": rows, "images": images}
    found["differences"] = [{"name": "local - gaussian", "mean": -0.21, "ci95": [-0.3, -0.1]}]
    return found | {
        "calibration": {"sigmas": sigmas, "radii_tried": radii, "r2": r2, "chosen": chosen}
    }


def ceiling(cells=("optimum", "unet8", "unet16")):
    changes = ("18 against 800 Heun steps", "sigma_max 80 against 152")
    rows = []
    for k, (cell, n) in enumerate((c, n) for n in SIZES for c in cells):
        for change in changes:
            share = None if k % 3 else 0.01 + 0.004 * k
            row = {"cell": f"{cell}_n{n}", "n_train": n, "change": change, "other_image": share}
            row |= {"other_ci95": share and [share - 0.005, share + 0.01], "pfd": 2.0 + 0.3 * k}
            rows.append(row | {"rp": 0.99 - 0.01 * k, "ci95": interval(0.99 - 0.01 * k, 0.01)})
    return {"n": 512, "rows": rows}


def full_inputs() -> ReportInputs:
    scores = theory_scores(population=True)
    scores = with_transport(with_curves(scores, 12), scores.cells)
    analyses = {
        "solvers": solvers(),
        "encoding": encoding(),
        "jacobian": jacobian(),
        "local": local(),
        "ceiling": ceiling(),
    }
    return ReportInputs("Theory", "", scores, analyses=analyses)


def nasty_inputs() -> ReportInputs:
    """Every name of every result is one that markup or mathematics could trip over."""
    cells = theory_cells(sizes=(16, 64, 256), widths=(8,)).values()
    scores = scores_of({f"{NASTY[i % 4]}{i}": cell for i, cell in enumerate(cells)})
    scores = with_transport(with_curves(scores, 4), list(scores.cells)[:4])
    analyses = {
        "solvers": solvers(NASTY[:2]),
        "encoding": encoding(NASTY),
        "jacobian": jacobian(NASTY),
        "local": local(NASTY),
        "ceiling": ceiling(NASTY[:2]),
    }
    for row in [*analyses["solvers"]["rows"], *analyses["solvers"]["reaches"]]:
        row["solver"] = f"{NASTY[0]}{row['solver']}$"
    for row in analyses["ceiling"]["rows"]:
        row["change"] = row["change"].replace("80", "$80$ <i>")
    return ReportInputs("Nasty", "", scores, analyses=analyses)


@pytest.fixture(scope="module")
def full() -> ReportInputs:
    return full_inputs()


@pytest.fixture(scope="module")
def nasty(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("nasty")
    write_report(nasty_inputs(), folder, show_modules())
    return folder


@pytest.mark.parametrize("name", MAKERS)
def test_each_figure_says_what_it_shows(full, name):
    plates = made(MAKERS[name], full)
    assert [p.name for p in plates] == (["local", "local_samples"] if name == "local" else [name])
    for plate in plates:
        assert len(plate.caption) > 60 and len(plate.alt) > 30 and plate.title
        assert "None" not in plate.caption + plate.alt and "nan" not in plate.caption + plate.alt


@pytest.mark.parametrize("name", [*MAKERS, "local_samples"])
def test_figures_decode_and_show_something(nasty, name):
    image = imread(nasty / "figures" / f"{name}.png")
    assert image.shape[1] >= 600 and image[..., :3].std() > 0.03


def test_names_are_text_not_markup(nasty):
    text = (nasty / "report" / "index.html").read_text("utf-8")
    assert "<b>x" not in text and "<i>" not in text and "&lt;b&gt;x" in text


@pytest.mark.parametrize("name", MAKERS)
def test_no_data_no_figure(name):
    assert not made(MAKERS[name], ReportInputs("Empty", "", Scores({})))
    empty = {"solvers": {"rows": []}, "encoding": {}, "jacobian": {}, "local": {}, "ceiling": {}}
    assert not made(MAKERS[name], ReportInputs("Empty", "", Scores({}), analyses=empty))


def test_the_report_takes_several_plates_of_one_analysis(nasty):
    inputs = ReportInputs("Local", "", Scores({}), analyses={"local": local(), "unknown": {"a": 1}})
    assert [plate.name for plate in draw_figures(inputs, show_modules())] == [
        "local",
        "local_samples",
    ]
    assert draw_figures(inputs) == []
    names = {path.stem for path in (nasty / "figures").glob("*.png")}
    assert names == {*MAKERS, "local_samples", "rp_heatmap", "rp_bars", "gl"}


def titles(figure):
    return [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]


def test_theory_has_the_panels_that_the_scores_have(full):
    assert len(titles(theory_plate(full).figure)) == 4
    scores = replace(full.scores, distances=())
    found = titles(theory_plate(replace(full, scores=scores)).figure)
    assert len(found) == 3 and not any("PFD" in title for title in found)
    one = theory_plate(replace(full, scores=theory_scores(widths=(8,))))
    assert not any("between networks" in title for title in titles(one.figure))


def test_theory_draws_each_network_with_its_own_closed_forms(full):
    ax = theory_plate(full).figure.axes[0]
    lines = [c for c in ax.containers if c.has_yerr]
    assert len(lines) == 2 * 3  # widths, closed forms
    cells, rp = full.scores.cells, lines[0].lines[0]
    assert rp.get_xdata() == pytest.approx(SIZES, rel=0.05) and rp.get_linestyle() == "-"
    own = [agreement(cells[f"unet8_n{n}"], cells[f"optimum_n{n}"]) for n in SIZES]
    assert rp.get_ydata() == pytest.approx(np.clip(own, 0, 1))
    assert {c.lines[0].get_linestyle() for c in lines} == {"-", "--", "-."}


@pytest.mark.parametrize("changes", [{"sizes": (16, 64)}, {"sizes": ()}])
def test_theory_needs_three_sizes(changes):
    assert theory_plate(ReportInputs("Few", "", theory_scores(**changes))) is None


def test_theory_needs_an_optimum():
    scores = theory_scores(families=("gaussian",))
    assert theory_plate(ReportInputs("Without", "", scores)) is None


def test_groups_differ_in_their_number_of_images_alone():
    cells = theory_cells()
    cells["again"] = cells["unet8_n16"]  # nothing recorded tells it from the first
    cells["half"] = replace(cells["unet8_n64"], subset="A")
    groups = {group.label: list(group.names.values()) for group in network_groups(cells)}
    assert [len(names) for names in groups.values()] == [5, 1, 1, 5]
    assert ["half"] in groups.values() and ["again"] in groups.values()
    assert any("A" in name.split() for name, names in groups.items() if names == ["half"])


def test_solvers_stand_apart_and_limits_leave_no_zero_on_a_log_axis(full):
    found = solvers()
    found["rows"][5]["pfd"] = 0.0
    (plate,) = solvers_show.figures(replace(full, analyses={"solvers": found}))
    assert len(plate.figure.axes) == 2 * 3
    top, bottom = plate.figure.axes[0], plate.figure.axes[3]
    assert len(top.containers) == len(bottom.containers) == len(SOLVERS) + len(STOCHASTIC)
    assert np.isnan(bottom.containers[0].lines[0].get_ydata()[-1])
    styles = solver_styles(found["rows"])
    assert len({tuple(style.values()) for style in styles.values()}) == len(styles)
    dashed = {name for name, style in styles.items() if style["linestyle"] == "--"}
    assert dashed == set(STOCHASTIC)
    assert "heun with 1,599 evaluations" in plate.caption and "512 noises" in plate.caption
    assert "ddim with 12 for .90, no solver for .99" in plate.caption


def test_solvers_of_many_cells_fold(full):
    names = tuple(f"model{i}" for i in range(6))
    (plate,) = solvers_show.figures(replace(full, analyses={"solvers": solvers(names)}))
    assert sum(ax.axison for ax in plate.figure.axes) == 2 * 6
    assert plate.figure.get_figwidth() < 12


def test_encoding_puts_encoders_in_rows_and_round_trips_on_the_diagonal(full):
    (plate,) = encoding_show.figures(full)
    values = plate.figure.axes[0].images[0].get_array()
    assert np.diag(values).tolist() == pytest.approx([1, 0.98, 0.96, 0.94])
    assert values[0, 1] == pytest.approx(0.9) and values[1, 0] == pytest.approx(0.72)
    matrices = [ax for ax in plate.figure.axes if ax.images]
    assert len(matrices) == 3 and np.diag(matrices[2].images[0].get_array()).mask.all()
    only = encoding() | {"latents": []}
    only["round_trips"] = [r for r in only["round_trips"] if r["source"] == "heldout"]
    only["transplants"] = [r for r in only["transplants"] if r["source"] == "heldout"]
    (plate,) = encoding_show.figures(replace(full, analyses={"encoding": only}))
    assert len([ax for ax in plate.figure.axes if ax.images]) == 1


def test_jacobian_has_a_line_and_a_band_for_each_cell(full):
    ax = jacobian_show.figures(full)[0].figure.axes[0]
    assert len(ax.collections) == 4 and ax.get_xscale() == "log"
    assert len([line for line in ax.lines if len(line.get_xdata()) == 9]) == 4


def test_local_reads_either_order_of_its_calibration(full):
    found = local()
    flipped = found | {"calibration": dict(found["calibration"])}
    flipped["calibration"]["r2"] = np.transpose(found["calibration"]["r2"]).tolist()
    shown = [
        local_show.figures(replace(full, analyses={"local": f}))[0]
        .figure.axes[1]
        .images[0]
        .get_array()
        for f in (found, flipped)
    ]
    assert shown[0].shape == (10, 12) and (shown[0] == shown[1]).all()
    bare = {key: value for key, value in found.items() if key not in ("calibration", "images")}
    plates = local_show.figures(replace(full, analyses={"local": bare}))
    assert [plate.name for plate in plates] == ["local"]
    assert "local - gaussian −.21 [−.30, −.10]" in plates[0].caption
    assert "Right" not in plates[0].caption and len(plates[0].figure.axes) == 1


def test_ceiling_leaves_out_what_is_null(full):
    (plate,) = ceiling_show.figures(full)
    left, middle = plate.figure.axes[:2]
    rows = full.analyses["ceiling"]["rows"]
    assert len(left.containers) == sum(row["other_image"] is not None for row in rows)
    assert len(middle.containers) == len(rows)
    none = [row | {"other_image": None} for row in rows]
    (plate,) = ceiling_show.figures(replace(full, analyses={"ceiling": {"n": 512, "rows": none}}))
    assert "Left" not in plate.caption and len(plate.figure.axes) == 2


def test_curves_show_eight_pairs_of_the_same_images_first(full):
    plate = curve_plate(replace(full, scores=with_curves(full.scores, 210)))
    names = [t.get_text() for t in plate.figure.legends[0].get_texts()]
    assert len(names) == 8 + 1 and all("unet" in n.split(" × ")[1] for n in names[:8])
    assert names[:5] == [f"unet8_n{n} × unet16_n{n}" for n in SIZES]
    assert "first 8 of 210 pairs" in plate.caption and "202 are left out" in plate.caption
    marks = [line for line in plate.figure.axes[0].lines if len(set(line.get_xdata())) == 1]
    assert marks[0].get_xdata()[0] == pytest.approx(-np.log10(1 - 0.83))


def test_transport_orders_models_as_the_tables_do(full):
    scores = with_transport(full.scores, ["optimum_n16", "unet8_n64"])
    ax = transport_plate(replace(full, scores=scores)).figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["unet8_n64", "optimum_n16"]


def test_pairs_of_twenty_cells_stay_readable(full):
    scores = theory_scores()
    assert len(scores.cells) == 20
    inputs = replace(full, scores=scores)
    bars, heat = bars_plate(inputs), heatmap_plate(inputs)
    assert f"Of 190 pairs the first {FIRST_BARS} are drawn" in bars.caption
    assert len(bars.figure.axes[0].get_yticklabels()) == FIRST_BARS
    assert not heat.figure.axes[0].texts and max(heat.figure.get_size_inches()) < 12


def test_helpers():
    assert np.isnan(numbers([None, 1])[0]) and numbers([None, 1])[1] == 1
    ax = theory_plate(full_inputs()).figure.axes[0]
    size_ticks(ax, (64, 50_000, 60_000))
    assert [t.get_text() for t in ax.get_xticklabels()] == ["64", "50,000", ""]
