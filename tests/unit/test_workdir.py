"""A study's folder: claims, manifest, and what may be removed."""

import json
import os
import subprocess
import sys

import pytest

from reprojax.errors import InputError
from reprojax.runtime.files import replacing, write_bytes
from reprojax.runtime.workdir import MANIFEST, Workdir


def claim(path, identity="a", **options):
    workdir = Workdir(path, "study", identity)
    workdir.claim(**options)
    return workdir


def test_a_claim_is_kept_and_another_config_is_refused(tmp_path):
    write_bytes(claim(tmp_path / "w").own("cells/x/y.npz"), b"1")
    claim(tmp_path / "w")
    with pytest.raises(InputError, match=r"another config.*--overwrite"):
        claim(tmp_path / "w", "b")
    assert (tmp_path / "w" / "cells/x/y.npz").exists()


def test_overwrite_removes_what_is_listed_and_nothing_else(tmp_path):
    workdir = claim(tmp_path / "w")
    write_bytes(workdir.own("cells/x/y.npz"), b"1")
    (workdir.own("cells/x/checkpoints") / "5").mkdir(parents=True)
    (tmp_path / "w" / "cells" / "mine.txt").write_text("keep")
    claim(tmp_path / "w", "b", overwrite=True)
    left = {p.relative_to(tmp_path / "w").as_posix() for p in (tmp_path / "w").rglob("*")}
    assert left == {MANIFEST, "cells", "cells/mine.txt"}


def test_overwrite_keeps_a_folder_of_the_same_config(tmp_path):
    """An interrupted run says that the same command resumes, with --overwrite too."""
    write_bytes(claim(tmp_path / "w").own("cells/x/y.npz"), b"1")
    claim(tmp_path / "w", overwrite=True)
    assert (tmp_path / "w" / "cells/x/y.npz").exists()


def test_a_manifest_that_points_outside_is_not_obeyed(tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("keep")
    claim(tmp_path / "w")
    manifest = json.loads((tmp_path / "w" / MANIFEST).read_text())
    manifest["artefacts"] = ["../precious.txt", str(precious), "."]
    (tmp_path / "w" / MANIFEST).write_text(json.dumps(manifest))
    claim(tmp_path / "w", "b", overwrite=True)
    assert precious.read_text() == "keep" and (tmp_path / "w").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"study": 1}'])
def test_a_broken_manifest_is_named(tmp_path, text):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / MANIFEST).write_text(text)
    with pytest.raises(InputError, match="workdir"):
        claim(tmp_path / "w")


def test_a_folder_killed_at_its_first_write_can_be_claimed(tmp_path):
    (tmp_path / f".{MANIFEST}.17.tmp").write_text("{")
    claim(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("foreign")
    with pytest.raises(InputError, match="new or empty folder"):
        claim(tmp_path / "other")


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "x.json"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


CROWD = """
import sys
from reprojax.runtime.workdir import Workdir
path, me = sys.argv[1:]
workdir = Workdir(path, "study", "a", "conditions", {"x": "1"})
workdir.claim()
for i in range(10):
    workdir.own(f"cells/{me}-{i}")
"""


def test_many_processes_at_once_lose_no_entry(tmp_path, repo_root):
    """They claim a fresh folder together, and then list artefacts at the same time."""
    env = os.environ | {"PYTHONPATH": str(repo_root)}
    folder = tmp_path / "w"
    crowd = [
        subprocess.Popen([sys.executable, "-c", CROWD, folder, str(me)], env=env) for me in range(3)
    ]
    assert [process.wait() for process in crowd] == [0] * 3
    manifest = json.loads((folder / MANIFEST).read_text())
    assert set(manifest["artefacts"]) == {f"cells/{me}-{i}" for me in range(3) for i in range(10)}
    assert [p.name for p in folder.iterdir()] == [MANIFEST]  # no lock or temporary file is left


def grown(path, identity, cells, conditions="c", **options):
    workdir = Workdir(path, "study", identity, conditions, cells)
    workdir.claim(**options)
    return workdir


def test_a_study_that_gains_cells_goes_on_in_its_folder(tmp_path):
    old = grown(tmp_path / "w", "a", {"x": "1"})
    write_bytes(old.own("cells/x"), b"1")
    new = grown(tmp_path / "w", "b", {"x": "1", "y": "2"})
    assert (tmp_path / "w" / "cells/x").exists()
    old.own("cells/x2")  # a worker of the former set may finish its cells, but not score them
    new.own("cells/y")
    manifest = json.loads((tmp_path / "w" / MANIFEST).read_text())
    assert manifest["identity"] == "b" and manifest["cells"] == {"x": "1", "y": "2"}
    assert manifest["artefacts"] == ["cells/x", "cells/x2", "cells/y"]
    assert new.is_current() and not old.is_current()


@pytest.mark.parametrize(
    "other",
    [
        dict(cells={"x": "1"}, conditions="d"),  # another noise, say
        dict(cells={"x": "9", "y": "2"}),  # a cell changed
        dict(cells={"y": "2"}),  # a cell is gone
        dict(cells={"x": "1", "y": "2"}, conditions=""),
    ],
)
def test_other_changes_make_another_study(tmp_path, other):
    old = grown(tmp_path / "w", "a", {"x": "1"})
    write_bytes(old.own("cells/x"), b"1")
    with pytest.raises(InputError, match="another config"):
        grown(tmp_path / "w", "b", **other)
    grown(tmp_path / "w", "b", **other, overwrite=True)
    assert not (tmp_path / "w" / "cells/x").exists()
    with pytest.raises(InputError, match=r"was taken by another config .'study', b"):
        old.own("cells/z")


def test_a_manifest_of_before_studies_could_grow_is_kept_and_completed(tmp_path):
    write_bytes(claim(tmp_path / "w").own("cells/x"), b"1")
    manifest = json.loads((tmp_path / "w" / MANIFEST).read_text())
    assert "conditions" not in manifest
    with pytest.raises(InputError, match="another config"):
        grown(tmp_path / "w", "b", {"x": "1"})
    grown(tmp_path / "w", "a", {"x": "1"})
    assert json.loads((tmp_path / "w" / MANIFEST).read_text())["conditions"] == "c"
    assert (tmp_path / "w" / "cells/x").exists()
