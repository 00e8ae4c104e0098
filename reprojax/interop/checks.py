"""Whether what a file states is what our network is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from reprojax.errors import InputError

IN = "--in"  # the option that names a file


def refuse(path: Path, allowed: str) -> InputError:
    """The error that names the file, to be raised."""
    return InputError(IN, str(path), allowed)


def require_stated(path: Path, name: str, value: Any, allowed: tuple) -> None:
    """Raises InputError unless a stated value is one of ``allowed``, of the same type.

    Numbers are compared as such, to within the rounding of float32.
    """
    if not any(_equal(value, a) for a in allowed):
        said = " or ".join(map(repr, allowed))
        raise refuse(path, f"a network with {name} {said}, not {value!r}")


def _equal(value: Any, wanted: Any) -> bool:
    if type(wanted) in (int, float):
        return type(value) in (int, float) and math.isclose(value, wanted, rel_tol=1e-6)
    return type(value) is type(wanted) and value == wanted
