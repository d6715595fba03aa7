"""What a person sees while a command runs: bars on a terminal or in a notebook, plain lines elsewhere."""

from __future__ import annotations

import html
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from actmine.pipeline.errors import without_secrets
from actmine.pipeline.spoken import said

PLAIN_SECONDS = 15.0
_CELL_SECONDS = 0.25


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {task.fields['unit']}/s", style="cyan")


class Display:
    """The `progress.Progress` of commands: bars on a terminal or in a notebook, a line every 15 seconds elsewhere."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)

    def answer(self, told: object) -> None:
        """What a script is told, as JSON on one line of standard output."""
        json.dump(told, sys.stdout, default=str)
        print(flush=True)

    def say(self, sentence: str) -> None:
        """One line for the person watching."""
        self.console.print(escape(said(without_secrets(sentence))), soft_wrap=True)

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Callable[..., None]]:
        """A stage of `total` units, `done` of them before; yields `advance(count, note="", total=None)`."""
        show = self._bar if self.console.is_terminal else self._cell if in_notebook() else self._lines
        with show(name, total, unit, done) as advance:
            yield advance

    @contextmanager
    def _bar(self, name: str, total: int | None, unit: str, done: int) -> Iterator[Callable[..., None]]:
        bar = Progress(
            SpinnerColumn(finished_text="✓"), TextColumn("{task.description:<26}"), BarColumn(24),
            MofNCompleteColumn(), _Rate(), TimeElapsedColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=self.console,
        )  # fmt: skip
        with bar:
            task = bar.add_task(name, total=total, completed=done, unit=unit, note="")

            def advance(count: int, note: str = "", total: int | None = None) -> None:
                bar.update(task, advance=count, note=note)
                if total is not None:
                    bar.update(task, total=total)

            yield advance
            bar.update(task, total=bar.tasks[0].completed)

    @contextmanager
    def _cell(self, name: str, total: int | None, unit: str, done: int) -> Iterator[Callable[..., None]]:
        """One line of a notebook's cell, which changes in place."""
        if self.console.quiet:
            yield lambda count, note="", total=None: None
            return
        start = last = time.monotonic()
        count, known, remark = done, total, ""
        handle = show_html(_cell(name, done, done, total, unit, 0.0, ""))

        def advance(more: int, note: str = "", total: int | None = None) -> None:
            nonlocal count, known, remark, last
            count, remark = count + more, note or remark
            known = known if total is None else total
            if time.monotonic() - last >= _CELL_SECONDS:
                last = time.monotonic()
                handle.update(_html(_cell(name, count, done, known, unit, last - start, remark)))

        try:
            yield advance
            known = count
        finally:
            handle.update(_html(_cell(name, count, done, known, unit, time.monotonic() - start, remark)))

    @contextmanager
    def _lines(self, name: str, total: int | None, unit: str, done: int) -> Iterator[Callable[..., None]]:
        start = last = time.monotonic()
        count, known, remark = done, total, ""

        def line(ending: str) -> None:
            self.say(_line(name, count, done, known, unit, time.monotonic() - start, remark) + ending)

        def advance(more: int, note: str = "", total: int | None = None) -> None:
            nonlocal count, known, remark, last
            count, remark = count + more, note or remark
            known = known if total is None else total
            if time.monotonic() - last >= PLAIN_SECONDS:
                last = time.monotonic()
                line("")

        yield advance
        known = count
        line(f" in {time.monotonic() - start:.1f} s")


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this, which shows what it is given in place."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and hasattr(shell, "kernel")


def _line(name: str, count: int, done: int, known: int | None, unit: str, seconds: float, remark: str) -> str:
    """How far a stage is, in words."""
    rate = (count - done) / max(seconds, 1e-9)
    of = f"/{known:,}" if known else ""
    left = f", {(known - count) / rate:,.0f} s left" if known and rate and count < known else ""
    return f"{name}: {count:,}{of} {unit}, {rate:,.0f} {unit}/s{left}{f', {remark}' if remark else ''}"


def _cell(name: str, count: int, done: int, known: int | None, unit: str, seconds: float, remark: str) -> str:
    """The same as HTML, behind a bar."""
    bar = f'<progress value="{count}" max="{known}"></progress> ' if known else ""
    said = html.escape(_line(name, count, done, known, unit, seconds, remark))
    return f'<div style="font-family:monospace">{bar}{said} ({seconds:.0f} s)</div>'


def _html(text: str) -> Any:
    from IPython.display import HTML

    return HTML(text)


def show_html(text: str) -> Any:
    """Shows HTML in a notebook; what it gives changes it in place by `update`."""
    from IPython.display import display

    return display(_html(text), display_id=True)


def fail(sentence: str) -> None:
    """An error's sentence on standard error."""
    Console(stderr=True, highlight=False).print(f"[bold red]error[/]: {escape(said(sentence))}", soft_wrap=True)
    sys.stderr.flush()
