"""The local engine: this process, this machine's one device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class LocalEngine:
    """Runs a worker where we are.

    A worker takes a stream of items and gives a stream of results, one for each in order, so that it can load its
    network once and read ahead across items. Engines on several machines give each worker a part of the items.
    """

    def map(self, worker: Callable[[Iterable[T]], Iterator[R]], items: Iterable[T]) -> Iterator[R]:
        """The results of `worker` over `items`."""
        return worker(items)
