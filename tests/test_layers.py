"""Imports point down: read from the source of `bearray/`, so that a forgotten one cannot hide behind a lazy
import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "bearray"

LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(names.split())
    for names in (
        "errors",
        "plain terminal addresses method_names packed_queries",
        "run_shapes",
        "config stats title_order trie_checks array_files ragged tree_attention",
        "beyond_accuracy data metrics runs trie provenance quiet",
        "catalog lock",
        "backbones catalog_cache objectives decoding baselines",
        "batching named",
        "forward simulation task vectors",
        "step",
        "extras",
        "negatives recommend pruning trained planning",
        "serving",
        "training",
        "evaluation efficiency server doctor",
        "report",
        "tuning",
        "paper",
        "jobs dashboards",
        "commands",
        "cli",
    )
)
"""Parts of `bearray`, the lowest first. A part may import those below its own line, and nothing beside it."""

FIRST_WITH_RAY = "training"
HEAVY = ("torch", "transformers", "ray", "deepspeed", "matplotlib", "pandas")


def _modules() -> dict[str, Path]:
    names = {}
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


MODULES = _modules()


def _statements(node: ast.AST, *, lazy: bool) -> Iterator[ast.AST]:
    """Everything that can run: all nodes but those that only a type checker reads, and functions' bodies
    with `lazy` only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) and not lazy:
            continue
        if (
            isinstance(child, ast.If)
            and isinstance(child.test, ast.Name)
            and child.test.id == "TYPE_CHECKING"
        ):
            yield from child.orelse
        else:
            yield child
            yield from _statements(child, lazy=lazy)


def _imports(module: str, *, lazy: bool = True) -> set[str]:
    """Full names of the modules that a module imports, with `lazy` also inside functions."""
    found = set()
    for node in _statements(ast.parse(MODULES[module].read_text(encoding="utf-8")), lazy=lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide where they point"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in full}
    return found


IMPORTS = {module: _imports(module) for module in MODULES}


def _part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _level(module: str) -> int:
    part = _part(module)
    levels = [i for i, names in enumerate(LAYERS) if part in names]
    assert levels, f"bearray.{part} has no place in LAYERS of {Path(__file__).name}; give it one"
    return levels[0]


def test_the_reader_sees_lazy_imports_and_not_those_for_types() -> None:
    assert "bearray.backbones.tiny" in IMPORTS["bearray.backbones.resolve"]  # inside a function
    assert "bearray.data" not in IMPORTS["bearray.backbones.resolve"]  # under TYPE_CHECKING
    assert "bearray.trie" in IMPORTS["bearray.decoding.beam"]


@pytest.mark.parametrize("module", [name for name in MODULES if name != "bearray"])
def test_imports_point_down(module: str) -> None:
    own = _level(module)
    for name in sorted(IMPORTS[module]):
        if name in MODULES and _part(name) not in ("", _part(module)):
            assert _level(name) < own, f"{module} imports {name}, which is not below it"


def test_a_name_in_no_layer_is_noticed() -> None:
    with pytest.raises(AssertionError, match="has no place in LAYERS"):
        _level("bearray.surprise")


def test_no_circles() -> None:
    """Between parts there is none at all, as the test above sees; within a part there is none on loading."""
    own = {module: _imports(module, lazy=False) & set(MODULES) for module in MODULES}
    try:
        TopologicalSorter(own).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' -> '.join(error.args[1])}")


def test_nothing_below_training_imports_ray_or_deepspeed() -> None:
    first = _level(f"bearray.{FIRST_WITH_RAY}")
    for module in MODULES:
        if module != "bearray" and _level(module) < first:
            foreign = {name.split(".")[0] for name in IMPORTS[module]}
            assert not foreign & {"ray", "deepspeed"}, f"{module} imports ray or deepspeed"


def test_a_trial_is_driven_without_a_models_libraries() -> None:
    """Each trial has two processes that only drive it; what workers need would take them seconds to load."""
    heavy = ("transformers", "peft", "deepspeed", "accelerate", "scipy")
    code = f"import sys, bearray.tuning.search; print(*sorted(set({heavy!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_command_line_starts_without_heavy_imports() -> None:
    code = f"import sys, bearray.cli; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
