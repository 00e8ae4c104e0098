"""The documents' links lead somewhere, and the documents name what the repository has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "results").glob("*.md"),
    *(ROOT / "results").glob("*/README.md"),
]
LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]+))?\)")
CODE_BLOCK = re.compile(r"^```.*?^```$", re.M | re.S)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a Markdown text."""
    headings = re.findall(r"^#+ (.+)$", CODE_BLOCK.sub("", text), re.M)
    kept = (re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", h).lower()) for h in headings)
    return {h.strip().replace(" ", "-") for h in kept}


def broken_links(path: Path) -> list[str]:
    """The local links of a document whose file or heading does not exist."""
    broken = []
    for target, anchor in LINK.findall(path.read_text("utf-8")):
        file = path.parent / target if target else path
        if not file.exists():
            broken.append(target)
        elif anchor and anchor not in anchors(file.read_text("utf-8")):
            broken.append(f"{target}#{anchor}")
    return broken


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_local_link_leads_somewhere(path):
    assert not broken_links(path)


def test_broken_links_are_noticed(tmp_path):
    (tmp_path / "b.md").write_text("# Two: words, and `code`\n```\n# not a heading\n```\n")
    links = "[1](b.md) [2](b.md#two-words-and-code) [3](#a) [4](https://e.org/x#y) ![5](b.md)"
    broken = "[6](c.md) [7](b.md#not-a-heading) [8](#b) ![9](c.png)"
    page = tmp_path / "a.md"
    page.write_text(f"# A\n{links}\n{broken}\n")
    assert broken_links(page) == ["c.md", "b.md#not-a-heading", "#b", "c.png"]


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages and all(f"({page})" in index for page in pages)


def test_every_config_is_among_the_experiments_and_nothing_else():
    text = "".join(path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md"))
    experiments = (ROOT / "docs" / "experiments.md").read_text("utf-8")
    configs = {f"configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert configs == set(re.findall(r"configs/\w+\.py", experiments))
    assert set(re.findall(r"configs/\w+\.py", text)) <= configs


def test_every_folder_of_results_is_in_their_index():
    index = (ROOT / "results" / "README.md").read_text("utf-8")
    folders = [path.name for path in (ROOT / "results").iterdir() if path.is_dir()]
    assert folders and all(f"({name}/README.md)" in index for name in folders)


def test_flags_of_main_are_documented():
    main = (ROOT / "reprojax" / "main.py").read_text("utf-8")
    flags = set(re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', main))
    table = (ROOT / "docs" / "running.md").read_text("utf-8")
    documented = set(re.findall(r"`--(\w+)", table))
    assert flags and flags <= documented
    assert documented <= flags | {"config"}
    machines = (ROOT / "docs" / "many-machines.md").read_text("utf-8")
    commands = re.findall(r"-m reprojax\.main ([^`]+)`", machines)
    assert commands
    assert {f for c in commands for f in re.findall(r"--(\w+)", c)} <= flags | {"config"}


@pytest.mark.parametrize("name", ["grid", "kernels", "theory"])
def test_weights_that_are_not_kept_are_listed_with_their_hash(name):
    folder = ROOT / "results" / name
    text = (folder / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\S+\.safetensors)` \| (\d+) \| `([0-9a-f]{64})` \|$", text, re.M)
    assert rows and len({name for name, _, _ in rows}) == len(rows)
    assert re.search(r"`[0-9a-f]{40}`", text), "no commit is named"
    assert not (folder / "weights").exists()
