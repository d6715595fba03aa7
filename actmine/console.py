"""What a person sees while a command runs: one calm progress display, or plain lines where there is no terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {task.fields['unit']}/s", style="cyan")


class Display:
    """The `progress.Progress` of the commands: bars on a terminal, a line every 15 seconds elsewhere."""

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
        show = self._bar if self.console.is_terminal else self._lines
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
    def _lines(self, name: str, total: int | None, unit: str, done: int) -> Iterator[Callable[..., None]]:
        start = last = time.monotonic()
        count, known, remark = done, total, ""

        def line(ending: str) -> None:
            rate = (count - done) / max(time.monotonic() - start, 1e-9)
            of = f"/{known:,}" if known else ""
            left = f", {(known - count) / rate:,.0f} s left" if known and rate and count < known else ""
            extra = f", {remark}" if remark else ""
            self.say(f"{name}: {count:,}{of} {unit}, {rate:,.0f} {unit}/s{left}{extra}{ending}")

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


def fail(sentence: str) -> None:
    """An error's sentence on standard error."""
    Console(stderr=True, highlight=False).print(f"[bold red]error[/]: {escape(said(sentence))}", soft_wrap=True)
    sys.stderr.flush()
