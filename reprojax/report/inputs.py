"""What a report is made of: plain data, so that any study or scorer can fill it in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ReportInputs:
    """Everything that a report shows; a part left empty is left out of the page.

    Attributes:
        title: heading of the page.
        command: the command line that makes these results again.
        scores: the content of ``scores.json``.
        samples: per model uint8 `[n, h, w, c]`, row i from noise i in each; some 64 rows do.
        nearest: per model uint8 `[n, h, w, c]`, the training image nearest to each sample.
        metrics: per trained cell the rows of its ``metrics.jsonl``: training rows (``step``,
            ``images``, ``loss``, ...) and evaluation rows (``step`` with the lists ``sigma``,
            ``loss_train`` and ``loss_heldout``, the last of which may be None).
        facts: lines about environment and timing, shown as a table.
        analyses: results of further studies by name, each as stored in its JSON file and drawn
            by the figure of that subject: ``solvers``, ``encoding``, ``jacobian``, ``local``,
            ``ceiling``, ``shared_solver``, ``grid``, ``along_training``. Names that no figure or
            table knows are left out.
    """

    title: str
    command: str
    scores: dict[str, Any]
    samples: Mapping[str, np.ndarray] = field(default_factory=dict)
    nearest: Mapping[str, np.ndarray] = field(default_factory=dict)
    metrics: Mapping[str, list[dict]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    analyses: Mapping[str, dict] = field(default_factory=dict)
