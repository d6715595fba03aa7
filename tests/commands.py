"""Runs a command in a process of its own that is forked from a server with everything imported: started in no time.

The process tells its stages, so that a test can strike in any of them, and is slow where it writes, so that it can be
struck there.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import actmine.commands.mine
import actmine.commands.sheets
import actmine.pipeline.stages.mining
from actmine.console import Display
from actmine.jobs.__main__ import main
from actmine.pipeline.scanning.ledger import Ledger

STAGES = (
    "Start", "Scanning", "Merging", "Keeping pictures", "Writing tables", "Finding units alike", "Checking crops",
    "Drawing", "overviews", "sheets",
)  # fmt: skip
"""Every stage of `mine`, in order; `Start` is all that comes before the first."""

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.commands"])


@dataclass
class Command:
    """A command under way."""

    process: Any
    log: Path
    stages: Path

    @property
    def said(self) -> str:
        """What it wrote to standard output and error so far."""
        return self.log.read_text() if self.log.exists() else ""

    @property
    def stage(self) -> str:
        """The stage it is in, or was in when it ended."""
        told = self.stages.read_text().split("\n") if self.stages.exists() else []
        return told[-2] if len(told) > 1 else "Start"

    def wait_for(self, stage: str) -> bool:
        """Waits until it is in `stage` or beyond; False if it ended before."""
        return self.wait_until(lambda: STAGES.index(self.stage) >= STAGES.index(stage))

    def wait_until(self, come: Callable[[], bool], seconds: float = 120) -> bool:
        """Waits until `come` is true; False if it ended before. Fails if it takes longer."""
        deadline = time.monotonic() + seconds
        while not come():
            if not self.process.is_alive():
                return come()
            assert time.monotonic() < deadline, (self.stage, self.said)
            time.sleep(0.002)
        return True

    def end(self, seconds: float = 120) -> int:
        """Waits for its end and gives its exit code; fails if it takes longer."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise AssertionError(f"still in {self.stage} after {seconds} s: {self.said}")
        return int(self.process.exitcode)


def start(
    words: list[str],
    notes: Path,
    slow: float = 0.0,
    environment: Mapping[str, str] = MappingProxyType({}),
    struck: Path | None = None,
) -> Command:
    """Starts `python -m actmine *words`; its log is kept in the folder `notes`; each write takes `slow` seconds more.

    If given, the file `struck` holds the files at whose renaming it was killed, a line each with their stage: it is
    killed where it is about to rename one that is not among them.
    """
    notes.mkdir(parents=True, exist_ok=True)
    number = len(list(notes.iterdir()))
    log, stages = notes / f"{number:03d}.log", notes / f"{number:03d}.stages"
    process = SERVER.Process(
        target=_run, args=(words, str(log), str(stages), slow, dict(environment), struck), daemon=True
    )
    process.start()
    return Command(process, log, stages)


def _run(
    words: list[str], log: str, stages: str, slow: float, environment: dict[str, str], struck: Path | None
) -> None:
    os.environ |= environment
    tempfile.tempdir = None  # ask again
    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdin.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests run in the background ignore it
    _observe(os.open(stages, os.O_CREAT | os.O_WRONLY | os.O_APPEND), slow)
    if struck:
        _killed_at_renames(struck, Path(stages))
    sys.argv = ["actmine", *words]
    main()


def _killed_at_renames(struck: Path, stages: Path) -> None:
    """Kills this process where it is about to rename a file in a stage in which it was not yet killed there."""
    replace, one_at_a_time = Path.replace, threading.Lock()
    known = set(struck.read_text().splitlines()) if struck.exists() else set()

    def killed(self: Path, target: Any) -> Path:
        told = stages.read_text().split()
        line = f"{' '.join(told[-1:])} {target}"
        if line not in known:
            one_at_a_time.acquire()  # a thread that renames in the same moment must not tell a second line
            with struck.open("a") as stream:
                stream.write(f"{line}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    Path.replace = killed  # type: ignore[method-assign]


def _observe(told: int, slow: float) -> None:
    """Tells the beginning of every stage to the file `told`, and sleeps before every flush and around states."""
    stage, merge, flush, commit = Display.stage, actmine.pipeline.stages.mining.merge, os.fsync, Ledger.commit

    @contextmanager
    def told_stage(self: Display, name: str, *args: Any, **kwargs: Any) -> Iterator[Callable[..., None]]:
        os.write(told, f"{name}\n".encode())
        with stage(self, name, *args, **kwargs) as advance:
            yield advance

    def slowly(states: Any) -> Iterator[Any]:
        for state in states:
            time.sleep(slow)
            yield state

    def told_merge(states: Any, *args: Any, **kwargs: Any) -> Any:
        os.write(told, b"Merging\n")
        return merge(slowly(states), *args, **kwargs)

    def slow_flush(file: int) -> None:
        time.sleep(slow)
        flush(file)

    def slow_commit(self: Ledger, state: Any) -> None:
        commit(self, state)
        time.sleep(slow)

    Ledger.commit = slow_commit  # type: ignore[method-assign]
    Display.stage = told_stage  # type: ignore[method-assign]
    actmine.pipeline.stages.mining.merge = told_merge  # type: ignore[assignment]
    os.fsync = slow_flush
