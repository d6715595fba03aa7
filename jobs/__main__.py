"""`python -m jobs COMMAND`: one command a file; only the one that is called gets imported."""

from __future__ import annotations

import ast
import functools
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from jobs.console import fail
from pipeline.errors import UserError

COMMANDS = (
    "mine",
    "visualize",
    "layers",
    "sheets",
    "atlas",
    "atlas-export",
    "shards",
    "views",
    "focus",
    "check",
    "compare",
    "score",
    "facets",
    "inspect",
    "demo-model",
)
"""Every command; `jobs.NAME` holds a function of the same name (with underscores)."""

INTERRUPTED = 130
STOP_SECONDS = 5.0
"""How long a command that was stopped may take to put its things away; a read that hangs would take forever."""
_STOPPED = "interrupted. What was done is kept: the same command goes on from there."


def application(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line with the given commands, whose modules it imports."""
    app = _nothing_yet()
    for command in commands:
        name = command.replace("-", "_")
        app.command(command)(_spoken(getattr(importlib.import_module(f"jobs.{name}"), name)))
    return app


def overview() -> typer.Typer:
    """The command line with what every command is for, read from its file, which takes no import."""
    app = _nothing_yet()
    for command in COMMANDS:
        app.command(command, help=_told(command.replace("-", "_")))(lambda: None)
    return app


def _nothing_yet() -> typer.Typer:
    app = typer.Typer(
        add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown",
        help="What does each unit of a vision network respond to? Mines a dataset for it.",
    )  # fmt: skip

    @app.callback()
    def _(
        version: Annotated[
            bool, typer.Option("--version", help="Say which version this is.", is_eager=True, callback=_say_version)
        ] = False,
    ) -> None: ...

    return app


def _say_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"actmine {metadata.version('actmine')}")
        except metadata.PackageNotFoundError:
            print("actmine, from a checkout that is not installed")
        raise typer.Exit


def _told(name: str) -> str:
    """The docstring of a command."""
    file = ast.parse(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))
    functions = (node for node in file.body if isinstance(node, ast.FunctionDef) and node.name == name)
    return ast.get_docstring(next(functions)) or ""


def _spoken(command: Callable[..., Any]) -> Callable[..., None]:
    """A `UserError` becomes one sentence and exit code 1, Ctrl-C one and 130; all else keeps its traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except UserError as error:
            fail(str(error))
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            fail(_STOPPED)
            os._exit(INTERRUPTED)  # a decode thread may sit in a long read; nothing of theirs needs saving

    return run


def _stop(number: int, frame: FrameType | None) -> None:
    """Ends the command by `KeyboardInterrupt`, or, where something keeps it from ending, for good."""
    last = threading.Timer(STOP_SECONDS, _give_up)
    last.daemon = True
    last.start()
    raise KeyboardInterrupt


def _give_up() -> None:
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"error: {_STOPPED}\n".encode())  # others may lock it
    os._exit(INTERRUPTED)


def main() -> None:
    """Runs the command line."""
    signal.signal(signal.SIGTERM, _stop)  # a scheduler's stop is as gentle as Ctrl-C
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else we are to ignore it
        signal.signal(signal.SIGINT, _stop)
    asked = [word for word in sys.argv[1:2] if word in COMMANDS]
    try:
        app = application(asked) if asked else overview()
    except KeyboardInterrupt:  # seconds of imports
        fail(_STOPPED)
        os._exit(INTERRUPTED)
    app(prog_name="python -m jobs")


if __name__ == "__main__":
    main()
