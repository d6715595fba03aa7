"""The command line before any command is chosen: at once, and without what only commands need."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from jobs.__main__ import COMMANDS, _told

HEAVY = {"torch", "torchvision", "numpy", "pyarrow", "pandas", "PIL"}


def said(*words: str) -> subprocess.CompletedProcess[str]:
    """What the command line says; on the last line of its errors which heavy packages it imported."""
    code = (
        "import sys, atexit; from jobs.__main__ import main; "
        f"atexit.register(lambda: print(*sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)); "
        "sys.argv[1:] = sys.argv[2:]; main()"
    )
    return subprocess.run([sys.executable, "-c", code, "-", *words], capture_output=True, text=True)


@pytest.mark.parametrize(("words", "answer"), [(["--help"], "atlas-export"), (["--version"], "actmine"), ([], "mine")])
def test_help_and_version_import_nothing_heavy(words, answer):
    done = said(*words)
    assert answer in done.stdout and done.stderr.splitlines()[-1] == ""


def test_a_mistyped_command_is_answered_at_once_with_what_was_meant():
    done = said("minee", "--dataset", "photos")
    assert done.returncode == 2 and "Did you mean 'mine'?" in done.stderr
    assert done.stderr.splitlines()[-1] == ""


def test_what_is_told_of_a_command_is_its_docstring():
    for command in COMMANDS:
        name = command.replace("-", "_")
        first = (getattr(import_module(f"jobs.{name}"), name).__doc__ or "").strip().splitlines()[0]
        assert _told(name).splitlines()[0] == first, command
