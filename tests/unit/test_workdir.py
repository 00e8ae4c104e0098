"""A study's folder: claims, manifest, and what may be removed."""

import json

import pytest

from reprojax.errors import InputError
from reprojax.files import replacing, write_bytes
from reprojax.study.workdir import MANIFEST, Workdir


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
    with pytest.raises(InputError, match="an empty or new folder"):
        claim(tmp_path / "other")


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "x.json"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
