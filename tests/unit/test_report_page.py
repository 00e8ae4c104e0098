"""The report's figures, tables and page on a made-up study of digits."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from making import closed_form, external, interval, made_scores, network, revalued
from matplotlib.image import imread
from rich.console import Console
from sklearn.datasets import load_digits

from reprojax.drawing import formats
from reprojax.report.figures import draw_figures
from reprojax.report.inputs import ReportInputs
from reprojax.report.tables import print_scores
from reprojax.report.words import threshold_words
from reprojax.report.write import write_report
from reprojax.scoring import maker as scoring_maker
from reprojax.scoring.calibration import Thresholds, choose_thresholds
from reprojax.scoring.descriptors import unit_rows
from reprojax.scoring.scores import GIVEN_FEATURES, Scores
from reprojax.scoring.sets import RealSet, SampleSet

pytestmark = pytest.mark.filterwarnings("error")  # matplotlib warns where a layout failed

CELLS = {
    "optimum": closed_form("optimum"),
    "gaussian": closed_form("gaussian"),
    "unet32_vp_s0": network("unet", 32, params=612_000),
    "unet32_vp_s1": network("unet", 32, seed=1, params=612_000),
    "uvit64_vp_s0": network("uvit", 64, params=1_300_000),
    "uvit96_vp_s0": network("uvit", 96),
}
FIGURES = {"samples", "rp_heatmap", "rp_bars", "rp_curves", "transport", "gl", "loss"}


def make_scores(cells=CELLS, **options):
    """Scores with values that texts can be found by."""
    places = {frozenset(pair): k for k, pair in enumerate(combinations(cells, 2))}

    def pair(row):
        k, kinds = places[frozenset((row.a, row.b))], (cells[row.a].kind, cells[row.b].kind)
        rp = 0.31 + 0.005 * k if "closed_form" in kinds else min(0.97, 0.61 + 0.01 * k)
        value, chance = (rp, 0.004) if row.score == "rp" else (rp - 0.1, 0.02)
        return {"value": value, "ci95": interval(value), "chance": chance, "n": 500}

    def model(row):
        k = list(cells).index(row.name)
        values = {
            "gl": 0.93 + 0.01 * (k % 4),
            "memorized": 0.01 * (k % 2),
            "frechet": 1.3 + 0.4 * k,
        }
        references = {"gl": 0.95, "memorized": None, "frechet": 0.62}
        value, near = values[row.score], row.score == "frechet"
        ci95 = (value * 0.9, value * 1.1) if near else interval(value)
        return {"value": value, "ci95": ci95, "reference": references[row.score], "n": 500}

    return revalued(made_scores(cells, **options), pair=pair, model=model)


def make_inputs(cells=CELLS, **changes):
    digits = (load_digits().images * 15.9).astype(np.uint8)[..., None]
    rng = np.random.default_rng(0)
    samples = {}
    for name in cells:
        noisy = digits[:64] + rng.normal(0, 25, (64, 8, 8, 1))
        samples[name] = noisy.clip(0, 255).astype(np.uint8)
    metrics = {name: training_rows(rng) for name, cell in cells.items() if cell.kind == "network"}
    inputs = ReportInputs(
        title="Digits <lab>",
        command="python -m reprojax.main --config=configs/digits.py:lab",
        scores=make_scores(cells),
        samples=samples,
        nearest=dict.fromkeys(cells, digits[:64]),
        metrics=metrics,
        facts={"JAX": "0.9.0", "device": "2 CPU cores", "training": "3 min 12 s"},
    )
    return replace(inputs, **changes)


def training_rows(rng):
    steps = np.arange(1, 301) * 20
    loss = 0.5 * steps**-0.3 * np.exp(rng.normal(0, 0.15, steps.size))
    rows = [
        {"step": int(s), "images": int(s) * 128, "loss": float(v), "grad_norm": 1.0, "lr": 1e-3}
        for s, v in zip(steps, loss)
    ]
    sigma = np.geomspace(0.02, 80, 8)
    train = 0.3 * sigma**2 / (sigma**2 + 0.25)
    for step in (3000, 6000):
        heldout = (train * 1.2).tolist()
        rows.append(
            {"step": step, "sigma": sigma.tolist(), "loss_train": train.tolist()}
            | {"loss_heldout": heldout}
        )
    return rows


class Page(HTMLParser):
    """Checks that tags nest and collects text, attributes and ids."""

    VOID = frozenset({"meta", "link", "img", "br", "hr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.tags = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page_of(inputs, folder):
    written = write_report(inputs, folder)
    text = (folder / "report/index.html").read_text("utf-8")
    return written, text, Page(text)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return folder, *page_of(make_inputs(), folder)


def test_writes_every_figure_and_leaves_no_temporary_file(full):
    folder, written, _, _ = full
    wanted = {Path("figures", f"{n}.png") for n in FIGURES} | {Path("report/index.html")}
    assert set(written) == wanted
    assert {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()} == wanted


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_figures_decode_and_show_something(full, name):
    image = imread(full[0] / "figures" / f"{name}.png")
    assert min(image.shape[:2]) >= 300 and image.shape[1] >= 600
    assert image[..., :3].std() > 0.03


def test_page_names_every_model_pair_score_and_origin(full):
    _, _, _, page = full
    for name in CELLS:
        assert name in page.text
    for text in (
        ".71 [.68, .74]",  # RP of a pair: cells 2 and 5
        ".94 [.91, .97]",
        "RP .83 (pixels)",
        "MAE score 15 of 255",
        "GL .91 (pixels)",
        "random pairs of them pass it once in 1,000",
        "held-out images: 5 in 100 have a training image that passes it",
        "MAE score 15 of 255 (pixels): fixed, as in arXiv 2310.05264",
        "memorized .333 (pixels): fixed, as in arXiv 2310.02664",
        "c0ffee0123456789",
        "configs/digits.py:lab",
        "3 min 12 s",
        "two seeds of one model",
        "2310.05264",
        "2310.02664",
    ):
        assert text in page.text, text


def test_page_needs_nothing_from_outside(full):
    _, _, text, page = full
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        assert not any(key.startswith("on") for key in attributes)
        for key in ("src", "href"):
            if key in attributes:
                allowed = ("data:", "https://arxiv.org/abs/") if tag == "a" else ("data:",)
                assert attributes[key].startswith(allowed), (tag, attributes[key][:60])
    style = re.search(r"<style>(.*?)</style>", text, re.S).group(1)
    assert "url(" not in style and "@import" not in style and "http" not in style


def test_images_have_alternative_texts_and_headings_do_not_skip(full):
    _, _, _, page = full
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert len(alts) == len(FIGURES) and all(len(alt) > 20 for alt in alts)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_names_are_text_not_markup(tmp_path):
    cells = {"<b>x</b>": CELLS["unet32_vp_s0"], r"[red]$\frac$": CELLS["uvit64_vp_s0"]}
    inputs = make_inputs(cells)
    _, text, page = page_of(inputs, tmp_path)
    assert "<b>" not in text
    assert "<b>x</b>" in page.text and r"[red]$\frac$" in page.text
    assert r"[red]$\frac$" in printed(inputs.scores, 120)


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({"samples": {}, "nearest": {}}, {"samples"}),
        ({"metrics": {}}, {"loss"}),
        ({"nearest": {}}, set()),
    ],
)
def test_a_figure_without_data_is_left_out(tmp_path, changes, absent):
    written, text, page = page_of(make_inputs(**changes), tmp_path)
    assert {p.stem for p in written} - {"index"} == FIGURES - absent
    assert text.count("<img") == len(FIGURES - absent)
    assert ("The smaller row beneath" in page.text) == bool(changes.get("nearest", True))


def test_a_report_of_almost_nothing(tmp_path):
    written, _, page = page_of(ReportInputs("Empty", "", Scores({})), tmp_path)
    assert written == [Path("report/index.html")]
    assert "No fingerprint" in page.text and "Thresholds used" not in page.text


def test_outside_samples_without_study_facts_or_references(tmp_path):
    cells = {"mine": external(), "theirs": external()}
    scores = make_scores(cells, noises=False)
    assert not scores.models and not scores.transport
    written, _, page = page_of(ReportInputs("Mine", "score", replace(scores, noise=None)), tmp_path)
    assert {p.stem for p in written} == {"rp_heatmap", "rp_bars", "rp_curves", "index"}
    assert "2 sample sets" in page.text and "No fingerprint" in page.text


@pytest.mark.parametrize("with_train", [False, True])
def test_outside_features_without_images(tmp_path, with_train):
    rng = np.random.default_rng(0)

    def features(count):
        return unit_rows(rng.standard_normal((count, 5)).astype(np.float32))

    cells = {name: external(20 * with_train) for name in ("mine", "theirs", "ours")}
    train = {"train": RealSet(None, features(20), 20)} if with_train else {}
    key = "train" if with_train else None
    samples = [SampleSet(name, None, features(8), key) for name in cells]
    thresholds = Thresholds(0.6, 0.6, "paper", "paper")
    scores = scoring_maker.make_scores(samples, cells, train, None, GIVEN_FEATURES, thresholds)
    assert not scores.distances and {row.score for row in scores.pairs} == {"rp"}
    written, _, page = page_of(ReportInputs("Features", "score", scores), tmp_path)
    figures = {"rp_heatmap", "rp_bars", "rp_curves"} | ({"gl"} if with_train else set())
    assert {p.stem for p in written} == {*figures, "index"}
    assert "3 sample sets" in page.text and "RP .6 (features): published" in page.text
    assert ("not judged" in page.text) == with_train and "nan" not in page.text.lower().split()
    assert "external" in printed(scores, 80) and "RP" in printed(scores, 80)


def test_thresholds_say_what_they_rest_on(tmp_path):
    images = RealSet(None, unit_rows(np.random.default_rng(0).random((30, 4), np.float32)), 30)
    thresholds = choose_thresholds(images, images, descriptor="pixels", rp_rate=0.01)
    scores = made_scores(CELLS, thresholds=thresholds)
    lines = " ".join(threshold_words(scores))
    assert "calibrated on training images: random pairs of them pass it once in 100." in lines
    assert "calibrated on held-out images: 5 in 100 have a training image" in lines
    given = choose_thresholds(None, None, descriptor="pixels", given=0.7)
    assert threshold_words(made_scores(CELLS, thresholds=given))[0] == (
        "RP .7 (pixels): chosen by the user."
    )


def test_chance_within_conditions_is_said_everywhere(tmp_path):
    words = "samples of different noises with the same condition"
    scores = made_scores(CELLS, groups=np.arange(6) % 2)
    plates = {p.name: p.caption for p in draw_figures(ReportInputs("", "", scores))}
    assert all(words in plates[name] for name in ("rp_heatmap", "rp_bars", "rp_curves"))
    assert words in " ".join(printed(scores, 200).split())
    _, _, page = page_of(ReportInputs("", "", scores), tmp_path)
    assert f"The same score between {words}." in page.text and f"left: {words}." in page.text
    assert "same condition" not in printed(made_scores(CELLS), 200)


def test_evaluation_without_heldout_images(tmp_path):
    rows = [{"step": 5, "sigma": [0.1, 1.0], "loss_train": [0.1, 0.2], "loss_heldout": None}]
    written, _, _ = page_of(make_inputs(metrics={"unet32_vp_s0": rows}), tmp_path)
    assert Path("figures/loss.png") in written


def test_many_models_long_names_and_colour_images(tmp_path):
    cells = {f"a_rather_long_model_name_{i:02d}": network(width=i + 1) for i in range(18)}
    rng = np.random.default_rng(1)
    samples = {name: rng.integers(0, 256, (3, 40, 24, 3), np.uint8) for name in cells}
    inputs = make_inputs(cells, samples=samples, nearest={}, metrics={})
    written, _, page = page_of(inputs, tmp_path)
    assert {p.stem for p in written} == {*FIGURES, "index"} - {"loss"}
    assert "first 16 of 18 models" in page.text


def test_importing_sets_no_global_state():
    code = (
        "import sys, reprojax.report.write, reprojax.report.tables; "
        "sys.exit(bool({'matplotlib.pyplot', 'jax', 'absl'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def printed(scores, width):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    print_scores(scores, console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100])
def test_terminal_tables_keep_numbers_whole(width):
    text = printed(make_scores(), width)
    assert all(len(line) <= width for line in text.splitlines())
    for number in (".71 [.68, .74]", ".94 [.91, .97]", "612 k", "1.30 M", "1,000", "1.30", ".004"):
        assert number in text, number
    assert text.index("unet32_vp_s0") < text.index("gaussian")
    assert "networks agree on most noises" in " ".join(text.split())


def test_formats():
    shares = {0.0: ".00", 0.0042: ".004", 1e-5: "<.001", 0.614: ".61", 0.997: ".997", 1.0: "1.00"}
    assert {value: formats.share(value) for value in shares} == shares
    assert [formats.bound(v) for v in (0.0, 0.0042, 0.004, 0.0124, 1.0)] == [
        ".00",
        ".005",
        ".004",
        ".02",
        "1.00",
    ]
    assert formats.share(0.99999) == ">.999" and formats.share(float("nan")) == "–"
    assert formats.with_interval(0.5, [0.41, 0.6]) == ".50 [.41, .60]"
    assert formats.span([0.75, 0.61]) == ".61–.75" and formats.span([0.61, 0.612]) == ".61"
    assert [formats.distance(v) for v in (1.234, 123.4, 12345.6)] == ["1.23", "123", "12,346"]
