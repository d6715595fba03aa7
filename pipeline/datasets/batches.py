"""Shards to batches: reads, decodes in parallel, keeps the order, never lets a batch straddle two shards."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from pipeline.datasets.shards import Place, Rejected, Sample, Shard, read_samples
from pipeline.preprocessing.images import ImageError, Preprocessing, decode, jpeg_size, network_pixels
from pipeline.preprocessing.signatures import signature

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Member:
    """What is remembered of an image that went through the network: enough to find and cut it again.

    `signature`, where it was asked for, tells near-duplicates; see `signatures`.
    """

    position: int
    key: str
    place: Place
    width: int
    height: int
    label: int | None
    label_name: str | None
    signature: bytes | None = None


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
) -> Iterator[Batch]:
    """Batches of up to `size` images of each shard in turn, decoded by `workers` threads ahead of the reader.

    `encoded` leaves JPEGs as they are, for the device. `signed` members have signatures.

    Pillow and torch release the interpreter's lock while they work, so threads decode in parallel and nothing
    has to be copied between processes. A batch depends on its shard alone, never on `workers`.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        prepare = partial(_prepared, how=how, encoded=encoded, signed=signed)
        yield from ahead(_batches(shards, how, size, pool, 2 * size + workers, encoded, prepare), depth=2)


def ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """The same items, produced by a thread that runs up to `depth` of them ahead; its errors come out here."""
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
        thread.join()


def map_in_order(function: Callable[[T], R], items: Iterable[T], pool: ThreadPoolExecutor, most: int) -> Iterator[R]:
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
    shards: Iterable[Shard],
    how: Preprocessing,
    size: int,
    pool: ThreadPoolExecutor,
    most: int,
    encoded: bool,
    prepared: Callable[[Sample | Rejected], _Prepared],
) -> Iterator[Batch]:
    def prepare(stretch: _Stretch) -> tuple[_Stretch, list[_Prepared]]:
        return stretch, [prepared(sample) for sample in stretch.samples]

    pixels: list[np.ndarray] = []
    members: list[Member] = []
    rejected: list[Rejected] = []

    def batch(shard: Shard, last: bool) -> Batch:
        stacked = np.stack(pixels) if pixels and not encoded else np.empty((0, *how.size, how.channels), how.dtype)
        whole = Batch(shard, stacked, tuple(members), tuple(rejected), last, tuple(pixels) if encoded else ())
        for part in (pixels, members, rejected):
            part.clear()
        return whole

    for stretch, made in map_in_order(prepare, _stretches(shards), pool, -(-most // _SAMPLES_A_TASK)):
        for member, values in made:
            if isinstance(member, Rejected):
                rejected.append(member)
            elif values is not None:
                if len(members) == size:
                    yield batch(stretch.shard, last=False)
                members.append(member)
                pixels.append(values)
        if stretch.last:
            yield batch(stretch.shard, last=True)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A few consecutive samples of a shard, what one thread decodes at a time; `last` marks the end of the shard."""

    shard: Shard
    samples: list[Sample | Rejected]
    last: bool


_Prepared = tuple[Member | Rejected, np.ndarray | None]
_SAMPLES_A_TASK = 4  # handing each over alone costs a fifth of decoding it


def _stretches(shards: Iterable[Shard]) -> Iterator[_Stretch]:
    for shard in shards:
        waiting: list[Sample | Rejected] = []
        for sample in read_samples(shard):
            if len(waiting) == _SAMPLES_A_TASK:
                yield _Stretch(shard, waiting, last=False)
                waiting = []
            waiting.append(sample)
        yield _Stretch(shard, waiting, last=True)


def _prepared(sample: Sample | Rejected, how: Preprocessing, encoded: bool, signed: bool) -> _Prepared:
    if isinstance(sample, Rejected):
        return sample, None
    try:
        if encoded and (size := jpeg_size(sample.data)):
            return _member(sample, size), np.frombuffer(sample.data, np.uint8)
        image = decode(sample.data)
        member = _member(sample, image.size)
        return replace(member, signature=signature(image)) if signed else member, network_pixels(image, how)
    except ImageError as error:
        return Rejected(sample.position, sample.key, str(error)), None


def _member(sample: Sample, size: tuple[int, int]) -> Member:
    return Member(sample.position, sample.key, sample.place, *size, sample.label, sample.label_name)
