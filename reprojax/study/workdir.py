"""The folder of a study: whose it is, which files in it are ours, and what may be removed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from reprojax.errors import InputError
from reprojax.files import write_json

MANIFEST = "manifest.json"


class Workdir:
    """A study's folder, claimed by a manifest that names the study and lists every artefact.

    Args:
        path: of the folder; need not exist.
        study: name of the study.
        identity: hash that the folder belongs to.
    """

    def __init__(self, path: str | Path, study: str, identity: str):
        self.path = Path(path)
        self._study, self._identity = study, identity
        self._artefacts: set[str] = set()

    def claim(self, overwrite: bool = False) -> None:
        """Makes the folder ours.

        Args:
            overwrite: where another config's manifest is found, removes what it lists. A folder
                of this very config is kept, so that the same command resumes.

        Raises:
            InputError: it belongs to another config, holds foreign files, or is not writable.
        """
        manifest = self._read_manifest()
        ours = manifest is not None and manifest["identity"] == self._identity
        if manifest is None and self._holds_foreign_files():
            raise InputError("workdir", str(self.path), "an empty or new folder, or one of a study")
        if manifest is not None and not ours and not overwrite:
            raise InputError(
                "workdir",
                str(self.path),
                f"it belongs to another config ({manifest['study']!r}, {manifest['identity']}): "
                "choose another --workdir, or --overwrite to remove that study's artefacts",
            )
        self._check_writable()
        self._artefacts = set(manifest["artefacts"]) if manifest else set()
        if not ours:
            self._remove_artefacts()
        self._write_manifest()

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
        """Whether there is anything but what a run killed at its first write leaves behind."""
        return self.path.is_dir() and any(
            not p.match(f".{MANIFEST}.*.tmp") for p in self.path.iterdir()
        )

    def _check_writable(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            reason = error.strerror or "no reason given"
            raise InputError("workdir", str(self.path), f"a writable folder ({reason})") from error

    def _write_manifest(self) -> None:
        write_json(
            self.path / MANIFEST,
            {
                "study": self._study,
                "identity": self._identity,
                "artefacts": sorted(self._artefacts),
            },
        )

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

    def own(self, name: str) -> Path:
        """Lists an artefact (file or folder, relative name) in the manifest; gives its path."""
        if name not in self._artefacts:
            self._artefacts.add(name)
            self._write_manifest()
        return self.path / name


def _remove_empty_parents(folder: Path, root: Path) -> None:
    while folder.resolve() != root and folder.is_dir() and not os.listdir(folder):
        folder.rmdir()
        folder = folder.parent
