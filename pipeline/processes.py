"""Processes of our own that call a function, for work that holds the interpreter's lock: threads would wait for it.

They are reached by pipes, and one ends when its pipe does, however we end. (What multiprocessing begins runs the
caller's script again first, and outlives a caller that is killed.)
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from pipeline.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
_SERVE = "import sys; sys.path[:] = sys.argv[1:]; from pipeline.processes import serve; serve()"


class Processes(Generic[T, R]):
    """Up to `most` processes that call `function`, which a module holds under its name; begun when they are needed.

    They import that module alone. They end with this value, at the latest with this process.
    """

    def __init__(self, function: Callable[[T], R], most: int) -> None:
        self._function, self._most = function, most
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._begun: list[subprocess.Popen[bytes]] = []
        self.close = weakref.finalize(self, _end, self._begun)

    def map(self, items: Iterable[T]) -> Iterator[R]:
        """What the function makes of each item, in order; all items are taken at once.

        Raises what it raises, and `UserError` where a process was ended from outside.
        """
        with ThreadPoolExecutor(self._most, thread_name_prefix="process") as pool:
            yield from pool.map(self._call, items)

    def _call(self, item: T) -> R:
        try:
            process = self._idle.get_nowait()
        except Empty:
            process = self._begin()
        try:
            _send(process, item)
            assert process.stdout is not None
            well, answer = pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise UserError(
                f"A process that was at work for us was ended (exit status {process.wait()}), perhaps for want of "
                "memory. The same command goes on where it stopped."
            ) from error
        self._idle.put(process)
        if not well:
            raise answer
        found: R = answer
        return found

    def _begin(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", _SERVE, *sys.path]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._begun.append(process)
        _send(process, (self._function.__module__, self._function.__name__))
        return process


def _send(process: subprocess.Popen[bytes], value: object) -> None:
    assert process.stdin is not None
    pickle.dump(value, process.stdin)
    process.stdin.flush()


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):  # it may be gone already
                    pipe.close()
    for process in processes:
        process.wait()


def serve() -> None:
    """The life of such a process: a function's module and name, then items, for each of which it gives a result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever began us decides when we end
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints is no answer
    with suppress(EOFError, BrokenPipeError):
        module, name = pickle.load(asked)
        function = getattr(import_module(module), name)
        while True:
            answers.write(pickle.dumps(_answer(function, pickle.load(asked))))
            answers.flush()
    os._exit(0)


def _answer(function: Callable[[Any], Any], item: Any) -> tuple[bool, Any]:
    try:
        return True, function(item)
    except Exception as error:
        return False, error
