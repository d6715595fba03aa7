"""Shards to batches: reads, decodes in parallel, keeps the order, never lets a batch straddle two shards."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from actmine.pipeline.datasets.decoding import DecodingProcesses, Member, Prepared, Stretch, prepared
from actmine.pipeline.datasets.shards import Rejected, Sample, Shard, read_samples
from actmine.pipeline.preprocessing.images import Preprocessing

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Batch:
    """Some images of one shard in order, ready for the network.

    `pixels`: `[B, H, W, C]` of `Preprocessing.dtype`, empty where every sample of the stretch was rejected, or where
    the device is to decode: then `encoded` has the bytes of each JPEG, uint8 `[N]`, and the pixels of other images.
    `samples` counts all samples of the stretch, `last` marks the end of the shard.
    """

    shard: Shard
    pixels: np.ndarray
    members: tuple[Member, ...]
    rejected: tuple[Rejected, ...]
    last: bool
    encoded: tuple[np.ndarray, ...] = ()

    @property
    def samples(self) -> int:
        """Seen and rejected together."""
        return len(self.members) + len(self.rejected)

    def without(self, lost: Mapping[int, str]) -> Batch:
        """The same with some members, by their number in the batch, rejected for a reason each."""
        late = [Rejected(self.members[n].position, self.members[n].key, why) for n, why in lost.items()]
        kept = tuple(member for n, member in enumerate(self.members) if n not in lost)
        rejected = tuple(sorted((*self.rejected, *late), key=lambda sample: sample.position))
        return replace(self, members=kept, rejected=rejected)


def read_batches(
    shards: Iterable[Shard],
    how: Preprocessing,
    size: int,
    workers: int,
    *,
    encoded: bool = False,
    signed: bool = False,
    processes: int = 0,
) -> Iterator[Batch]:
    """Batches of up to `size` images of each shard in turn, decoded by `workers` threads ahead of the reader.

    `encoded` leaves JPEGs as they are, for the device. `signed` members have signatures. So many `processes` decode in
    place of the threads where there can be any. A batch depends on its shard alone, never on who decodes it.
    """
    many = DecodingProcesses.begun(how, signed, processes) if processes and not encoded else None
    if many is not None:
        yield from _by_processes(shards, how, size, many)
        return

    def prepare(stretch: Stretch) -> tuple[Stretch, list[Prepared]]:
        return stretch, [prepared(sample, how, encoded, signed) for sample in stretch.samples]

    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        most = -(-(2 * size + workers) // _SAMPLES_A_TASK)
        with closing(map_in_order(prepare, _stretches(shards, _SAMPLES_A_TASK), pool, most)) as done:
            yield from ahead(_batches(done, how, size, encoded), depth=2)


def _by_processes(shards: Iterable[Shard], how: Preprocessing, size: int, many: DecodingProcesses) -> Iterator[Batch]:
    """One thread reads, another one hands out what it has read and collects what became of it."""
    try:
        with closing(ahead(_stretches(shards, many.samples_a_task), depth=4)) as stretches:
            yield from ahead(_batches(many.map(stretches), how, size, encoded=False), depth=2, at_end=many.kill)
    finally:
        many.end()


def ahead(items: Iterator[T], depth: int, at_end: Callable[[], None] = lambda: None) -> Generator[T, None, None]:
    """The same items, produced by a thread that runs up to `depth` of them ahead; its errors come out here.

    `at_end` is called when no more items are wanted, before the thread is waited for.
    """
    waiting: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def offer(entry: tuple[T | None, BaseException | None, bool]) -> bool:
        while not stop.is_set():
            try:
                waiting.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in items:
                if not offer((item, None, False)):
                    return
            offer((None, None, True))
        except BaseException as error:
            offer((None, error, True))
        finally:
            if isinstance(items, Generator):
                items.close()  # at once: what it has under way is not wanted any more

    thread = threading.Thread(target=produce, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error, end = waiting.get()
            if error is not None:
                raise error
            if end:
                return
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        at_end()
        thread.join()


def map_in_order(
    function: Callable[[T], R], items: Iterable[T], pool: ThreadPoolExecutor, most: int
) -> Generator[R, None, None]:
    """`function` of each item in their order, up to `most` of them under way in `pool` at once.

    Where `items` raise, what came before comes out first.
    """
    under_way: deque[Future[R]] = deque()
    failure: Exception | None = None
    source = iter(items)
    try:
        while failure is None:
            try:
                under_way.append(pool.submit(function, next(source)))
            except StopIteration:
                break
            except Exception as error:
                failure = error
            if len(under_way) >= most:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
        if failure is not None:
            raise failure
    finally:
        for future in under_way:
            future.cancel()


def _batches(
    stretches: Iterator[tuple[Stretch, list[Prepared]]], how: Preprocessing, size: int, encoded: bool
) -> Iterator[Batch]:
    members: list[Member] = []
    rejected: list[Rejected] = []
    images: list[np.ndarray] = []  # encoded, or of pixels the one array that they are copied into

    def batch(shard: Shard, last: bool) -> Batch:
        pixels = (
            images[0][: len(members)] if images and not encoded else np.empty((0, *how.size, how.channels), how.dtype)
        )
        whole = Batch(shard, pixels, tuple(members), tuple(rejected), last, tuple(images) if encoded else ())
        for part in (images, members, rejected):
            part.clear()
        return whole

    for stretch, made in stretches:
        for member, values in made:
            if isinstance(member, Rejected):
                rejected.append(member)
            elif values is not None:
                if len(members) == size:
                    yield batch(stretch.shard, last=False)
                if encoded:
                    images.append(values)
                else:
                    if not images:
                        images.append(np.empty((size, *values.shape), values.dtype))
                    images[0][len(members)] = values
                members.append(member)
        if stretch.last:
            yield batch(stretch.shard, last=True)


_SAMPLES_A_TASK = 4  # of a thread: handing each over alone costs a fifth of decoding it


def _stretches(shards: Iterable[Shard], samples: int) -> Iterator[Stretch]:
    for shard in shards:
        waiting: list[Sample | Rejected] = []
        for sample in read_samples(shard):
            if len(waiting) == samples:
                yield Stretch(shard, waiting, last=False)
                waiting = []
            waiting.append(sample)
        yield Stretch(shard, waiting, last=True)
