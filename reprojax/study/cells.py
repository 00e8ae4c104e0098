"""Cells: one model of a study with its training images, and the identity of its artefacts."""

from __future__ import annotations

from dataclasses import dataclass

from reprojax.data.subset import DataSpec
from reprojax.errors import InputError
from reprojax.models.families import Network
from reprojax.runtime.files import content_hash
from reprojax.sampling.flow import SamplerSpec
from reprojax.study.models import Model, Shape, Trained

SCHEMA = 1  # raised when the meaning of a cell's description changes


@dataclass(frozen=True)
class Cell:
    """One model of a study.

    Attributes:
        name: Its name, unique in the study.
        model: What it is.
        data: Its training images, or None where they are given otherwise or not known.
        sampler: Its own sampler in place of the study's, or None.
    """

    name: str
    model: Model
    data: DataSpec | None = None
    sampler: SamplerSpec | None = None

    @property
    def kind(self) -> str:
        """The kind of its model, as ``scores.json`` names it."""
        return self.model.kind

    def hash(self, data_fingerprint: str, teacher_hash: str = "") -> str:
        """Returns 16 hex digits over what decides the result: no name, path, device or worker.

        Args:
            data_fingerprint: The fingerprint of the training images.
            teacher_hash: The hash of its teacher's cell, or "".
        """
        identity = self.model.identity(teacher_hash)
        return content_hash({"schema": SCHEMA, "data": data_fingerprint, **identity})

    def network(self, shape: Shape, dtype: str = "float32") -> Network:
        """Returns its network for images of a shape (see `NetworkModel.module`).

        Raises:
            InputError: The network does not fit; the error names the cell.
        """
        try:
            return self.model.module(shape, dtype)
        except InputError as error:
            raise self.named(error) from error

    def named(self, error: InputError) -> InputError:
        """Returns an error in one of its fields as one that names the cell."""
        if not error.field.startswith("data."):
            return error.under(f"models.{self.name}.")
        requirement = f"{error.requirement} (models.{self.name})"
        return InputError(error.field, error.value, requirement)


def is_trained_network(cell: Cell) -> bool:
    """Returns True for a network, or flow map, that the study trains."""
    return isinstance(cell.model, Trained)
