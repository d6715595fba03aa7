"""Samples to network pixels and what is remembered of each image, in threads or in processes, in order."""

from __future__ import annotations

import math
import os
import selectors
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from actmine.pipeline.datasets.decode_worker import Decoded, Decoder, Slots, Source, decoded
from actmine.pipeline.datasets.shards import Place, Rejected, Sample, Shard
from actmine.pipeline.errors import UserError
from actmine.pipeline.preprocessing.images import Preprocessing, jpeg_size, orientation
from actmine.pipeline.processes import Process, end

_SAMPLES_A_TASK = 8
_PIXEL_BYTES = 8 << 20  # of a slot at most, so that large inputs do not take all memory
_ROOM = 32 << 20  # bytes of a slot for encoded images; most of it is never touched
_TASKS_A_PROCESS = 2  # one at work, one waiting: it never waits for us
_SLOTS_A_PROCESS = 3
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1") | {
    # Pages of images of usual sizes are kept for the next one, which is an eighth of the time; those of huge ones go.
    "GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={32 << 20}:glibc.malloc.trim_threshold={128 << 20}"
}
_FEWEST_CORES = 4


@dataclass(frozen=True, slots=True)
class Member:
    """What is remembered of an image that went through the network: enough to find and cut it again.

    `signature`, where it was asked for, tells near-duplicates; see `signatures`.
    `turned` is whether its EXIF orientation says that it is not stored upright.
    """

    position: int
    key: str
    place: Place
    width: int
    height: int
    label: int | None
    label_name: str | None
    signature: bytes | None = None
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Stretch:
    """A few consecutive samples of a shard, what is decoded at a time; `last` marks the end of the shard."""

    shard: Shard
    samples: list[Sample | Rejected]
    last: bool


Prepared = tuple[Member | Rejected, np.ndarray | None]
"""What became of a sample, and the network pixels `[H, W, C]` of a member."""


def decode_processes(device_type: str, cores: int) -> int:
    """How many processes decode for a device of a type (`cuda`), on `cores` cores; 0: threads of this one do.

    The interpreter's lock keeps threads from decoding more than some thousand images a second, which only a GPU can
    take. One core is left for reading and for feeding the device.
    """
    return cores - 1 if device_type == "cuda" and cores >= _FEWEST_CORES and hasattr(os, "memfd_create") else 0


def prepared(sample: Sample | Rejected, how: Preprocessing, encoded: bool, signed: bool) -> Prepared:
    """A sample decoded here. `encoded` leaves JPEGs as they are, uint8 `[N]`; `signed` members have signatures."""
    if isinstance(sample, Rejected):
        return sample, None
    if encoded and (size := jpeg_size(sample.data, how.upright)):
        found = (*size, None, zlib.crc32(sample.data), orientation(sample.data) != 1)
        return _outcome(sample, found), np.frombuffer(sample.data, np.uint8)
    outcome, pixels = decoded(sample.data, how, signed)
    return _outcome(sample, outcome), pixels


def _outcome(sample: Sample, outcome: Decoded) -> Member | Rejected:
    if isinstance(outcome, str):
        return Rejected(sample.position, sample.key, outcome)
    width, height, signature, crc32, turned = outcome
    place = replace(sample.place, crc32=crc32)
    return Member(
        sample.position, sample.key, place, width, height, sample.label, sample.label_name, signature, turned
    )  # fmt: skip


class _Task:
    """A stretch under way in a slot; `outcomes` are those of its samples that can be decoded, or what was raised."""

    def __init__(self, stretch: Stretch, slot: int) -> None:
        self.stretch, self.slot = stretch, slot
        self.wanted = [sample for sample in stretch.samples if isinstance(sample, Sample)]
        self.outcomes: list[Decoded] | Exception | None = None if self.wanted else []


class _Worker:
    """A process and the tasks it has been sent, the oldest first."""

    def __init__(self, process: Process[tuple[int, list[Source]], list[Decoded]]) -> None:
        self.process = process
        self.tasks: deque[_Task] = deque()


class DecodingProcesses:
    """Processes that decode, and the memory they share with this one, which has no name and so never outlives us.

    `samples_a_task` is how long the stretches are that they take. Once they have ended they are of no more use.
    """

    def __init__(self, how: Preprocessing, signed: bool, processes: int) -> None:
        shape, kind = (*how.size, how.channels), np.dtype(how.dtype)
        self.samples_a_task = max(min(_PIXEL_BYTES // (math.prod(shape) * kind.itemsize), _SAMPLES_A_TASK), 1)
        count = _SLOTS_A_PROCESS * processes + 2
        self._free = list(range(count))
        self._workers: list[_Worker] = []
        self._answers = selectors.DefaultSelector()
        descriptor = os.memfd_create("decoding")
        try:
            self._slots = Slots(descriptor, count, _ROOM, (self.samples_a_task, *shape), kind)
            for _ in range(processes):
                worker = _Worker(Process(Decoder(self._slots, how, signed), [descriptor], _ENVIRONMENT))
                self._workers.append(worker)
                self._answers.register(worker.process, selectors.EVENT_READ, worker)
            for worker in self._workers:
                worker.process.ready()
        except BaseException:
            self.end()
            raise
        finally:
            os.close(descriptor)

    @classmethod
    def begun(cls, how: Preprocessing, signed: bool, processes: int) -> Self | None:
        """So many processes; None where there can be none: a transform, say, that only this process knows."""
        if not hasattr(os, "memfd_create"):
            return None
        try:
            return cls(how, signed, processes)
        except UserError:
            raise
        except Exception:  # what pickle raises, here or there, is whatever the transform's own code does
            return None

    def map(self, stretches: Iterable[Stretch]) -> Iterator[tuple[Stretch, list[Prepared]]]:
        """Each stretch with what became of its samples, in order.

        Pixels are views of shared memory, which is used again once the next stretch is asked for. What `stretches` or
        the decoding raise comes out behind what came before; `UserError` at once if a process was ended from outside.
        """
        source, failure = iter(stretches), None
        more = True
        under_way: deque[_Task] = deque()
        while more or under_way:
            self._receive(0)
            if under_way and under_way[0].outcomes is not None:
                task = under_way.popleft()
                yield task.stretch, self._prepared(task)
                self._free.append(task.slot)
            elif more and self._free and len(self._idlest().tasks) < _TASKS_A_PROCESS:
                try:
                    stretch = next(source)
                except StopIteration:
                    more = False
                except Exception as error:
                    more, failure = False, error
                else:
                    under_way.append(self._sent(stretch))
            else:
                self._receive()
        if failure is not None:
            raise failure

    def kill(self) -> None:
        """Ends the processes now; `end` is still to be called. Whoever waits for them gets a `UserError`."""
        for worker in self._workers:
            worker.process.kill()

    def end(self) -> None:
        """Ends the processes and gives the memory back."""
        self.kill()
        end(worker.process for worker in self._workers)
        self._answers.close()

    def _idlest(self) -> _Worker:
        return min(self._workers, key=lambda worker: len(worker.tasks))

    def _sent(self, stretch: Stretch) -> _Task:
        task = _Task(stretch, self._free.pop())
        if not task.wanted:
            return task
        sources: list[Source] = []
        room, start = self._slots.encoded[task.slot], 0
        for sample in task.wanted:
            nbytes = len(sample.data)
            if start + nbytes > len(room):
                sources.append(sample.data)
                continue
            if nbytes:
                room[start : start + nbytes] = np.frombuffer(sample.data, np.uint8)
            sources.append((start, nbytes))
            start += nbytes
        worker = self._idlest()
        while worker.tasks and any(isinstance(source, bytes) for source in sources):
            self._receive()  # much may go by the pipe: to one who reads it at once, not one who waits to be heard
            worker = self._idlest()
        worker.process.send((task.slot, sources))
        worker.tasks.append(task)
        return task

    def _receive(self, timeout: float | None = None) -> None:
        """Takes what the processes have to say, waiting for it up to `timeout` seconds (None: as long as it takes)."""
        for key, _ in self._answers.select(timeout):
            worker: _Worker = key.data
            try:
                outcomes: list[Decoded] | Exception = worker.process.receive()
            except Exception as error:
                if worker.process.ended:
                    raise
                outcomes = error
            worker.tasks.popleft().outcomes = outcomes

    def _prepared(self, task: _Task) -> list[Prepared]:
        if isinstance(task.outcomes, Exception):
            raise task.outcomes
        outcomes, pixels = iter(enumerate(task.outcomes or ())), self._slots.pixels[task.slot]
        found: list[Prepared] = []
        for sample in task.stretch.samples:
            if isinstance(sample, Rejected):
                found.append((sample, None))
                continue
            place, outcome = next(outcomes)
            found.append((_outcome(sample, outcome), None if isinstance(outcome, str) else pixels[place]))
        return found
