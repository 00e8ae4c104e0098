"""Whether what a file states is what our network is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reprojax.errors import InputError

IN = "--in"  # the option that names a file


def printable(text: str) -> str:
    """A file's own words without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def refuse(path: str | Path, allowed: str, field: str = IN) -> InputError:
    """The error that names the file, to be raised."""
    return InputError(field, str(path), printable(allowed))


def require_stated(path: Path, name: str, value: Any, allowed: tuple) -> None:
    """Raises InputError unless a stated value is one of ``allowed``, of the same type.

    Numbers are compared as such, to within the rounding of float32.
    """
    if not any(_equal(value, a) for a in allowed):
        said = " or ".join(map(repr, allowed))
        raise refuse(path, f"a network with {name} {said}, not {value!r}")


def require_axes(
    path: Path, tensors: Mapping[str, np.ndarray], name: str, ndim: int, *, what: str
) -> tuple[int, ...]:
    """The shape of a tensor; raises InputError unless it is there with so many axes."""
    if name not in tensors or tensors[name].ndim != ndim:
        raise refuse(path, f"{what}, which has a {name} of {ndim} axes")
    return tensors[name].shape


def _equal(value: Any, wanted: Any) -> bool:
    if type(wanted) in (int, float):
        return type(value) in (int, float) and math.isclose(value, wanted, rel_tol=1e-6)
    return type(value) is type(wanted) and value == wanted
