"""The content of ``scores.json``: typed rows, their way to JSON and back, and look-ups."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from reprojax.errors import InputError

FILE = "scores.json"
SCHEMA = 2
DECIMALS = 6  # of every number: the same file from the same samples
GIVEN_FEATURES = "features"  # the descriptor's name where features came with the samples

Row = TypeVar("Row")


@dataclass(frozen=True)
class CellRow:
    """What a model is.

    Attributes:
        hash: The identity of the model and its training, or of the given samples.
        kind: "network", "flow_map", "closed_form", "contrast" or "external".
        family: A network family, the name of a closed form or of a contrast family, or "external".
        width: The width of the network, 0 for everything else.
        n_train: The number of training images, 0 where none are known.
        subset: The part of the data set: "all", "A" or "B"; "" where none is known.
        kernel: The perturbation kernel of a network, else "".
        seed: The seed of initialisation, batches and noise.
        solver: The solver that made the samples, "" for given samples and contrast models.
        nfe: Evaluations per sample, 0 for given samples.
        params: The number of parameters of a network or contrast model.
        preconditioning: The preconditioning of a network.
        objective: The training objective, "" for given weights.
        steps: The number of optimiser steps, 0 for given weights.
        teacher: The name of the cell that this one starts from.
        sampling: The settings of the cell's own sampler, where it has one.
        num_classes: The number of classes of a conditional network.
    """

    hash: str
    kind: str
    family: str
    width: int = 0
    n_train: int = 0
    subset: str = ""
    kernel: str = ""
    seed: int = 0
    solver: str = ""
    nfe: int = 0
    params: int | None = None
    preconditioning: str | None = None
    objective: str | None = None
    steps: int | None = None
    teacher: str | None = None
    sampling: dict[str, Any] | None = None
    num_classes: int | None = None


@dataclass(frozen=True)
class PairRow:
    """One score of two models on the same noises.

    Attributes:
        a: The name of one model.
        b: The name of the other.
        descriptor: What compared the images; "pixels" for the MAE score.
        point: How the threshold came about: "alike" (random pairs of real images pass it once in
            1,000), "paper" (.6, arXiv 2310.05264), or "given" (fixed, or chosen by the user).
        threshold: The threshold, a cosine for "rp" and grey levels of 255 for "mae".
        score: "rp" or "mae".
        value: The share of noises that pass, 0 to 1.
        ci95: The 95 % interval over noises.
        chance: The same share between samples of different noises.
        n: The number of noises.
        condition: "same" where ``chance`` compares noises of the same condition alone, else None.
    """

    a: str
    b: str
    descriptor: str
    point: str
    threshold: float
    score: str
    value: float
    ci95: tuple[float, float]
    chance: float
    n: int
    condition: str | None = None


@dataclass(frozen=True)
class ModelRow:
    """One score of a model against real images.

    Attributes:
        name: The model.
        score: "gl", "memorized" or "frechet".
        descriptor: What compared the images; "pixels" for "memorized".
        point: How the threshold came about: "copy" (held-out images pass it in 5 of 100), "paper",
            "given", or None where there is none.
        threshold: The threshold, or None.
        value: The score.
        ci95: Its 95 % interval.
        reference: What real images score in place of samples, or None.
        n: The number of samples.
        n_train: The number of training images.
    """

    name: str
    score: str
    descriptor: str
    point: str | None
    threshold: float | None
    value: float
    ci95: tuple[float, float]
    reference: float | None
    n: int
    n_train: int


@dataclass(frozen=True)
class DistanceRow:
    """PFD and mean per-image r² of two models on the same noises, with 95 % intervals."""

    a: str
    b: str
    pfd: float
    pfd_ci95: tuple[float, float]
    pfd_chance: float
    r2: float
    r2_ci95: tuple[float, float]
    n: int


@dataclass(frozen=True)
class CurveRow:
    """RP and its chance at every threshold of ``Curves.taus``, ascending."""

    a: str
    b: str
    rp: tuple[float, ...]
    chance: tuple[float, ...]


@dataclass(frozen=True)
class Curves:
    """RP over the threshold for pairs of models with the same training images."""

    taus: tuple[float, ...] = ()
    rows: tuple[CurveRow, ...] = ()


@dataclass(frozen=True)
class TransportRow:
    """How near a model's pairing of noises and images is to optimal transport (see `Transport`)."""

    name: str
    cost: float
    optimal: float
    random: float
    recovered: float
    matched: float
    n: int


@dataclass(frozen=True)
class Scores:
    """All scores of a study, or of samples that were made elsewhere.

    Attributes:
        cells: The models by name, in the order of the study.
        pairs: Scores of two models.
        models: Scores of one model.
        study: ``{"name", "hash"}`` of the study.
        noise: ``{"fingerprint", "n", ...}`` of the noise bank, or None where it is not known.
        conditions: ``{"fingerprint", ...}`` of the condition bank, or None where there is none.
        data: ``{"source", "shape"}`` of the images.
        sampling: The settings of the study's sampler.
        calibration: What the thresholds rest on, by score.
        missing: Names of cells that failed and are left out.
        distances: PFD and r² of pairs.
        rp_curves: RP over the threshold.
        transport: Comparisons with optimal transport.
    """

    cells: dict[str, CellRow]
    pairs: tuple[PairRow, ...] = ()
    models: tuple[ModelRow, ...] = ()
    study: dict[str, Any] = field(default_factory=dict)
    noise: dict[str, Any] | None = None
    conditions: dict[str, Any] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    distances: tuple[DistanceRow, ...] = ()
    rp_curves: Curves = field(default_factory=Curves)
    transport: tuple[TransportRow, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns the content of ``scores.json``: plain values, numbers with six decimals."""
        optional = ("study", "conditions", "data", "sampling", "missing")
        header = {"schema": SCHEMA, "study": self.study, "noise": self.noise}
        header |= {name: getattr(self, name) for name in optional[1:]}
        header = {k: v for k, v in header.items() if v or k not in optional}
        return plain(
            {
                **header,
                "cells": {name: _row_json(row) for name, row in self.cells.items()},
                "pairs": [_row_json(row) for row in self.pairs],
                "models": [_row_json(row) for row in self.models],
                "calibration": self.calibration,
                "distances": [_row_json(row) for row in self.distances],
                "rp_curves": asdict(self.rp_curves),
                "transport": [_row_json(row) for row in self.transport],
            }
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scores:
        """Reads the content of ``scores.json`` of schema 1 or 2; keys that it lacks stay empty.

        Raises:
            InputError: The schema is another, or a row lacks a field.
        """
        if not isinstance(value, Mapping):
            raise InputError(FILE, None, "must have a JSON object")
        schema = value.get("schema")
        if schema not in (1, SCHEMA):
            raise InputError(f"{FILE}: schema", schema, f"must be 1 or {SCHEMA}")
        try:
            rows = _with_points(value) if schema == 1 else value
            curves = value.get("rp_curves") or {}
            return cls(
                cells={name: _row(CellRow, row) for name, row in value["cells"].items()},
                pairs=_rows(PairRow, rows["pairs"]),
                models=_rows(ModelRow, rows["models"]),
                noise=value.get("noise"),
                conditions=value.get("conditions"),
                missing=tuple(value.get("missing", ())),
                distances=_rows(DistanceRow, value.get("distances", ())),
                rp_curves=Curves(
                    tuple(curves.get("taus", ())), _rows(CurveRow, curves.get("rows", ()))
                ),
                transport=_rows(TransportRow, value.get("transport", ())),
                **{k: value.get(k) or {} for k in ("study", "data", "sampling", "calibration")},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(FILE, None, f"must have the rows of schema {schema} ({error})") from (
                error
            )

    @classmethod
    def read(cls, path: str | Path) -> Scores:
        """Reads a file, or the ``scores.json`` in a folder.

        Raises:
            InputError: There is none, or it cannot be read.
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        try:
            value = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InputError("scores", str(path), f"must be a readable {FILE} ({error})") from error
        return cls.from_json(value)

    def pair(self, a: str, b: str, score: str = "rp") -> PairRow | None:
        """Returns the first row of two models with a score, in either order, or None."""
        return self._pairs.get((frozenset((a, b)), score))

    def model(self, name: str, score: str) -> ModelRow | None:
        """Returns the first row of a model with a score, or None."""
        return self._models.get((name, score))

    @property
    def descriptor(self) -> str | None:
        """The main descriptor: the first in which RP or GL was scored."""
        rows = (*self.pairs, *self.models)
        return next((row.descriptor for row in rows if row.score in ("rp", "gl")), None)

    def threshold(self, score: str) -> float | None:
        """The threshold of the first row with a score, or None where it was not scored."""
        rows = (*self.pairs, *self.models)
        return next((row.threshold for row in rows if row.score == score), None)

    @cached_property
    def _pairs(self) -> dict[tuple[frozenset[str], str], PairRow]:
        return {(frozenset((r.a, r.b)), r.score): r for r in reversed(self.pairs)}

    @cached_property
    def _models(self) -> dict[tuple[str, str], ModelRow]:
        return {(row.name, row.score): row for row in reversed(self.models)}


def rounded(x: float) -> float:
    """Returns a number as ``scores.json`` has it, with six decimals."""
    return round(float(x), DECIMALS) + 0.0  # + 0.0 turns -0.0 into 0.0


def plain(value: Any) -> Any:
    """Returns the same JSON value with every float rounded and every tuple as a list."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return rounded(value) if isinstance(value, float) else value


def _row_json(row: Any) -> dict[str, Any]:
    """Returns a row as a dict; fields whose default is None are left out where they are None."""
    optional = {f.name for f in fields(row) if f.default is None}
    return {k: v for k, v in asdict(row).items() if v is not None or k not in optional}


def _rows(kind: type[Row], values: Any) -> tuple[Row, ...]:
    return tuple(_row(kind, value) for value in values)


def _row(kind: type[Row], value: Mapping[str, Any]) -> Row:
    """Makes a row from its JSON; keys that it does not know are left out."""
    names = {f.name for f in fields(kind)}
    return kind(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k in names}
    )


def _with_points(value: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of schema 1 with the operating points that it did not write down."""
    points = {"rp": "alike", "gl": "copy", "mae": "given", "memorized": "given", "frechet": None}

    def point(row: Mapping[str, Any]) -> str | None:
        basis = (value.get("calibration") or {}).get(row["score"]) or {}
        if basis.get("source") == "--threshold":
            return "given"
        features = row["descriptor"] == GIVEN_FEATURES and row["score"] in ("rp", "gl")
        return "paper" if features else points[row["score"]]

    return {
        kind: [{**row, "point": point(row)} for row in value[kind]] for kind in ("pairs", "models")
    }
