"""Checks that a network in a file is one that our networks can express."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reprojax.errors import InputError

IN = "--in"  # the option that names the file to convert


def printable(text: str) -> str:
    """Escapes the control characters in text from a file, which a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def file_error(path: str | Path, requirement: str, field: str = IN) -> InputError:
    """Returns the InputError for a file that cannot be used; the caller raises it."""
    return InputError(field, str(path), printable(requirement))


def require_value(path: Path, name: str, value: Any, choices: tuple) -> None:
    """Raises InputError unless a value that a file states is one of ``choices``.

    Types must be the same, except that integers and floats are compared as numbers, to within the
    rounding of float32.
    """
    if not any(_equal(value, choice) for choice in choices):
        values = " or ".join(map(repr, choices))
        raise file_error(path, f"must hold a network with {name} {values}, not {value!r}")


def require_axes(
    path: Path, tensors: Mapping[str, np.ndarray], name: str, ndim: int, *, what: str
) -> tuple[int, ...]:
    """Returns the shape of a tensor.

    Raises:
        InputError: There is no tensor of this name, or it does not have ``ndim`` axes.
    """
    if name not in tensors or tensors[name].ndim != ndim:
        raise file_error(path, f"must be {what}, which has a tensor {name} of {ndim} axes")
    return tensors[name].shape


def _equal(value: Any, choice: Any) -> bool:
    if type(choice) in (int, float):
        return type(value) in (int, float) and math.isclose(value, choice, rel_tol=1e-6)
    return type(value) is type(choice) and value == choice
