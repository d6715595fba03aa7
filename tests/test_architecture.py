"""Imports point one way: jobs, commands, options, pipeline, schemas; no cycles, nothing upwards."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "actmine"
ROOMS = ("schemas", "pipeline", "options", "commands", "jobs")
FILES = sorted(path for room in ROOMS for path in (HOUSE / room).rglob("*.py"))


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
    room = name.split(".")[1]
    above = ROOMS[ROOMS.index(room) + 1 :]
    assert not [found for found in imports_of(MODULES[name]) if found.split(".")[1] in above]


def test_there_is_no_cycle():
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    graph = {name: imports_of(path) - packages for name, path in MODULES.items()}
    assert list(TopologicalSorter(graph).static_order())


def test_rooms_of_the_library_import_one_way():
    """A room is a folder of `actmine/pipeline/`; each file beside them is a room of its own."""

    def room(name: str) -> str:
        return ".".join(name.split(".")[:3])

    within = {name: path for name, path in MODULES.items() if name.startswith("actmine.pipeline.")}
    graph: dict[str, set[str]] = {}
    for name, path in within.items():
        others = {room(found) for found in imports_of(path) if found.startswith("actmine.pipeline.")}
        graph.setdefault(room(name), set()).update(others - {room(name)})
    assert len(graph) > 15 and list(TopologicalSorter(graph).static_order())


def test_each_room_imports_only_from_rooms_that_architecture_md_names_before_it():
    order = re.findall(r"^\*\*`(\w+)/`\*\*", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    assert {*order} == {path.parent.name for path in FILES if path.parent.parent.name == "pipeline"}
    for name, path in MODULES.items():
        room = name.split(".")[1:2]
        if name.startswith("actmine.pipeline.") and room[0] in order:
            found = {part.split(".")[2] for part in imports_of(path) if part.startswith("actmine.pipeline.")}
            assert not found & {*order[order.index(room[0]) + 1 :]}, name


def test_every_file_of_the_library_is_in_architecture_md():
    told = (ROOT / "ARCHITECTURE.md").read_text()
    listed = {*re.findall(r"`(\w+\.py)`", told)}
    rest = ("ascent", "engines", "atlas", "sheets", "inspect", "demo")  # described by their parts
    files = [path for path in FILES if "pipeline" in path.parts and path.parent.name not in rest]
    missing = {path.name for path in files if "presets" not in path.parts} - listed - {"__init__.py"}
    assert not {name for name in missing if not name.startswith("dependence_")}


@pytest.mark.parametrize("name", MODULES)
def test_every_file_begins_with_what_it_is_for(name):
    text = ast.get_docstring(ast.parse(MODULES[name].read_text()))
    assert text and len(text.splitlines()[0]) > 20


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("actmine.pipeline")])
def test_no_part_of_the_library_parses_arguments_or_prints(name):
    tree = ast.parse(MODULES[name].read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert "print" not in names and not modules & {"argparse", "typer", "rich"}
