"""The packages import one way only: each sees what stands before it in ORDER, nothing after."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ENTRY_POINTS = ("main", "score", "noise")
ORDER = (
    "types",
    "errors",
    "rng",
    "runtime",
    "diffusion",
    "models",
    "data",
    "denoisers",
    "sampling",
    "training",
    "scoring",
    "interop",
    "drawing",
    "study",
    "report",
    "analyses",
    "config",
    "api",
)
# Only these read flags and configs; the rest takes plain typed arguments.
READ_CONFIGS = {"config", *ENTRY_POINTS}
CONFIG_LIBRARIES = {"absl", "ml_collections"}
# Optional or slow to import: only inside the function that needs them.
LATE_LIBRARIES = {"torch", "tensorflow", "tensorflow_datasets", "tensorboardX", "submitit"}


class Import(NamedTuple):
    name: str  # dotted and absolute; for `from a import b`, "a.b"
    line: int
    late: bool  # inside a function or `if TYPE_CHECKING`: does not run with the module


def imports(node: ast.AST, package: str, late: bool = False) -> Iterator[Import]:
    """Every import under ``node`` of a module in ``package``, those inside functions included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, late)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                parents = package.split(".")[: len(package.split(".")) - child.level + 1]
                base = ".".join([*parents, *filter(None, [child.module])])
            for alias in child.names:
                yield Import(f"{base}.{alias.name}", child.lineno, late)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from imports(ast.Module(child.body, []), package, True)
            yield from imports(ast.Module(child.orelse, []), package, late)
        else:
            if isinstance(child, ast.Call) and ast.unparse(child.func).endswith(
                ("import_module", "__import__")
            ):
                for argument in child.args[:1]:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        yield Import(argument.value, child.lineno, late)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(child, package, late or function)


def layer_of(name: str) -> str:
    """The second part of a dotted name; "" for the package itself and its dunder names."""
    second = [*name.split("."), ""][1]
    return "" if second.startswith("__") else second


def rank(layer: str) -> int:
    if layer == "":
        return -1
    return len(ORDER) if layer in ENTRY_POINTS else ORDER.index(layer)


def complaint(layer: str, statement: Import) -> str | None:
    """What is wrong with an import in a module of ``layer``, or None."""
    top = statement.name.split(".")[0]
    if top == "reprojax":
        target = layer_of(statement.name)
        if target not in ("", *ORDER, *ENTRY_POINTS):
            return f"{target} is not in ORDER"
        if target not in ("", layer) and rank(target) >= rank(layer):
            return f"{layer or 'reprojax'} may not import {target}, which stands after it"
    if top in CONFIG_LIBRARIES and layer not in READ_CONFIGS:
        return f"only {', '.join(sorted(READ_CONFIGS))} may import {top}"
    if f"{statement.name}.".startswith("flax.linen.") and layer != "models":
        return "only models may import flax.linen"
    if top in LATE_LIBRARIES and not statement.late:
        return f"{top} may be imported only inside the function that needs it"
    return None


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def violations(root: Path) -> list[str]:
    """All complaints about the package in the folder ``root``, as "file:line: what"."""
    lines = []
    for path in sorted(root.rglob("*.py")):
        layer = layer_of(module_name(path, root))
        where = path.relative_to(root.parent)
        if layer not in ("", *ORDER, *ENTRY_POINTS):
            lines.append(f"{where}: {layer} is not in ORDER")
            continue
        package = ".".join(where.parts[:-1])
        for statement in imports(ast.parse(path.read_text("utf-8")), package):
            if wrong := complaint(layer, statement):
                lines.append(f"{where}:{statement.line}: {wrong}")
    return list(dict.fromkeys(lines))  # `from a import b, c` is one line


def test_imports_point_one_way(repo_root):
    lines = violations(repo_root / "reprojax")
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize(
    ("file", "code", "expected"),
    [
        ("diffusion/a.py", "from reprojax.models import unet", "diffusion may not import models"),
        ("diffusion/a.py", "from reprojax import models", "diffusion may not import models"),
        ("diffusion/a.py", "import reprojax.study.runner as r", "diffusion may not import study"),
        ("diffusion/a.py", "from ..models import unet", "diffusion may not import models"),
        ("diffusion/a.py", "from .. import models", "diffusion may not import models"),
        ("diffusion/a.py", "def f():\n    import reprojax.data", "diffusion may not import data"),
        ("data/a.py", "import_module('reprojax.scoring')", "data may not import scoring"),
        ("data/a.py", "from reprojax.denoisers import gaussian", "data may not import denoisers"),
        ("types.py", "from reprojax import rng", "types may not import rng"),
        ("__init__.py", "from reprojax import types", "reprojax may not import types"),
        ("score.py", "from reprojax import main", "score may not import main"),
        ("config.py", "from reprojax import noise", "config may not import noise"),
        ("utils.py", "", "utils is not in ORDER"),
        ("data/a.py", "from reprojax import utils", "utils is not in ORDER"),
        ("study/a.py", "import ml_collections", "may import ml_collections"),
        ("study/a.py", "from absl import logging", "may import absl"),
        ("training/a.py", "from flax import linen as nn", "only models may import flax.linen"),
        ("training/a.py", "import flax.linen as nn", "only models may import flax.linen"),
        (
            "interop/a.py",
            "try:\n    import torch\nexcept ImportError: ...",
            "torch may be imported",
        ),
        ("data/a.py", "import tensorflow as tf", "tensorflow may be imported"),
    ],
)
def test_a_planted_import_is_caught(tmp_path, file, code, expected):
    path = tmp_path / "reprojax" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    (line,) = violations(tmp_path / "reprojax")
    assert line.startswith(f"reprojax/{file}:")
    assert expected in line


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("models/unet.py", "from flax import linen as nn\nfrom reprojax import types, __version__"),
        ("models/unet.py", "from reprojax.models import layers\nfrom . import layers"),
        ("training/state.py", "from flax import struct\nimport reprojax.models.unet"),
        ("data/source.py", "def f():\n    import tensorflow_datasets"),
        ("main.py", "from absl import app\nfrom ml_collections import config_flags\n"),
        ("main.py", "from reprojax import config, report"),
    ],
)
def test_an_import_that_points_forward_is_allowed(tmp_path, file, code):
    path = tmp_path / "reprojax" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    assert violations(tmp_path / "reprojax") == []


IMPORT_ALL = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted({"torch", "tensorflow", "tensorflow_datasets"} & set(sys.modules))))
"""


def test_importing_every_module_has_no_side_effect(repo_root, tmp_path):
    root = repo_root / "reprojax"
    names = sorted(module_name(path, root) for path in root.rglob("*.py"))
    # With a platform that does not exist, the first touch of a device raises.
    env = os.environ | {"JAX_PLATFORMS": "none", "PYTHONPATH": str(repo_root)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *names],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []  # nothing else is printed either
    assert not list(tmp_path.iterdir())


def module_graph(root: Path) -> dict[str, set[str]]:
    """By module of the package the modules that it imports when it is itself imported."""
    paths = {module_name(path, root): path for path in root.rglob("*.py")}
    graph = {}
    for name, path in paths.items():
        package = ".".join(path.relative_to(root.parent).parts[:-1])
        targets = set()
        for statement in imports(ast.parse(path.read_text("utf-8")), package):
            if not statement.late:
                parent = statement.name.rpartition(".")[0]
                targets |= {n for n in (statement.name, parent) if n in paths and n != name}
        graph[name] = targets - {name.rpartition(".")[0]}
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of some import circle, in order; empty where there is none."""
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for target in sorted(graph[name]):
            if way := search(target, [*path, name]):
                return way
        done.add(name)
        return []

    return next(filter(None, (search(name, []) for name in sorted(graph))), [])


def test_no_module_imports_itself_in_a_circle(repo_root, tmp_path):
    graph = module_graph(repo_root / "reprojax")
    assert len(graph) > 100 and graph["reprojax.study.runner"] >= {"reprojax.study.workers"}
    assert circle(graph) == []
    folder = tmp_path / "reprojax" / "study"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text("from reprojax.study.b import x")
    (folder / "b.py").write_text("from reprojax.study import c")
    (folder / "c.py").write_text(
        "def late():\n    import reprojax.study.b\nimport reprojax.study.a"
    )
    names = [f"reprojax.study.{x}" for x in "abca"]
    assert circle(module_graph(tmp_path / "reprojax")) == names
