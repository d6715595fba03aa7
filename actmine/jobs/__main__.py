"""The command line: one command a file; what carries it out is imported when all that was asked makes sense."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, get_type_hints

import typer
import typer.core

from actmine.console import Display, fail
from actmine.jobs.make_words import as_flags, words_of
from actmine.options.records import COMMANDS, file_of, options_of, record_name
from actmine.pipeline import spoken
from actmine.pipeline.errors import UserError, sentences, without_secrets

INTERRUPTED = 130
_COMPLETES = "_ACTMINE_COMPLETE"
"""The variable of the environment by which a shell asks how a line of ours could go on."""
STOP_SECONDS = 5.0
"""How long a command that was stopped may take to put its things away; a read that hangs would take forever."""
_MISUSED: Any = typer.BadParameter.__base__  # UsageError of click, which recent versions of typer have of their own
_STOPPED = "interrupted. What was done is kept: the same command goes on from there."


def application(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line with the given commands; what carries one out is imported when it is called."""
    app = _nothing_yet()
    for command in commands:
        app.command(command, cls=_Command)(_asking(options_of(command)))
    return app


def overview() -> typer.Typer:
    """The command line with what every command is for, read from its file, which takes no import."""
    app = _nothing_yet()
    for command in COMMANDS:
        app.command(command, help=_told(command))(lambda: None)
    return app


class _Command(typer.core.TyperCommand):
    """A command whose complaints about values are in our words alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises click's `UsageError` for what is no option, or no value of one."""
        try:
            return super().parse_args(ctx, args)
        except _MISUSED as error:
            error.message = without_secrets(error.message.removeprefix("Value error, "))  # pydantic's
            raise


def _nothing_yet() -> typer.Typer:
    app = typer.Typer(
        no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown",
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


def _told(command: str) -> str:
    """What a command does, as its options say."""
    file = Path(__file__).parents[1] / "options" / f"{file_of(command)}.py"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    records = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == record_name(command))
    return ast.get_docstring(next(records)) or ""


def _asking(record: type) -> Callable[..., None]:
    """Takes the fields of a `record` of options as typer does, and has the function of `commands/` carry it out.

    A `UserError` becomes one sentence and exit code 1, so does a GPU's full memory, Ctrl-C one and 130; all else keeps
    its traceback.
    """

    def run(**given: Any) -> None:
        name = record.__module__.rsplit(".", 1)[-1]
        try:
            options = record(**given)
            display = Display(getattr(options, "quiet", False) or getattr(options, "as_json", False))
            with sentences():
                told = getattr(importlib.import_module(f"actmine.commands.{name}"), name)(options, display)
            if options.as_json and told is not None:
                display.answer(told)
        except UserError as error:
            fail(str(error))
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            fail(_STOPPED)
            os._exit(INTERRUPTED)  # a decode thread may sit in a long read; nothing of theirs needs saving

    run.__doc__ = record.__doc__
    run.__annotations__ = hints = get_type_hints(record, include_extras=True)
    asked = inspect.signature(record)
    run.__signature__ = asked.replace(  # type: ignore[attr-defined]
        parameters=[word.replace(annotation=hints[word.name]) for word in asked.parameters.values()]
    )
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
        completing = _COMPLETES in os.environ
        app = application(COMMANDS if completing else asked) if asked or completing else overview()
        if asked:
            words = words_of(os.environ, spoken.BY_MAKE)
            sys.argv[2:2] = as_flags(asked[0], options_of(asked[0]), words, os.environ)
    except UserError as error:
        fail(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        fail(_STOPPED)
        os._exit(INTERRUPTED)
    app(prog_name=spoken.program())


if __name__ == "__main__":
    main()
