"""Processes of our own that call a function, for work that holds the interpreter's lock: threads would wait for it.

They are reached by pipes, and one ends when its pipe does, however we end. (What multiprocessing begins runs the
caller's script again first, and outlives a caller that is killed.)
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import IO, Any, Generic, TypeVar

from actmine.pipeline.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
_SERVE = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = sys.argv[1:]; "
    "from actmine.pipeline.processes import serve; serve()"
)  # whoever began a process decides when it ends, not Ctrl-C
_LENGTH = 8  # bytes that say how long a message is


class Process(Generic[T, R]):
    """A process that calls `function`, anything that can be pickled and called, with one item after another.

    It imports what that needs and nothing else. Open `files` (descriptors) are open there too, under their numbers.
    """

    def __init__(
        self, function: Callable[[T], R], files: Sequence[int] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        self.ended = False
        greeting = _packed(function)
        self._its = subprocess.Popen(
            [sys.executable, "-c", _SERVE, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=files,
            env={**os.environ, **(environment or {})},
        )
        self._send(greeting)

    def fileno(self) -> int:
        """A descriptor that can be read from, for `selectors`, once there is something to receive."""
        assert self._its.stdout is not None
        return self._its.stdout.fileno()

    def ready(self) -> None:
        """Waits until it has begun, once, before anything is received. Raises what kept it from taking the function."""
        self.receive()

    def send(self, item: T) -> None:
        """Has an item done behind those sent before it. Raises `UserError` if the process was ended."""
        self._send(_packed(item))

    def receive(self) -> R:
        """Waits for the next result, in the order of items. Raises what the function raised, or `UserError`."""
        try:
            found, problem = pickle.loads(self._read(int.from_bytes(self._read(_LENGTH), "little")))
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if problem is not None:
            raise problem
        result: R = found
        return result

    def kill(self) -> None:
        """Ends it now, whatever it is doing; `end` is still to be called."""
        self._its.kill()

    def hang_up(self) -> None:
        """Has it end behind the item it is at work on."""
        self.ended = True
        for pipe in (self._its.stdin, self._its.stdout):
            if pipe is not None:
                with suppress(OSError):  # it may be gone already
                    pipe.close()

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        return self._its.wait()

    def _send(self, message: bytes) -> None:
        assert self._its.stdin is not None
        try:
            _write(self._its.stdin, message)
        except BrokenPipeError as error:
            raise self._lost() from error

    def _read(self, nbytes: int) -> bytearray:
        # Past the pipe's buffer: what that held of the next answer, `selectors` would not see.
        found = bytearray()
        while len(found) < nbytes:
            some = os.read(self.fileno(), min(nbytes - len(found), 1 << 20))
            if not some:
                raise EOFError
            found += some
        return found

    def _lost(self) -> UserError:
        self.ended = True
        return UserError(
            f"A process that was at work for us was ended (exit status {self.wait()}), perhaps for want of "
            "memory. The same command goes on where it stopped."
        )


class Processes(Generic[T, R]):
    """Up to `most` processes that call `function`, which a module holds under its name; begun when they are needed.

    They import that module alone. They end with this value, at the latest with this process.
    """

    def __init__(self, function: Callable[[T], R], most: int) -> None:
        self._function, self._most = function, most
        self._idle: SimpleQueue[Process[T, R]] = SimpleQueue()
        self._begun: list[Process[T, R]] = []
        self.close = weakref.finalize(self, end, self._begun)

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
            process.send(item)
            return process.receive()
        finally:
            if not process.ended:
                self._idle.put(process)

    def _begin(self) -> Process[T, R]:
        process = Process(self._function)
        self._begun.append(process)
        process.ready()
        return process


def end(processes: Iterable[Process[Any, Any]]) -> None:
    """Ends all of them, each behind the item it is at work on."""
    processes = list(processes)
    for process in processes:
        process.hang_up()
    for process in processes:
        process.wait()


def serve() -> None:
    """The life of such a process: a function, then items, for each of which it gives a result."""
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints is no answer
    with suppress(EOFError, BrokenPipeError):
        function, problem = _called(pickle.loads, _message(asked))
        _write(answers, _packed((None, problem)))
        while problem is None:
            item, unreadable = _called(pickle.loads, _message(asked))
            _write(answers, _packed((None, unreadable) if unreadable else _called(function, item)))
    os._exit(0)


def _called(function: Callable[[Any], Any], item: Any) -> tuple[Any, Exception | None]:
    try:
        return function(item), None
    except Exception as error:
        return None, error


def _packed(value: object) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def _write(stream: IO[bytes], message: bytes) -> None:
    stream.write(len(message).to_bytes(_LENGTH, "little"))
    stream.write(message)
    stream.flush()


def _message(stream: IO[bytes]) -> bytes:
    length = stream.read(_LENGTH)
    if len(length) < _LENGTH:
        raise EOFError
    return stream.read(int.from_bytes(length, "little"))
