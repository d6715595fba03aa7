"""What an engine is: it decides where pure workers run, never what they do; only its caller writes to the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")
Item = TypeVar("Item", contravariant=True)
Result = TypeVar("Result", covariant=True)


@dataclass(frozen=True, slots=True)
class Tally:
    """Progress inside an item: how much more is `done`, how many samples were `lost`, how many `shards` ended."""

    done: int
    lost: int = 0
    shards: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.done + other.done, self.lost + other.lost, self.shards + other.shards)

    def __neg__(self) -> Tally:
        return Tally(-self.done, -self.lost, -self.shards)


Tell = Callable[[Tally], None]
"""What a worker calls as it gets on."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a worker finds itself: its device, how many cores are its own, and a lock that says whose turn it is.

    A process that works on two items at once reads one of them while the other has the `turn` to compute.
    """

    device: torch.device
    cores: int
    turn: AbstractContextManager[Any]


class Work(Protocol[Item, Result]):
    """What is to be done to every item: a small value that can be pickled, with the network and the settings in it.

    A result depends on its item alone: not on the workplace (but for the type of its device), nor on other items.
    """

    def open(self, at: Workplace) -> Callable[[Iterable[Item], Tell], Iterator[Result]]:
        """Sets up once in a process; the function gives one result for each item of a stream, in order.

        It may read ahead across items. It raises `UserError` for what the user can mend.
        """

    def name(self, item: Item) -> str:
        """An item in words, for messages."""


class Engine(Protocol):
    """Runs work over items. Results come in any order, each exactly once, and only where the engine was made."""

    @property
    def device(self) -> torch.device:
        """What the workers compute on; its type has a say in the results."""

    @property
    def here(self) -> torch.device:
        """A device of this process, for what the caller builds itself."""

    @property
    def memory(self) -> int | None:
        """Memory of that device (bytes); None where it is the system's."""

    def map(self, work: Work[T, R], items: Iterable[T], tell: Tell) -> Iterator[tuple[T, R]]:
        """Each item with its result. Raises the worker's `UserError`."""

    def machine(self) -> dict[str, Any]:
        """What the record says of where it ran."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def device_memory(device: torch.device) -> int | None:
    """Memory of a CUDA device (bytes); None for one that uses the system's."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
