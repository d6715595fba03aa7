"""Hands items to workers that come and go: who gets what, what is tried again, what is given up as stuck.

It knows nothing of where workers are: a `Pool` starts them, reaches them and says what happened.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Generic, Protocol, TypeVar

from actmine.pipeline.engines.engine import Tally, Tell
from actmine.pipeline.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

IN_FLIGHT = 2
"""Items that a worker has at once: one is computed, the next one read."""
RETRIES = 3
"""How often an item is tried again after an error, a crash or a stop without a sign of life."""
NODE_LOSSES = 10
"""How often an item may lose its worker together with the worker's node, which is rarely the item's fault."""
COLD = 3
"""How many times more patience a worker gets until its first result: it loads, traces and compiles."""
_TICK = 1.0  # seconds between looks at the clock
_LONGEST_TICK = 5.0  # more must have been the caller's time, in which no news was taken in


@dataclass(frozen=True, slots=True)
class Joined:
    """A worker is ready for items."""

    worker: str


@dataclass(frozen=True, slots=True)
class Told:
    """A worker got on with an item."""

    worker: str
    ticket: int
    tally: Tally


@dataclass(frozen=True, slots=True)
class Finished:
    """A worker's result of an item, and all that it told of it, heard or not."""

    worker: str
    ticket: int
    result: Any
    total: Tally


@dataclass(frozen=True, slots=True)
class Failed:
    """A worker's error with an item: a sentence for the user (`final`), or anything else."""

    worker: str
    ticket: int
    error: str
    final: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker is gone with all it had; `with_node` where its whole node is."""

    worker: str
    why: str
    with_node: bool


Event = Joined | Told | Finished | Failed | Lost


class Pool(Protocol):
    """Workers somewhere. It replaces those that get lost and takes up new places by itself."""

    def workers(self) -> list[str]:
        """Those that are ready now; of any other one a `Joined` will tell."""

    def give(self, worker: str, ticket: int, item: Any) -> None:
        """Sends an item; never waits."""

    def drop(self, worker: str) -> None:
        """Ends a worker at once; nothing more is heard of it."""

    def events(self, seconds: float) -> list[Event]:
        """What happened, waiting up to `seconds` for it. Raises `UserError` where no worker can ever come."""


@dataclass(eq=False)
class _Task(Generic[T]):
    ticket: int
    item: T
    failures: int = 0
    losses: int = 0
    avoided: set[str] = field(default_factory=set)
    told: Tally = field(default_factory=lambda: Tally(0))

    @property
    def suspect(self) -> bool:
        """It may be what ended a worker: it goes alone from now on, so that nothing else suffers or is blamed."""
        return self.failures + self.losses > 0


@dataclass(eq=False)
class _Worker(Generic[T]):
    sign: float  # when it last gave one
    tasks: dict[int, _Task[T]] = field(default_factory=dict)
    warm: bool = False


class Schedule(Generic[T, R]):
    """One pass over `items`; `patience` is how many seconds a worker with items may give no sign of getting on."""

    def __init__(
        self,
        pool: Pool,
        items: Iterable[T],
        name: Callable[[T], str],
        tell: Tell,
        patience: float,
        first_ticket: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pool, self.name, self.tell, self.patience, self.clock = pool, name, tell, patience, clock
        self.tickets = first_ticket
        self._source: Iterator[T] = iter(items)
        self._exhausted = False
        self._again: deque[_Task[T]] = deque()
        self._workers: dict[str, _Worker[T]] = {}
        self._now, self._read = 0.0, clock()

    def results(self) -> Iterator[tuple[T, R]]:
        """Each item with its result as they come. Raises `UserError`; workers that still have items then are ended."""
        first = list(islice(self._source, 1))
        if not first:
            return  # without waiting for any worker
        self._source = chain(first, self._source)
        self._workers = {worker: _Worker(self._now) for worker in self.pool.workers()}
        try:
            while True:
                self._hand_out()
                if self._exhausted and not self._again and not any(each.tasks for each in self._workers.values()):
                    return
                for event in self.pool.events(_TICK):
                    if isinstance(event, Finished):
                        yield from self._finished(event)
                    else:
                        self._heard(event)
                self._end_the_stuck()
        finally:
            for worker, each in self._workers.items():
                if each.tasks:
                    self.pool.drop(worker)

    def _hand_out(self) -> None:
        """One item for each worker that has none, then a second one for each."""
        for wanted in range(1, IN_FLIGHT + 1):
            for worker, each in self._workers.items():
                if len(each.tasks) >= wanted or any(task.suspect for task in each.tasks.values()):
                    continue
                task = self._next(worker, idle=not each.tasks)
                if task is not None:
                    if not each.tasks:
                        each.sign = self._now
                    each.tasks[task.ticket] = task
                    self.pool.give(worker, task.ticket, task.item)

    def _next(self, worker: str, idle: bool) -> _Task[T] | None:
        if idle:
            for task in self._again:
                if worker not in task.avoided or all(other in task.avoided for other in self._workers):
                    self._again.remove(task)
                    return task
        if self._exhausted or (self._again and not idle):  # what is tried again waits for somebody idle
            return None
        try:
            item = next(self._source)
        except StopIteration:
            self._exhausted = True
            return None
        self.tickets += 1
        return _Task(self.tickets, item)

    def _finished(self, event: Finished) -> Iterator[tuple[T, R]]:
        each = self._workers.get(event.worker)
        task = each.tasks.pop(event.ticket, None) if each else None
        if each is not None and task is not None:
            each.warm, each.sign = True, self._now
            self.tell(event.total + -task.told)
            yield task.item, event.result

    def _heard(self, event: Joined | Told | Failed | Lost) -> None:
        if isinstance(event, Joined):
            self._workers.setdefault(event.worker, _Worker(self._now))
            return
        each = self._workers.get(event.worker)
        if each is None:
            return
        if isinstance(event, Lost):
            self._lost(event.worker, event.why, event.with_node)
        elif event.ticket in each.tasks:
            each.sign = self._now
            if isinstance(event, Told):
                task = each.tasks[event.ticket]
                task.told += event.tally
                self.tell(event.tally)
            elif event.final:
                raise UserError(event.error)
            else:
                self._retry(each.tasks.pop(event.ticket), event.worker, event.error)

    def _lost(self, worker: str, why: str, with_node: bool) -> None:
        for task in self._workers.pop(worker).tasks.values():
            self._retry(task, worker, why, with_node)

    def _retry(self, task: _Task[T], worker: str, why: str, with_node: bool = False) -> None:
        self.tell(-task.told)
        task.told = Tally(0)
        task.avoided.add(worker)
        task.losses += with_node
        task.failures += not with_node
        if task.failures > RETRIES or task.losses > NODE_LOSSES:
            raise UserError(
                f"{self.name(task.item)} failed {task.failures + task.losses} times, the last time on {worker}: {why} "
                "What was done is kept: the same command goes on from there."
            )
        self._again.append(task)

    def _end_the_stuck(self) -> None:
        now = self.clock()
        self._now += min(now - self._read, _LONGEST_TICK)
        self._read = now
        for worker, each in list(self._workers.items()):
            patience = self.patience if each.warm else COLD * self.patience
            if each.tasks and self._now - each.sign > patience:
                self.pool.drop(worker)
                self._lost(worker, f"it gave no sign of getting on for {patience:g} seconds (--block-seconds).", False)
