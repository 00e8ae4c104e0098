"""Rules from our parameters to foreign tensors, and carrying the values across."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from reprojax.interop.checks import IN, printable, refuse

SHOWN = 4  # names of an error; the rest is counted


def _swap_halves(a: np.ndarray, axis: int) -> np.ndarray:
    """For noise features in the order (sin, cos); ours are (cos, sin)."""
    return np.roll(a, a.shape[axis] // 2, axis)


def _split_qkv(a: np.ndarray) -> np.ndarray:
    """Output channels (c, 3), q, k and v of each in turn, to (3, c): all of q, then k, then v."""
    return a.reshape(-1, 3, *a.shape[1:]).swapaxes(0, 1).reshape(a.shape)


def _one_by_one(a: np.ndarray) -> np.ndarray:
    """A 1 x 1 convolution `[out, in, 1, 1]` as a matrix `[out, in]`."""
    return a.reshape(a.shape[:2])


def _label_kernel(a: np.ndarray) -> np.ndarray:
    """`[features, classes]` of a layer that reads one-hot labels times sqrt(classes)."""
    return _swap_halves(a.T, 1) * np.sqrt(a.shape[1], dtype=np.float32)


# What is done to foreign tensors, in the words of the table. Their layouts are PyTorch's, that is
# `[out, in]` and `[out, in, h, w]`, but for those called HWIO.
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
    """One of our parameters.

    Args:
        ours: its path, "enc0_0/conv0/kernel".
        theirs: the foreign tensors it is made of.
        how: a key of `TRANSFORMS`.
    """

    ours: str
    theirs: tuple[str, ...]
    how: str = "copied"


@dataclass(frozen=True)
class Row:
    """A line of the table: what became of a tensor.

    Args:
        ours: our parameter's path, or "" for a foreign tensor that was dropped.
        theirs: foreign names.
        shape: of the result, or of what was dropped.
        how: what was done, or why it was dropped.
    """

    ours: str
    theirs: tuple[str, ...]
    shape: tuple[int, ...]
    how: str


def paths(like: Any) -> list[str]:
    """Every parameter of a tree by its path, in the tree's order."""
    return list(flatten_dict(like, sep="/"))


def carry(
    rules: Iterable[Rule],
    tensors: Mapping[str, np.ndarray],
    like: Any,
    dropped: Iterable[tuple[str, str]] = (),
    field: str = IN,
    value: str = "",
) -> tuple[Any, list[Row]]:
    """Makes our parameters of foreign tensors.

    Args:
        rules: one for each parameter.
        tensors: foreign ones by name.
        like: nested dict of arrays or shape structs: our network's parameters.
        dropped: (foreign name, why) of tensors that are meant to be left behind.
        field: named in errors, with
        value: the file, say.

    Returns:
        (nested dict of float32 arrays, one row for each tensor).

    Raises:
        InputError: a tensor that is missing, left over or of another shape, named.
    """
    rules, dropped = tuple(rules), tuple(dropped)
    wanted = {k: tuple(v.shape) for k, v in flatten_dict(like, sep="/").items()}
    used = {name for rule in rules for name in rule.theirs} | {name for name, _ in dropped}
    problems = {
        "missing": sorted(used - tensors.keys()),
        "left over": sorted(tensors.keys() - used),
        "without a rule": sorted(wanted.keys() - {rule.ours for rule in rules}),
        "not in our network": sorted({rule.ours for rule in rules} - wanted.keys()),
    }
    _refuse(problems, field, value)
    flat, rows, wrong = {}, [], []
    for rule in rules:
        sources = [np.asarray(tensors[name]) for name in rule.theirs]
        made = _transformed(rule, sources)
        if made is None or made.shape != wanted[rule.ours]:
            shapes = " and ".join(str(list(a.shape)) for a in sources)
            wrong.append(f"{rule.theirs[0]} {shapes} for {list(wanted[rule.ours])}")
            continue
        flat[rule.ours] = made
        rows.append(Row(rule.ours, rule.theirs, made.shape, rule.how + _rounding(sources)))
    _refuse({"of another shape": wrong}, field, value)
    rows += [Row("", (printable(name),), tensors[name].shape, why) for name, why in dropped]
    return unflatten_dict(flat, sep="/"), rows


def _transformed(rule: Rule, sources: list[np.ndarray]) -> np.ndarray | None:
    """Float32, or None where the transform does not take such shapes."""
    try:
        made = TRANSFORMS[rule.how](*(a.astype(np.float32) for a in sources))
    except (ValueError, IndexError):
        return None
    return np.ascontiguousarray(made, np.float32)


def _rounding(sources: list[np.ndarray]) -> str:
    kinds = sorted({a.dtype.name for a in sources} - {"float32"})
    return f", from {' and '.join(kinds)}" if kinds else ""


def _refuse(problems: Mapping[str, list[str]], field: str, value: str) -> None:
    said = []
    for what, names in problems.items():
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            said.append(f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}")
    if said:
        raise refuse(value, f"the tensors of this very network ({'; '.join(said)})", field)
