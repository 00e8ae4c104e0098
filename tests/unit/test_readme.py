"""What README and CONTRIBUTING name is there, and the citation is of this version."""

from __future__ import annotations

import re

import pytest

import reprojax

MARKED_BLOCK = re.compile(
    r"^<!-- command: (?P<name>[\w-]+) -->\n```bash\n(?P<code>.*?)^```$", re.M | re.S
)
LOCAL_LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)|<img[^>]*\ssrc=[\"'](?!\w+:)([^\"']+)")


@pytest.fixture(scope="module")
def readme(repo_root) -> str:
    return (repo_root / "README.md").read_text("utf-8")


def test_exactly_two_marked_commands(readme):
    blocks = {match["name"]: match["code"].strip() for match in MARKED_BLOCK.finditer(readme)}
    assert sorted(blocks) == ["quickstart", "test"]
    # A marker without its fence, a second block of one name or an unmarked one would be missed.
    assert readme.count("<!-- command:") == 2
    assert len(re.findall(r"^```bash$", readme, re.M)) == 2
    assert all(blocks.values())
    assert "python -m pytest" in blocks["test"]


def test_it_stays_short(readme):
    assert len(readme.splitlines()) <= 120


def test_every_named_config_exists(readme, repo_root):
    names = set(re.findall(r"\bconfigs/[\w./-]*?\.py\b", readme))
    assert names, "README names no config"
    missing = sorted(name for name in names if not (repo_root / name).is_file())
    assert not missing


def test_every_image_and_local_link_exists(readme, repo_root):
    targets = {first or second for first, second in LOCAL_LINK.findall(readme)}
    missing = sorted(target for target in targets if not (repo_root / target).exists())
    assert not missing


def test_every_path_that_contributing_names_exists(repo_root):
    contributing = (repo_root / "CONTRIBUTING.md").read_text("utf-8")
    names = set(re.findall(r"`((?:reprojax|tests|configs)/[\w./-]*)`", contributing))
    assert names
    missing = sorted(name for name in names if not (repo_root / name).exists())
    assert not missing


def test_local_links_are_found():
    text = '![a](results/x/a.png) [b](LICENSE#top) <img width="9" src="c.png"> [d](https://e.org/f)'
    assert ["".join(pair) for pair in LOCAL_LINK.findall(text)] == [
        "results/x/a.png",
        "LICENSE",
        "c.png",
    ]


def test_citation_states_this_version(repo_root):
    citation = (repo_root / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {reprojax.__version__}\n" in citation
