"""The Ray engine: one worker for each GPU, or for every few cores, on all nodes of a cluster or of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self, TypeVar

import torch

from actmine.pipeline import record
from actmine.pipeline.engines.engine import Tell, Work
from actmine.pipeline.engines.ray_cluster import connect, slots
from actmine.pipeline.engines.ray_pool import RayPool
from actmine.pipeline.engines.schedule import Schedule
from actmine.pipeline.errors import UserError
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.words import BLOCK_SECONDS

T = TypeVar("T")
R = TypeVar("R")


class RayEngine:
    """Workers on every node of the Ray cluster that `RAY_ADDRESS` or this machine names, else on this machine alone.

    `device` is auto (cuda where a node has a GPU), cpu or cuda; `worker_cores` the cores of a worker (0: 4, or its
    share of a GPU node); `block_seconds` how long a worker may give no sign of getting on. To be used in a `with`.
    Raises `UserError` without Ray, for a cluster that cannot be reached, and for another device.
    """

    def __init__(
        self,
        device: str = "auto",
        worker_cores: int = 0,
        block_seconds: float = BLOCK_SECONDS,
        progress: Progress = Silent(),
    ) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise UserError(
                f"DEVICE={device}: with ENGINE=ray it is auto, cpu or cuda; each worker has a GPU of its own."
            )
        self._ray, self._connected = connect()
        nodes = self._ray.nodes()
        if device == "auto":
            device = "cuda" if slots(nodes, "cuda", 1) else "cpu"
        self.device = torch.device(device)
        self.block_seconds = block_seconds
        self._pool = RayPool(self._ray, device, worker_cores, progress)
        self._tickets = 0

    @property
    def here(self) -> torch.device:
        """The CPU: the caller needs no GPU."""
        return torch.device("cpu")

    @property
    def memory(self) -> int | None:
        """Memory of the smallest GPU among the workers of now (bytes); None on CPUs. Waits for the first worker."""
        return None if self.device.type == "cpu" else self._pool.least_memory()

    def map(self, work: Work[T, R], items: Iterable[T], tell: Tell) -> Iterator[tuple[T, R]]:
        """Each item with its result, in any order. Raises `UserError` for the worker's, and for what fails again."""
        self._pool.work = [self._ray.put(work)]
        schedule: Schedule[T, R] = Schedule(self._pool, items, work.name, tell, self.block_seconds, self._tickets)
        try:
            yield from schedule.results()
        finally:
            self._tickets = schedule.tickets
            self._pool.work = []

    def machine(self) -> dict[str, Any]:
        """What the record says of the workers."""
        met = self._pool.met
        common = met[0].machine if met else record.machine(self.here) | {"device": str(self.device)}
        names = sorted({greeting.machine["device_name"] for greeting in met})
        return common | {"engine": "ray", "workers": len(met), "device_names": names}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.close()
        if self._connected:
            self._ray.shutdown()
