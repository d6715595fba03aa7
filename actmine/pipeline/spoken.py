"""How commands are said to whoever called: through make, as `actmine`, as `python -m actmine`, or from Python."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

BY_MAKE = "ACTMINE_BY_MAKE"
"""The variable of the environment by which the Makefile says that it called, and with which words."""
_FROM_PYTHON = ContextVar("from_python", default=False)
_OPTION = re.compile(r"(?<![\w-])--(no-)?([a-z]+(?:-[a-z]+)*)(?:[ =](\d[\w.]*\w|\d|none|HEIGHTxWIDTH)(?!\w))?")
LEFT_OPEN = "…"
"""Stands for a value that whoever reads a command has to fill in."""


@contextmanager
def from_python() -> Iterator[None]:
    """A block in which commands are said as calls of `actmine`'s functions."""
    before = _FROM_PYTHON.set(True)
    try:
        yield
    finally:
        _FROM_PYTHON.reset(before)


def command(name: str, /, **words: object) -> str:
    """`make sheets RUN=… UNITS=0-9`, or `actmine sheets --run … --units 0-9`; True is a flag, empty words are left out.

    What it says can be pasted into a shell; or into a notebook, from where it was called: `actmine.sheets(run='…')`.
    """
    asked = {word: value for word, value in words.items() if value not in (None, "", False)}
    if _FROM_PYTHON.get():
        return call(name, **asked)
    if BY_MAKE not in os.environ:
        return " ".join([program(interpreter()), name, *(_flag(word, value) for word, value in asked.items())])
    said = [f"{word.upper()}={1 if value is True else _quoted(value)}" for word, value in asked.items()]
    return " ".join(["make", name, *said]).replace("$", "$$")


def call(name: str, /, **words: object) -> str:
    """A command as a call from Python."""
    given = (f"{word}={value if isinstance(value, int) else repr(str(value))}" for word, value in words.items())
    return f"actmine.{name.replace('-', '_')}({', '.join(given)})".replace(repr(LEFT_OPEN), LEFT_OPEN)


def said(sentence: str) -> str:
    """A sentence with its options as whoever called says them: `--topk 5` is TOPK=5 for make, topk=5 in Python."""
    python, make = _FROM_PYTHON.get(), BY_MAKE in os.environ
    if not (python or make):
        return sentence

    def option(found: re.Match[str]) -> str:
        no, name, value = found[1], found[2].replace("-", "_"), found[3]
        name = name if python else name.upper()
        if no:
            return f"{name}={False if python else 0}"
        if value is None:
            return name
        return f"{name}={value if not python or value.isdecimal() else repr(value)}"

    return _OPTION.sub(option, sentence)


def program(python: str = "python") -> str:
    """What this program was called by: `actmine`, or `python -m actmine`."""
    return "actmine" if Path(sys.argv[0]).name == "actmine" else f"{python} -m actmine"


def interpreter() -> str:
    """The Python that runs, as it is called from here: by its name if that finds it, else by its path."""
    runs = Path(sys.executable)
    if found := [name for name in ("python", "python3") if shutil.which(name) == str(runs)]:
        return found[0]
    return _quoted(runs.relative_to(Path.cwd()) if runs.is_relative_to(Path.cwd()) else runs)


def python(code: str) -> str:
    """How a line of Python is run from here."""
    return code if _FROM_PYTHON.get() else f'{interpreter()} -c "{code}"'


def install(extra: str) -> str:
    """The command that installs one of the project's extras."""
    if BY_MAKE in os.environ:
        return f"make setup EXTRA={extra}"
    return install_package(f"actmine[{extra}]")


def install_package(name: str) -> str:
    """The command that installs a package beside the one that runs."""
    return f"{interpreter()} -m pip install {_quoted(name)}"


def _flag(word: str, value: object) -> str:
    flag = f"--{word.replace('_', '-')}"
    return flag if value is True else f"{flag} {_quoted(value)}"


def _quoted(value: object) -> str:
    return LEFT_OPEN if value == LEFT_OPEN else shlex.quote(str(value))
