"""The folder of a study: which study it belongs to, and which files in it may be removed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from reprojax.errors import InputError
from reprojax.runtime.claims import Claim, locked
from reprojax.runtime.files import is_muted, write_json

MANIFEST = "manifest.json"
BESIDE = f".{MANIFEST}."  # how its temporary files and its lock are named


class Workdir:
    """The folder of a study, with a manifest that names the study and lists every artefact.

    Any number of processes may have the same folder open: the manifest is read and written under a
    lock.

    Args:
        path: The path of the folder, which need not exist.
        study: The name of the study.
        identity: The hash of the study.
        conditions: The hash of all that the cells of the study share, or "" for a study that must
            not gain cells in this folder.
        cells: The content hash of every cell, by cell name.
    """

    def __init__(
        self,
        path: str | Path,
        study: str,
        identity: str,
        conditions: str = "",
        cells: Mapping[str, str] | None = None,
    ):
        self.path = Path(path)
        self._study, self._identity = study, identity
        self._conditions, self._cells = conditions, dict(cells or {})
        self._artefacts: set[str] = set()

    def claim(self, overwrite: bool = False) -> None:
        """Takes the folder for this study.

        A folder of the same study with fewer cells is taken too, and what is in it is kept.

        Args:
            overwrite: Whether to remove what another config's manifest lists. A folder of this
                config is always kept, so that the same command resumes.

        Raises:
            InputError: The folder belongs to another config, holds other files, or is not writable.
        """
        self._check_ours(self.read_manifest(), overwrite)  # before anything is written there
        self._check_writable()
        with self._lock() as lock:
            manifest = self.read_manifest()
            self._check_ours(manifest, overwrite)
            self._artefacts = set(manifest["artefacts"]) if manifest else set()
            if manifest is None or not self._continues(manifest):
                lock.require()
                self._remove_artefacts()
            self._write_manifest(manifest, lock)

    def own(self, name: str) -> Path:
        """Lists an artefact (a file or folder, by its relative name) and returns its path.

        Raises:
            InputError: The folder belongs to another config by now.
        """
        if not is_muted() and name not in self._artefacts:
            with self._lock() as lock:
                manifest = self.read_manifest()
                if manifest is None or not self._within(manifest):
                    raise self._taken(manifest)
                self._artefacts = {*manifest["artefacts"], name}
                self._write_manifest(manifest, lock, keep_identity=True)
        return self.path / name

    def is_current(self) -> bool:
        """Returns True if the folder is still that of this study, without further cells."""
        manifest = self.read_manifest()
        return manifest is not None and manifest["identity"] == self._identity

    def _taken(self, manifest: dict | None) -> InputError:
        if manifest is None:
            requirement = "lost its manifest while this command ran; start the command again"
        else:
            owner = f"{manifest['study']!r}, {manifest['identity']}"
            requirement = (
                f"was taken by another config ({owner}) while this command ran; choose another "
                "--workdir"
            )
        return InputError("workdir", str(self.path), requirement)

    def _check_ours(self, manifest: dict | None, overwrite: bool) -> None:
        if manifest is None and self._holds_foreign_files():
            requirement = (
                "holds files of something else; give a new or empty folder, or that of a study"
            )
            raise InputError("workdir", str(self.path), requirement)
        if manifest is not None and not self._continues(manifest) and not overwrite:
            raise InputError(
                "workdir",
                str(self.path),
                f"belongs to another config ({manifest['study']!r}, {manifest['identity']}); "
                "choose another --workdir, or --overwrite to remove what that study wrote there",
            )

    def _continues(self, manifest: dict) -> bool:
        """Returns True for this study, or for the same study with fewer cells."""
        same = bool(self._conditions) and manifest.get("conditions") == self._conditions
        grown = same and manifest.get("cells", {}).items() <= self._cells.items()
        return manifest["identity"] == self._identity or grown

    def _within(self, manifest: dict) -> bool:
        """Returns True for this study, or for the same study with more cells."""
        same = bool(self._conditions) and manifest.get("conditions") == self._conditions
        inside = same and self._cells.items() <= manifest.get("cells", {}).items()
        return manifest["identity"] == self._identity or inside

    @contextlib.contextmanager
    def _lock(self) -> Iterator[Claim]:
        with locked(self.path / f"{BESIDE}lock") as lock:
            yield lock

    def read_manifest(self) -> dict | None:
        """Returns the manifest of the folder, or None; raises InputError if it is unreadable."""
        try:
            manifest = json.loads((self.path / MANIFEST).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            requirement = f"has a {MANIFEST} that cannot be read; delete it, or choose another"
            raise InputError("workdir", str(self.path), requirement) from error
        if isinstance(manifest, dict) and manifest.keys() >= {"study", "identity", "artefacts"}:
            return manifest
        requirement = f"has a {MANIFEST} that is not that of a study; choose another folder"
        raise InputError("workdir", str(self.path), requirement)

    def _holds_foreign_files(self) -> bool:
        """Returns True if the folder holds files that do not belong to a study.

        Files that a worker writes before the manifest exists do not count.
        """
        if not self.path.is_dir():
            return False
        foreign = [p for p in self.path.iterdir() if not p.name.startswith(BESIDE)]
        # What a worker wrote between our look at the manifest and this one is no foreign file.
        return bool(foreign) and not (self.path / MANIFEST).exists()

    def _check_writable(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path, prefix=BESIDE):
                pass
        except OSError as error:
            reason = error.strerror or "no reason given"
            requirement = f"must be a folder that can be written to ({reason})"
            raise InputError("workdir", str(self.path), requirement) from error

    def _write_manifest(
        self, old: dict | None, lock: Claim, *, keep_identity: bool = False
    ) -> None:
        """Writes the manifest where it changes, as long as the lock is held."""
        new = {"study": self._study, "identity": self._identity}
        if self._conditions:
            new |= {"conditions": self._conditions, "cells": self._cells}
        if keep_identity:  # of a study that grew since, where it is another
            new = {k: v for k, v in old.items() if k != "artefacts"}
        new["artefacts"] = sorted(self._artefacts)
        if new != old:
            lock.require()
            write_json(self.path / MANIFEST, new)

    def _remove_artefacts(self) -> None:
        root = self.path.resolve()
        for name in sorted(self._artefacts, reverse=True):
            target = self.path / name
            if root not in target.resolve().parents:
                continue  # a manifest that points outside its folder is not obeyed
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
            _remove_empty_parents(target.parent, root)
        self._artefacts = set()


def owner(path: str | Path) -> str | None:
    """Returns the name of the study that a folder belongs to, or None where it has no manifest.

    Raises:
        InputError: The manifest cannot be read.
    """
    manifest = Workdir(path, "", "").read_manifest()
    return None if manifest is None else manifest["study"]


def _remove_empty_parents(folder: Path, root: Path) -> None:
    while folder.resolve() != root and folder.is_dir() and not os.listdir(folder):
        folder.rmdir()
        folder = folder.parent
