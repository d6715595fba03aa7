"""Candidates in processes of their own: each with its memory allocation, all ready, only one working at a time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from actmine.pipeline.allocator import keep_freed_memory
from actmine.pipeline.cores import usable_cores


class Elsewhere:
    """Calls what `make(*arguments)` returned in another process, which made it there once, and waits for its answer.

    `keep`: whether that process keeps freed memory, as the commands of actmine do, or takes it as it comes.
    """

    def __init__(self, make: Callable[..., Callable[[], Any]], *arguments: Any, keep: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=_work, args=(end, make, arguments, keep))
        self._process.start()
        end.close()

    def __call__(self) -> Any:
        """One round. Raises `RuntimeError` with what the candidate raised."""
        self._pipe.send(None)
        try:
            answer, problem = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"the candidate's process ended with {self._process.exitcode}") from None
        if problem:
            raise RuntimeError(problem)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pipe.close()
        self._process.join(10)
        self._process.kill()


def _work(pipe: Connection, make: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...], keep: bool) -> None:
    import torch

    if keep:
        keep_freed_memory()
    torch.set_num_threads(usable_cores())
    candidate = None
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        try:
            candidate = candidate or make(*arguments)
            pipe.send((candidate(), ""))
        except Exception as error:
            pipe.send((None, f"{type(error).__name__}: {error}"))
