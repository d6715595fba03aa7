"""The local engine: this process, this machine's one device."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any, Self, TypeVar

import torch

from actmine.pipeline import record
from actmine.pipeline.cores import usable_cores
from actmine.pipeline.engines.engine import Tell, Work, Workplace, device_memory

T = TypeVar("T")
R = TypeVar("R")


class LocalEngine:
    """Runs a worker where we are, on `device` with `workers` threads (0: one for each usable core).

    The worker gets all items as one stream, so that it loads its network once and reads ahead across items.
    """

    def __init__(self, device: torch.device, workers: int = 0) -> None:
        self.device = device
        self.workers = workers or usable_cores()

    @property
    def here(self) -> torch.device:
        """The same device."""
        return self.device

    @property
    def memory(self) -> int | None:
        """Memory of a CUDA device (bytes), else None."""
        return device_memory(self.device)

    def map(self, work: Work[T, R], items: Iterable[T], tell: Tell) -> Iterator[tuple[T, R]]:
        """Each item with its result, in order."""
        under_way: deque[T] = deque()

        def taken() -> Iterator[T]:
            for item in items:
                under_way.append(item)
                yield item

        worker = work.open(Workplace(self.device, self.workers, nullcontext()))
        for result in worker(taken(), tell):
            yield under_way.popleft(), result

    def machine(self) -> dict[str, Any]:
        """What the record says of this machine."""
        return record.machine(self.device)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass
