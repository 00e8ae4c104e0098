"""What a report is made of: plain data, so that any study or scorer can fill it in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from reprojax.scoring.scores import Scores

if TYPE_CHECKING:
    from reprojax.drawing.draw import Plate
    from reprojax.report.tables import Table


@dataclass(frozen=True)
class ReportInputs:
    """Everything that a report shows; a part left empty is left out of the page.

    Attributes:
        title: The heading of the page.
        command: The command line that makes these results again.
        scores: The scores of a study, or of samples that were made elsewhere.
        samples: By model uint8 `[n, h, w, c]`, row i from noise i; some 64 rows are enough.
        nearest: By model uint8 `[n, h, w, c]`, the training image nearest to each sample.
        metrics: By trained cell the rows of its ``metrics.jsonl``: training rows (``step``,
            ``images``, ``loss``, ...) and evaluation rows (``step`` with the lists ``sigma``,
            ``loss_train`` and ``loss_heldout``, the last of which may be None).
        facts: Lines about environment and timing, shown as a table.
        analyses: By name the results of each analysis, as its JSON file holds them.
    """

    title: str
    command: str
    scores: Scores
    samples: Mapping[str, np.ndarray] = field(default_factory=dict)
    nearest: Mapping[str, np.ndarray] = field(default_factory=dict)
    metrics: Mapping[str, list[dict]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    analyses: Mapping[str, dict[str, Any]] = field(default_factory=dict)


class Shows(Protocol):
    """A module that shows one analysis, such as ``reprojax.analyses.grid.show``.

    The report calls it where ``inputs.analyses`` has results under the name of the analysis.

    Attributes:
        LEADS: Whether its figures come directly after the samples, before those of all studies.
    """

    LEADS: bool

    def figures(self, inputs: ReportInputs) -> list[Plate]:
        """Draws the figures of the analysis; none where its results have nothing to draw."""

    def tables(self, inputs: ReportInputs) -> list[Table]:
        """Makes the tables of the analysis."""
