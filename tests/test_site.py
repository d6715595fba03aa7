"""The site is built of the pages and of the code, with warnings as errors, and asks nobody else for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from actmine.options.records import COMMANDS, options_of

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("mkdocs", "mkdocstrings", "material"):
        pytest.importorskip(package, reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        build, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_reference_has_every_option_and_every_function(site):
    commands, functions = ((site / "reference" / f"{page}.html").read_text() for page in ("commands", "python"))
    for command in COMMANDS:
        assert f'id="{command}"' in commands
        for option in fields(options_of(command)):
            word = {"as_json": "JSON", "class_": "CLASS"}.get(option.name, option.name.upper())
            assert f"<code>{word}</code>" in commands, (command, option.name)
    assert all(f'id="{name}"' in functions for name in ("mine", "visualize", "open_run", "run", "unit"))


def test_it_asks_no_other_host(site):
    pages = [path.read_text() for path in site.rglob("*.html")]
    assert len(pages) > 18
    asked = re.compile(r'<(?:script|img|link)\b[^>]*(?:src|href)="https?://')
    assert not any(asked.search(page) for page in pages)


def test_every_page_lies_in_the_list_of_pages():
    listed = {*re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)}
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert there <= listed and listed - there == {
        "tour.md",
        *(f"reference/{name}.md" for name in ("commands", "tables", "python")),
    }
