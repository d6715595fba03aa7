"""Imports point one way: jobs, then pipeline, then schemas; no cycles, nothing upwards."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("schemas", "pipeline", "jobs")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name in MODULES and not name.endswith("__init__")}


@pytest.mark.parametrize("name", MODULES)
def test_no_module_imports_from_a_room_above_its_own(name):
    room = name.split(".")[0]
    above = ROOMS[ROOMS.index(room) + 1 :]
    assert not [found for found in imports_of(MODULES[name]) if found.split(".")[0] in above]


def test_there_is_no_cycle():
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    graph = {name: imports_of(path) - packages for name, path in MODULES.items()}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("name", MODULES)
def test_every_file_begins_with_what_it_is_for(name):
    text = ast.get_docstring(ast.parse(MODULES[name].read_text()))
    assert text and len(text.splitlines()[0]) > 20


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("pipeline")])
def test_no_part_of_the_library_parses_arguments_or_prints(name):
    tree = ast.parse(MODULES[name].read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert "print" not in names and not modules & {"argparse", "typer", "rich"}
