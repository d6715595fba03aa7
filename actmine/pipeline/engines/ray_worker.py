"""The process that Ray starts for each device or few cores: it has the network, takes items and gives results."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from actmine.pipeline import record
from actmine.pipeline.allocator import keep_freed_memory
from actmine.pipeline.engines.engine import Tally, Workplace, device_memory
from actmine.pipeline.errors import MemoryFull, UserError, first_line, is_memory_full
from actmine.pipeline.network.devices import compute_exactly, free, pick_device


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a worker says of itself once it is ready; `memory` is that of its device (bytes), if it has its own."""

    machine: dict[str, Any]
    versions: dict[str, str]
    memory: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of an item, and all that was told of it."""

    result: Any
    total: Tally


@dataclass(frozen=True, slots=True)
class Refusal:
    """Instead of a result: the error in a sentence; `final` if the user can mend it and nobody needs to try again."""

    error: str
    final: bool


class RayWorker:
    """An actor. `device` is `cuda` (the one that Ray assigned) or `cpu`, `cores` how many are its own.

    Ray calls its methods from several threads at once. It writes nothing to disk.
    """

    def __init__(self, device: str, cores: int) -> None:
        keep_freed_memory()
        compute_exactly()
        self._device, self._cores = device, cores
        self._turn = _Turn()
        self._opening = threading.Lock()
        self._opened: tuple[str, Callable[..., Iterator[Any]]] | None = None
        self._noting = threading.Lock()
        self._news: dict[int, Tally] = {}

    def greet(self) -> Greeting | Refusal:
        """Tries the device and tells what this process is."""
        try:
            device = pick_device(self._device)
            torch.set_num_threads(self._cores)
            return Greeting(record.machine(device), record.versions(), device_memory(device))
        except UserError as error:
            return Refusal(str(error), final=True)

    def news(self) -> dict[int, Tally]:
        """What got done of each ticket since the last call."""
        with self._noting:
            news, self._news = self._news, {}
        return news

    def do(self, ticket: int, work: list[Any], item: Any) -> Answer | Refusal:
        """The result of `item`; `work` holds a reference to the work, fetched once."""
        total = Tally(0)

        def tell(tally: Tally) -> None:
            nonlocal total
            total += tally
            with self._noting:
                self._news[ticket] = self._news.get(ticket, Tally(0)) + tally

        torch.set_num_threads(self._cores)  # of this thread, too
        try:
            (result,) = self._worker(work[0])([item], tell)
            return Answer(result, total)
        except MemoryFull as error:
            full = first_line(error.__cause__ or error)
        except UserError as error:
            return Refusal(str(error), final=True)
        except Exception as error:
            if not is_memory_full(error):
                frame = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{frame.filename}:{frame.lineno}"
                return Refusal(f"{type(error).__name__}: {first_line(error)} ({where}).", final=False)
            full = first_line(error)
        finally:
            self._turn.give_up()
        free()
        return Refusal(f"its GPU's memory is full ({full.rstrip('.')}).", final=False)

    def _worker(self, reference: Any) -> Callable[..., Iterator[Any]]:
        import ray

        with self._opening:
            if self._opened is None or self._opened[0] != reference.hex():
                self._opened = None  # frees the last work's network before the next one comes
                work = ray.get(reference)
                place = Workplace(pick_device(self._device), self._cores, self._turn)
                self._opened = (reference.hex(), work.open(place))
            return self._opened[1]


class _Turn:
    """A lock for `with` that a thread can also give up without knowing whether it has it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mine = threading.local()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._mine.held = True

    def __exit__(self, *error: object) -> None:
        self.give_up()

    def give_up(self) -> None:
        """Lets the next one have its turn, if this thread has it."""
        if getattr(self._mine, "held", False):
            self._mine.held = False
            self._lock.release()
