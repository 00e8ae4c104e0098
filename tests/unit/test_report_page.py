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
from matplotlib.image import imread
from rich.console import Console
from sklearn.datasets import load_digits

from reprojax.report.formats import (
    format_bound,
    format_distance,
    format_share,
    format_span,
    format_value,
)
from reprojax.report.inputs import ReportInputs
from reprojax.report.tables import print_scores
from reprojax.report.write import write_report

pytestmark = pytest.mark.filterwarnings("error")  # matplotlib warns where a layout failed

CELLS = {
    "empirical_optimum": {"kind": "closed_form", "family": "empirical"},
    "gaussian": {"kind": "closed_form", "family": "gaussian"},
    "unet32_vp_s0": {
        "kind": "network",
        "family": "unet",
        "width": 32,
        "seed": 0,
        "params": 612_000,
    },
    "unet32_vp_s1": {
        "kind": "network",
        "family": "unet",
        "width": 32,
        "seed": 1,
        "params": 612_000,
    },
    "uvit64_vp_s0": {
        "kind": "network",
        "family": "uvit",
        "width": 64,
        "seed": 0,
        "params": 1_300_000,
    },
    "uvit96_vp_s0": {"kind": "network", "family": "uvit", "width": 96, "seed": 0},
}
FIGURES = {"samples", "rp_heatmap", "rp_bars", "gl", "loss"}


def interval(value):
    return [max(0.0, value - 0.03), min(1.0, value + 0.03)]


def make_scores(cells=CELLS, closed_rp=0.31):
    shared = {"hash": "0" * 12, "n_train": 1000, "subset": "first", "solver": "heun", "nfe": 35}
    cells = {n: {**shared, "kernel": "vp", "seed": 0, **c} for n, c in cells.items()}
    pairs, models = [], []
    for k, (a, b) in enumerate(combinations(cells, 2)):
        closed = "closed_form" in (cells[a]["kind"], cells[b]["kind"])
        rp = closed_rp + 0.005 * k if closed else min(0.97, 0.61 + 0.01 * k)
        for score, value, chance in (("rp", rp, 0.004), ("mae", rp - 0.1, 0.02)):
            record = {"a": a, "b": b, "descriptor": "pixels", "threshold": 0.83, "score": score}
            if score == "mae":
                record |= {"threshold": 15.0}
            pairs.append(
                record | {"value": value, "ci95": interval(value), "chance": chance, "n": 500}
            )
    for k, name in enumerate(cells):
        for score, value, reference in (
            ("gl", 0.93 + 0.01 * (k % 4), 0.95),
            ("memorized", 0.01 * (k % 2), None),
            ("frechet", 1.3 + 0.4 * k, 0.62),
        ):
            record = {
                "name": name,
                "score": score,
                "descriptor": "pixels",
                "n": 500,
                "n_train": 1000,
            }
            threshold = {"gl": 0.91, "memorized": 1 / 3}.get(score)
            ci = interval(value) if score != "frechet" else [value * 0.9, value * 1.1]
            record |= {"threshold": threshold, "value": value, "ci95": ci, "reference": reference}
            models.append(record)
    noise = {"fingerprint": "c0ffee0123456789", "n": 500}
    return {"schema": 1, "noise": noise, "cells": cells, "pairs": pairs, "models": models}


def make_inputs(cells=CELLS, **changes):
    digits = (load_digits().images * 15.9).astype(np.uint8)[..., None]
    rng = np.random.default_rng(0)
    samples = {}
    for name in cells:
        noisy = digits[:64] + rng.normal(0, 25, (64, 8, 8, 1))
        samples[name] = noisy.clip(0, 255).astype(np.uint8)
    metrics = {
        name: training_rows(rng) for name, cell in cells.items() if cell["kind"] == "network"
    }
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
        "c0ffee0123456789",
        "configs/digits.py:lab",
        "3 min 12 s",
        "two seeds of one model (ceiling)",
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
    scores = {"schema": 1, "noise": None, "cells": {}, "pairs": [], "models": []}
    written, _, page = page_of(ReportInputs("Empty", "", scores), tmp_path)
    assert written == [Path("report/index.html")]
    assert "No fingerprint" in page.text and "Thresholds used" not in page.text


def test_outside_samples_without_study_facts_or_references(tmp_path):
    cells = {"mine": {"kind": "external", "family": None}, "theirs": {"kind": "external"}}
    scores = make_scores(cells)
    scores |= {"cells": cells, "noise": None, "models": []}
    written, _, page = page_of(ReportInputs("Mine", "score", scores), tmp_path)
    assert {p.stem for p in written} == {"rp_heatmap", "rp_bars", "index"}
    assert "2 sample sets" in page.text


def test_evaluation_without_heldout_images(tmp_path):
    rows = [{"step": 5, "sigma": [0.1, 1.0], "loss_train": [0.1, 0.2], "loss_heldout": None}]
    written, _, _ = page_of(make_inputs(metrics={"unet32_vp_s0": rows}), tmp_path)
    assert Path("figures/loss.png") in written


def test_many_models_long_names_and_colour_images(tmp_path):
    cells = {
        f"a_rather_long_model_name_{i:02d}": {"kind": "network", "family": "unet", "width": i}
        for i in range(18)
    }
    rng = np.random.default_rng(1)
    samples = {name: rng.integers(0, 256, (3, 40, 24, 3), np.uint8) for name in cells}
    inputs = make_inputs(cells, samples=samples, nearest={}, metrics={})
    written, _, page = page_of(inputs, tmp_path)
    assert {p.stem for p in written} == {"samples", "rp_heatmap", "rp_bars", "gl", "index"}
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
    assert {value: format_share(value) for value in shares} == shares
    assert [format_bound(v) for v in (0.0, 0.0042, 0.004, 0.0124, 1.0)] == [
        ".00",
        ".005",
        ".004",
        ".02",
        "1.00",
    ]
    assert format_share(0.99999) == ">.999" and format_share(float("nan")) == "–"
    assert format_value(0.5, [0.41, 0.6]) == ".50 [.41, .60]"
    assert format_span([0.75, 0.61]) == ".61–.75" and format_span([0.61, 0.612]) == ".61"
    assert [format_distance(v) for v in (1.234, 123.4, 12345.6)] == ["1.23", "123", "12,346"]
