"""Choosing the thresholds of a study, and writing down what they rest on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from reprojax.errors import require_number
from reprojax.scoring.descriptors import descriptor_identity
from reprojax.scoring.scores import GIVEN_FEATURES
from reprojax.scoring.sets import RealSet
from reprojax.scoring.thresholds import (
    GL_TARGET,
    MAX_IMAGES,
    PAPER_TAU,
    RP_RATE,
    calibrate_gl,
    calibrate_rp,
)


@dataclass(frozen=True)
class ScoringSpec:
    """How samples are scored.

    Attributes:
        descriptor: A key of the descriptors.
        rp_rate: The share of random pairs of training images that exceed the RP threshold.
        gl_target: The GL that held-out images have at the GL threshold.
        threshold: A threshold of the cosine in place of calibrated ones, or None.
    """

    descriptor: str = "pixels"
    rp_rate: float = RP_RATE
    gl_target: float = GL_TARGET
    threshold: float | None = None

    def __post_init__(self):
        for name in ("rp_rate", "gl_target"):
            require_number(f"scoring.{name}", getattr(self, name), above=0, below=1)

    def identity(self) -> dict[str, Any]:
        """Returns the fields in use, and of a descriptor's file the content."""
        fields = asdict(self) | {"descriptor": descriptor_identity(self.descriptor)}
        return {k: v for k, v in fields.items() if k != "threshold" or v is not None}


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of a study in its descriptor.

    Attributes:
        rp: The cosine above which two samples count as the same image.
        gl: The cosine above which a sample counts as near a training image.
        rp_point: How the first came about: "alike", "paper" or "given".
        gl_point: How the second came about: "copy", "paper" or "given".
        calibration: What they rest on, by score, as ``scores.json`` records it.
    """

    rp: float
    gl: float
    rp_point: str = "alike"
    gl_point: str = "copy"
    calibration: dict[str, Any] = field(default_factory=dict)


def choose_thresholds(
    train: RealSet | None,
    heldout: RealSet | None,
    *,
    descriptor: str,
    published: float | None = None,
    given: float | None = None,
    samples: tuple[str, RealSet] | None = None,
    rp_rate: float = RP_RATE,
    gl_target: float = GL_TARGET,
) -> Thresholds:
    """Returns the thresholds: those that are given or published, else calibrated ones.

    Args:
        train: The study's largest training set with its features, or None.
        heldout: The held-out images with theirs, or None.
        descriptor: The name of the descriptor.
        published: The descriptor's own threshold, or None.
        given: The user's threshold, or None.
        samples: The name and the samples of one model, on which RP is calibrated where there are
            no training images.
        rp_rate: The share of random pairs of real images that pass the RP threshold.
        gl_target: The GL of held-out images at the GL threshold.

    Raises:
        InputError: There are too few images to calibrate on.
    """
    if given is not None or published is not None or descriptor == GIVEN_FEATURES:
        point = "paper" if given is None else "given"
        tau = round(next(t for t in (given, published, PAPER_TAU) if t is not None), 6)
        row = {"source": point, "threshold": tau}
        return Thresholds(tau, tau, point, point, {"rp": row, "gl": row if train else None})
    source, base = ("training images", train) if train else samples
    tau = calibrate_rp(base.features, rp_rate)
    n = min(base.n, MAX_IMAGES)
    rp_row = {"source": source, "n": n, "rate": rp_rate, "threshold": tau}
    if train is None:
        return Thresholds(tau, tau, calibration={"rp": rp_row, "gl": None})
    tau_gl = calibrate_gl(heldout.features if heldout else None, train.features, gl_target)
    if heldout:
        gl_row = {"source": "held-out images", "n": heldout.n}
    else:
        source = "training images, each against the others"
        gl_row = {"source": source, "n": min(train.n, MAX_IMAGES)}
    gl_row |= {"target": gl_target, "threshold": tau_gl}
    return Thresholds(tau, tau_gl, calibration={"rp": rp_row, "gl": gl_row})
