"""`python -m jobs COMMAND`: one command a file; only the one that is called gets imported."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

import typer

from jobs.console import fail
from pipeline.errors import UserError

COMMANDS = ("mine", "layers", "sheets", "demo-model")
"""Every command; `jobs.NAME` holds a function of the same name (with underscores)."""

INTERRUPTED = 130


def application(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line with the given commands, whose modules it imports."""
    app = typer.Typer(
        add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown",
        help="What does each unit of a vision network respond to? Mines a dataset for it.",
    )  # fmt: skip
    app.callback()(lambda: None)
    for command in commands:
        name = command.replace("-", "_")
        app.command(command)(_spoken(getattr(importlib.import_module(f"jobs.{name}"), name)))
    return app


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
            fail("interrupted. What was done is kept: the same command goes on from there.")
            os._exit(INTERRUPTED)  # a decode thread may sit in a long read; nothing of theirs needs saving

    return run


def main() -> None:
    """Runs the command line."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is as gentle as Ctrl-C
    asked = [word for word in sys.argv[1:2] if word in COMMANDS]
    application(asked or COMMANDS)(prog_name="python -m jobs")


if __name__ == "__main__":
    main()
