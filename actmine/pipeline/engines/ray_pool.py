"""The actors of a Ray cluster, one in each place for a worker: starts them, asks them, hears when they are gone."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from actmine.pipeline import record
from actmine.pipeline.engines.ray_cluster import Slot, other_versions, slots
from actmine.pipeline.engines.ray_worker import Greeting, RayWorker, Refusal
from actmine.pipeline.engines.schedule import IN_FLIGHT, Event, Failed, Finished, Joined, Lost, Told
from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.progress import Progress

_LOOK_SECONDS = 3.0  # between looks at which nodes there are
_NEWS_SECONDS = 1.0  # between questions to one worker how far it is
_ALONE_SECONDS = 30.0  # without any worker until somebody is told
_STARTS = 3  # failed starts in one place until it is given up


@dataclass(eq=False)
class _Actor:
    """A worker and what it owes us: references to what it was asked, with the ticket of an item."""

    slot: Slot
    handle: Any
    ready: bool = False
    items: dict[Any, int] = field(default_factory=dict)
    asked_at: float = 0.0
    question: Any = None  # of `greet`, later of `news`


class RayPool:
    """The actors of a cluster, one in each slot; see `schedule.Pool`."""

    def __init__(self, ray: Any, device: str, worker_cores: int, progress: Progress) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray, self._device, self._worker_cores, self._progress = ray, device, worker_cores, progress
        self._pinned = NodeAffinitySchedulingStrategy
        self._kind = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=IN_FLIGHT + 1)(RayWorker)
        self._actors: dict[str, _Actor] = {}
        self._started = 0
        self._failed_starts: Counter[Slot] = Counter()
        self._looked = -_LOOK_SECONDS
        self._alone_since: float | None = time.monotonic()
        self._why = ""
        self._versions = record.versions()
        self.work: list[Any] = []
        self.met: list[Greeting] = []

    def workers(self) -> list[str]:
        """The names of those that are ready: address, slot and a number of their own."""
        return [name for name, actor in self._actors.items() if actor.ready]

    def give(self, worker: str, ticket: int, item: Any) -> None:
        """Sends an item. Raises `UserError` for one that cannot be pickled."""
        actor = self._actors.get(worker)
        if actor is None:  # it was lost, which the schedule is about to hear
            return
        try:
            actor.items[actor.handle.do.remote(ticket, self.work, item)] = ticket
        except TypeError as error:  # so Ray says it, of whatever pickle raises
            raise UserError(
                "The dataset or the network cannot be sent to Ray's workers, as it cannot be pickled: take out of it "
                "what cannot travel, such as open files and locks, or leave ENGINE=ray out."
            ) from error

    def drop(self, worker: str) -> None:
        """Ends an actor's process; another one takes its slot."""
        actor = self._actors.pop(worker, None)
        if actor is not None:
            self._ray.kill(actor.handle, no_restart=True)

    def close(self) -> None:
        """Ends all actors."""
        for worker in list(self._actors):
            self.drop(worker)

    def least_memory(self) -> int:
        """The memory of the smallest of the workers' GPUs (bytes), once there is a worker."""
        while not any(greeting.memory for greeting in self.met):
            self.events(_NEWS_SECONDS)  # no item is under way yet, so that nothing is missed
        return min(greeting.memory for greeting in self.met if greeting.memory)

    def events(self, seconds: float) -> list[Event]:
        """What happened; at most one result at a time, since a result is large."""
        self._look()
        self._ask()
        owed: dict[Any, tuple[str, int | None]] = {}
        for name, actor in self._actors.items():
            owed |= {reference: (name, ticket) for reference, ticket in actor.items.items()}
            if actor.question is not None:
                owed[actor.question] = (name, None)
        if not owed:
            time.sleep(min(seconds, _NEWS_SECONDS))
            return []
        self._ray.wait(list(owed), timeout=min(seconds, _NEWS_SECONDS))
        ready, _ = self._ray.wait(list(owed), num_returns=len(owed), timeout=0)
        events: list[Event] = []
        for reference in ready:
            name, ticket = owed[reference]
            if name not in self._actors:
                continue
            events += self._answered(name, reference) if ticket is None else self._done(name, ticket, reference)
            if events and isinstance(events[-1], Finished):
                break
        return events

    def _look(self) -> None:
        """Which nodes there are now: starts workers where there is room."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        places = slots(self._ray.nodes(), self._device, self._worker_cores)
        taken = {actor.slot for actor in self._actors.values()}
        for slot in places:
            if slot not in taken and self._failed_starts[slot] < _STARTS:
                self._start(slot)
        self._tell_if_alone(places)

    def _tell_if_alone(self, places: list[Slot]) -> None:
        if any(actor.ready for actor in self._actors.values()):
            self._alone_since = None
            return
        if places and all(self._failed_starts[slot] >= _STARTS for slot in places):
            raise UserError(f"ENGINE=ray: no worker could be started; the last one on {self._why}")
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since = now
        elif now - self._alone_since > _ALONE_SECONDS:
            self._alone_since = now + 9 * _ALONE_SECONDS
            kind = "GPU" if self._device == "cuda" else "core"
            self._progress.say(
                f"Waiting for workers: {len(places)} are wanted and none has come yet (is every {kind} taken?)."
                if places
                else f"Waiting for workers: no node of the cluster has a {kind} for them."
            )

    def _start(self, slot: Slot) -> None:
        self._started += 1
        pinned = self._pinned(slot.node, soft=False)
        handle = self._kind.options(num_cpus=slot.cores, num_gpus=slot.gpus, scheduling_strategy=pinned).remote(
            self._device, max(slot.cores, 1)
        )
        name = f"{slot.address} (worker {self._started})"
        self._actors[name] = _Actor(slot, handle, question=handle.greet.remote())

    def _ask(self) -> None:
        """Asks workers with items how far they are, now and then."""
        now = time.monotonic()
        for actor in self._actors.values():
            if actor.ready and actor.items and actor.question is None and now - actor.asked_at > _NEWS_SECONDS:
                actor.asked_at, actor.question = now, actor.handle.news.remote()

    def _answered(self, name: str, reference: Any) -> list[Event]:
        actor = self._actors[name]
        actor.question = None
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return self._lost(name, error)
        if isinstance(answer, dict):
            return [Told(name, ticket, tally) for ticket, tally in answer.items()]
        why = answer.error if isinstance(answer, Refusal) else other_versions(self._versions, answer.versions)
        if why:
            self.drop(name)
            self._failed(actor.slot, why)
            return []
        actor.ready = True
        self._failed_starts.pop(actor.slot, None)
        self.met.append(answer)
        return [Joined(name)]

    def _done(self, name: str, ticket: int, reference: Any) -> list[Event]:
        del self._actors[name].items[reference]
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:  # outside of `do`: its item cannot be sent, say
            return [Failed(name, ticket, _reason(error), final=False)]
        except self._ray.exceptions.RayError as error:
            return self._lost(name, error)
        if isinstance(answer, Refusal):
            return [Failed(name, ticket, answer.error, answer.final)]
        return [Finished(name, ticket, answer.result, answer.total)]

    def _lost(self, name: str, error: Exception) -> list[Event]:
        actor = self._actors[name]
        self.drop(name)
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        gone = actor.slot.node not in alive or "node has died" in str(error)
        self._looked = -_LOOK_SECONDS
        if not actor.ready:
            if not gone:
                self._failed(actor.slot, _reason(error))
            return []
        return [Lost(name, "its node is gone." if gone else _reason(error), gone)]

    def _failed(self, slot: Slot, why: str) -> None:
        self._failed_starts[slot] += 1
        self._why = f"{slot.address}: {why}"
        if self._failed_starts[slot] == _STARTS:
            self._progress.say(f"No worker on {self._why}")


def _reason(error: Exception) -> str:
    """What a long error of Ray's comes to, in a line."""
    text = str(error)
    named = re.findall(r"^\s*(?:\w+\.)*\w+(?:Error|Exception): .+", text, re.MULTILINE)
    exit_detail = re.search(r"Worker exit detail: ([^.]+\.[^.]*)", text)
    if named:
        return str(named[-1]).strip()
    if exit_detail:
        return f"its process ended. {exit_detail[1].strip()}."
    return first_line(error)
