"""The metrics file of a run: one JSON object a line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from reprojax.runtime.files import is_muted, write_bytes


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a metrics file; a torn last line (of a killed run) is left out."""
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


class MetricsFile:
    """Appends rows; opened at a resumed step it first drops the rows that lie after it.

    Args:
        path: of the file.
        resume_step: the step that the run goes on from.
    """

    def __init__(self, path: Path, resume_step: int):
        if is_muted():
            path = Path(os.devnull)
        kept = [row for row in read_metrics(path) if row["step"] <= resume_step]
        write_bytes(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._file = open(path, "a", buffering=1)  # noqa: SIM115

    def write(self, **row: Any) -> None:
        """Adds a row."""
        self._file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
