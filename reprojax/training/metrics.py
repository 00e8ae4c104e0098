"""Reads and writes the metrics file of a run, one JSON object per line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from reprojax.runtime.files import is_muted, write_bytes

METRICS = "metrics.jsonl"
PARAMETERS = "parameters.txt"  # the table of parameters, beside the metrics


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics file, without a partial last line that a killed run left."""
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


class MetricsFile:
    """A metrics file that takes more rows, without those that lie after the step of a resume.

    Args:
        path: The file.
        resume_step: The step that the run continues from. Rows of later steps are removed.
    """

    def __init__(self, path: Path, resume_step: int):
        if is_muted():
            path = Path(os.devnull)
        rows = [row for row in read_metrics(path) if row["step"] <= resume_step]
        write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        self._file = open(path, "a", buffering=1)  # noqa: SIM115

    def write(self, **row: Any) -> None:
        """Adds a row."""
        self._file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
