"""Rules that make our parameters of foreign tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from reprojax.interop.checks import IN, file_error, printable

MAX_NAMES = 4  # names in an error, which counts the others


def _swap_halves(a: np.ndarray, axis: int) -> np.ndarray:
    """Swaps the halves of noise features in the order (sin, cos); ours is (cos, sin)."""
    return np.roll(a, a.shape[axis] // 2, axis)


def _split_qkv(a: np.ndarray) -> np.ndarray:
    """Reorders output channels from (c, 3), with q, k and v of each in turn, to (3, c)."""
    return a.reshape(-1, 3, *a.shape[1:]).swapaxes(0, 1).reshape(a.shape)


def _one_by_one(a: np.ndarray) -> np.ndarray:
    """Returns a 1 x 1 convolution `[out, in, 1, 1]` as a matrix `[out, in]`."""
    return a.reshape(a.shape[:2])


def _label_kernel(a: np.ndarray) -> np.ndarray:
    """Returns our kernel `[classes, features]` of a layer that reads one-hot x sqrt(classes)."""
    return _swap_halves(a.T, 1) * np.sqrt(a.shape[1], dtype=np.float32)


# What can be done to foreign tensors, by the name that the printed table shows. Their layouts are
# PyTorch's, `[out, in]` and `[out, in, h, w]`, except those called HWIO.
TRANSFORMS: dict[str, Callable[..., np.ndarray]] = {
    "copied": lambda a: a,
    "transposed": lambda a: a.T,
    "OIHW to HWIO": lambda a: a.transpose(2, 3, 1, 0),
    "1x1 to matrix": lambda a: _one_by_one(a).T,
    "1x1 HWIO to matrix": lambda a: a.reshape(a.shape[2:]),
    "transposed, sin/cos swapped": lambda a: _swap_halves(a.T, 0),
    "sin/cos swapped": lambda a: _swap_halves(a, 0),
    "transposed, scaled, sin/cos swapped": _label_kernel,
    "label bias added": lambda b, w, label: b + w @ label,
    "qkv regrouped": _split_qkv,
    "1x1 to matrix, qkv regrouped": (lambda a: _split_qkv(_one_by_one(a)).T),
    "qkv joined": lambda *a: np.concatenate(a, axis=-1),
    "transposed, qkv joined": lambda *a: np.concatenate([x.T for x in a], axis=-1),
}


@dataclass(frozen=True)
class Rule:
    """A rule that makes one of our parameters.

    Args:
        ours: The path of our parameter, e.g. "enc0_0/conv0/kernel".
        theirs: The names of the foreign tensors that it is made of.
        how: The transform, a key of `TRANSFORMS`.
    """

    ours: str
    theirs: tuple[str, ...]
    how: str = "copied"


@dataclass(frozen=True)
class Row:
    """A line of the printed table, which says what became of a tensor.

    Args:
        ours: The path of our parameter, or "" for a foreign tensor that is not used.
        theirs: The names of the foreign tensors.
        shape: The shape of our parameter, or of the unused tensor.
        how: The transform, or the reason why the tensor is not used.
    """

    ours: str
    theirs: tuple[str, ...]
    shape: tuple[int, ...]
    how: str


def paths(like: Any) -> list[str]:
    """Returns the paths of all parameters of a tree, in the tree's order."""
    return list(flatten_dict(like, sep="/"))


def apply_rules(
    rules: Iterable[Rule],
    tensors: Mapping[str, np.ndarray],
    like: Any,
    unused: Iterable[tuple[str, str]] = (),
    field: str = IN,
    value: str = "",
) -> tuple[Any, list[Row]]:
    """Makes our parameters of foreign tensors.

    Args:
        rules: One rule for each parameter.
        tensors: The foreign tensors by name.
        like: The parameters of our network, a nested dict of arrays or shape structs.
        unused: The foreign name of, and the reason for, each tensor that is left out on purpose.
        field: The option that errors name.
        value: The file or folder that errors name.

    Returns:
        A nested dict of float32 arrays, and one row for each tensor.

    Raises:
        InputError: A tensor is missing, left over or of another shape; the message names it.
    """
    rules, unused = tuple(rules), tuple(unused)
    expected = {k: tuple(v.shape) for k, v in flatten_dict(like, sep="/").items()}
    names = {name for rule in rules for name in rule.theirs} | {name for name, _ in unused}
    problems = {
        "missing": sorted(names - tensors.keys()),
        "left over": sorted(tensors.keys() - names),
        "without a rule": sorted(expected.keys() - {rule.ours for rule in rules}),
        "not in our network": sorted({rule.ours for rule in rules} - expected.keys()),
    }
    _require_none(problems, field, value)
    flat, rows, misfits = {}, [], []
    for rule in rules:
        sources = [np.asarray(tensors[name]) for name in rule.theirs]
        parameter = _transform(rule, sources)
        if parameter is None or parameter.shape != expected[rule.ours]:
            shapes = " and ".join(str(list(a.shape)) for a in sources)
            misfits.append(f"{rule.theirs[0]} {shapes} for {list(expected[rule.ours])}")
            continue
        flat[rule.ours] = parameter
        rows.append(Row(rule.ours, rule.theirs, parameter.shape, rule.how + _rounding(sources)))
    _require_none({"of another shape": misfits}, field, value)
    rows += [Row("", (printable(name),), tensors[name].shape, reason) for name, reason in unused]
    return unflatten_dict(flat, sep="/"), rows


def _transform(rule: Rule, sources: list[np.ndarray]) -> np.ndarray | None:
    """Returns the rule's parameter in float32, or None if the transform cannot take such shapes."""
    try:
        parameter = TRANSFORMS[rule.how](*(a.astype(np.float32) for a in sources))
    except (ValueError, IndexError):
        return None
    return np.ascontiguousarray(parameter, np.float32)


def _rounding(sources: list[np.ndarray]) -> str:
    kinds = sorted({a.dtype.name for a in sources} - {"float32"})
    return f", from {' and '.join(kinds)}" if kinds else ""


def _require_none(problems: Mapping[str, list[str]], field: str, value: str) -> None:
    """Raises InputError if there is a name under any problem."""
    lines = []
    for problem, names in problems.items():
        if names:
            more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
            lines.append(f"{len(names)} {problem}: {', '.join(names[:MAX_NAMES])}{more}")
    if lines:
        requirement = f"must hold the tensors of exactly this network ({'; '.join(lines)})"
        raise file_error(value, requirement, field)
