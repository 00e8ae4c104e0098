"""The folder of a study: whose it is, which files in it are ours, and what may be removed."""

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
    """A study's folder, claimed by a manifest that names the study and lists every artefact.

    Any number of processes may have the same folder open: the manifest is read and written again
    under a lock.

    Args:
        path: of the folder; need not exist.
        study: name of the study.
        identity: hash that the folder belongs to.
        conditions: hash of all that the cells of the study share, "" if it shall not grow.
        cells: hash of each cell by name.
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
        """Makes the folder ours.

        A folder of the same study with fewer cells becomes this one's: what is in it is kept.

        Args:
            overwrite: where another config's manifest is found, removes what it lists. A folder
                of this very config is kept, so that the same command resumes.

        Raises:
            InputError: it belongs to another config, holds foreign files, or is not writable.
        """
        self._check_ours(self._read_manifest(), overwrite)  # before anything is written there
        self._check_writable()
        with self._lock() as lock:
            manifest = self._read_manifest()
            self._check_ours(manifest, overwrite)
            self._artefacts = set(manifest["artefacts"]) if manifest else set()
            if manifest is None or not self._continues(manifest):
                self._remove_artefacts()
            self._write_manifest(manifest, lock)

    def own(self, name: str) -> Path:
        """Lists an artefact (file or folder, relative name) in the manifest; gives its path.

        Raises:
            InputError: the folder went over to another config meanwhile.
        """
        if not is_muted() and name not in self._artefacts:
            with self._lock() as lock:
                manifest = self._read_manifest()
                if manifest is None or not self._within(manifest):
                    raise self._gone_over(manifest)
                self._artefacts = {*manifest["artefacts"], name}
                self._write_manifest(manifest, lock, keep_identity=True)
        return self.path / name

    def is_current(self) -> bool:
        """Whether the folder is still this very study's: it may have gained cells since."""
        manifest = self._read_manifest()
        return manifest is not None and manifest["identity"] == self._identity

    def _gone_over(self, manifest: dict | None) -> InputError:
        whose = "nobody" if manifest is None else f"{manifest['study']!r} {manifest['identity']}"
        said = f"the folder that this command began in; it went over to {whose} meanwhile"
        return InputError("workdir", str(self.path), said)

    def _check_ours(self, manifest: dict | None, overwrite: bool) -> None:
        if manifest is None and self._holds_foreign_files():
            raise InputError("workdir", str(self.path), "an empty or new folder, or one of a study")
        if manifest is not None and not self._continues(manifest) and not overwrite:
            raise InputError(
                "workdir",
                str(self.path),
                f"it belongs to another config ({manifest['study']!r}, {manifest['identity']}): "
                "choose another --workdir, or --overwrite to remove that study's artefacts",
            )

    def _continues(self, manifest: dict) -> bool:
        """Whether the folder is this study's, or that of the same study with fewer cells."""
        same = bool(self._conditions) and manifest.get("conditions") == self._conditions
        grown = same and manifest.get("cells", {}).items() <= self._cells.items()
        return manifest["identity"] == self._identity or grown

    def _within(self, manifest: dict) -> bool:
        """Whether the folder is this study's, or that of the same study with more cells."""
        same = bool(self._conditions) and manifest.get("conditions") == self._conditions
        inside = same and self._cells.items() <= manifest.get("cells", {}).items()
        return manifest["identity"] == self._identity or inside

    @contextlib.contextmanager
    def _lock(self) -> Iterator[Claim]:
        with locked(self.path / f"{BESIDE}lock") as lock:
            yield lock

    def _read_manifest(self) -> dict | None:
        try:
            manifest = json.loads((self.path / MANIFEST).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise InputError("workdir", str(self.path), f"its {MANIFEST} is unreadable") from error
        if isinstance(manifest, dict) and manifest.keys() >= {"study", "identity", "artefacts"}:
            return manifest
        raise InputError("workdir", str(self.path), f"its {MANIFEST} is not one of a study")

    def _holds_foreign_files(self) -> bool:
        """Whether there is anything but what workers leave before their first manifest is there."""
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
            raise InputError("workdir", str(self.path), f"a writable folder ({reason})") from error

    def _write_manifest(
        self, old: dict | None, lock: Claim, *, keep_identity: bool = False
    ) -> None:
        """Writes the manifest if it changes, as long as the lock is held."""
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


def _remove_empty_parents(folder: Path, root: Path) -> None:
    while folder.resolve() != root and folder.is_dir() and not os.listdir(folder):
        folder.rmdir()
        folder = folder.parent
