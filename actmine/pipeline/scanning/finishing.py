"""Ends blocks behind the scan: what a block came to is fetched from a GPU while the next one is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class Behind(Generic[T]):
    """Results that are finished in a thread and on a stream of their own, in order, one at a time; on a CPU at once.

    What is to be finished must not be written to any more.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="finish")
        self._waiting: Future[T] | None = None

    def __call__(self, finish: Callable[[], T]) -> Iterator[T]:
        """What `finish` makes, or, where it is made aside, what the one before it has made."""
        if self._stream is None:
            yield finish()
            return
        given = torch.cuda.current_stream(self._stream.device).record_event()
        before, self._waiting = self._waiting, self._pool.submit(self._aside, finish, given)
        if before is not None:
            yield before.result()

    def rest(self) -> Iterator[T]:
        """The last one, if it has not come out yet."""
        if self._waiting is not None:
            yield self._waiting.result()
            self._waiting = None

    def close(self) -> None:
        """Waits for what is under way."""
        self._pool.shutdown()

    def _aside(self, finish: Callable[[], T], given: torch.cuda.Event) -> T:
        on_stream: AbstractContextManager[object] = nullcontext()
        if self._stream is not None:
            self._stream.wait_event(given)
            on_stream = torch.cuda.stream(self._stream)
        with on_stream:
            return finish()
