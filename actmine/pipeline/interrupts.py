"""Ctrl-C and a scheduler's stop, held back where they would break something."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def held_back() -> Iterator[None]:
    """A block into which the handlers of SIGINT and SIGTERM do not fall: they are called at its end.

    PyTorch 2.15 ends the process (`std::terminate`) where an exception comes out of Python code that its C++ code has
    called under a `FakeTensorMode`. Handlers run in the main thread alone; in others the block is like any other.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    come: dict[int, FrameType | None] = {}
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    for each in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(each)
        if callable(handler):
            handlers[each] = handler
    try:
        for number in handlers:
            signal.signal(number, come.__setitem__)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in come.items():
            handlers[number](number, frame)
