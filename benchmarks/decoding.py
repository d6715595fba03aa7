"""How many JPEGs a second become batches, by threads and by processes, read by nobody? `python -m benchmarks.decoding`.

Pictures of 500 x 375 pixels and about 110 kB, which the system has in memory, from a folder or (`--tar`) from a tar,
become 224 x 224 pixels. Rates are those behind the first batch; how long that takes is told alone.
"""

from __future__ import annotations

import argparse
import statistics
import tarfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from itertools import count, islice
from pathlib import Path
from tempfile import gettempdir

from actmine.pipeline.allocator import keep_freed_memory
from actmine.pipeline.cores import usable_cores
from actmine.pipeline.datasets.batches import read_batches
from actmine.pipeline.datasets.folder_shards import FolderShard
from actmine.pipeline.datasets.shards import Shard
from actmine.pipeline.datasets.tar_shards import TarShard
from actmine.pipeline.preprocessing.images import Preprocessing
from benchmarks.photographs import photographs
from benchmarks.rounds import interleaved

HOW = Preprocessing.usual(256, (224, 224))
BATCH, DISTINCT = 64, 128
CORES, BAR = 16, 5_000


@dataclass(frozen=True, slots=True)
class Pass:
    """`rate` in images/s, `cost` in seconds of this process an image, `begun`: seconds to the first batch."""

    rate: float
    cost: float
    begun: float


def main() -> None:
    """Prints the speeds and what they come to on 16 cores."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--images", type=int, default=512, help="images that each thread or process decodes a round")
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument(
        "--processes", type=int, nargs="+", help="numbers of threads and of processes; 1, 2 and a core each"
    )
    words.add_argument("--tar", action="store_true", help="from a tar instead of a folder")
    given = words.parse_args()
    keep_freed_memory()
    numbers = sorted({1, *(given.processes or (2, usable_cores()))})
    folder = photographs(Path(gettempdir()) / f"actmine-photographs-{DISTINCT}", DISTINCT)
    shard = (
        packed(folder)
        if given.tar
        else FolderShard(0, str(folder), files=tuple(sorted(path.name for path in folder.iterdir())))
    )
    passes: dict[str, list[Pass]] = defaultdict(list)

    def candidate(name: str, number: int, processes: int) -> Callable[[], None]:
        return lambda: passes[name].append(one_pass(shard, number * given.images, number, processes))

    candidates = {f"{number} threads": candidate(f"{number} threads", number, 0) for number in numbers}
    candidates |= {f"{number} processes": candidate(f"{number} processes", number, number) for number in numbers}
    interleaved(candidates, given.rounds)
    medians = {name: median(found[1:]) for name, found in passes.items()}
    print(f"{date.today()}  {usable_cores()} cores, from a {'tar' if given.tar else 'folder'}, {given.rounds} rounds")
    for name in candidates:
        its = medians[name]
        told = f"{its.cost * 1e6:6.0f} us of this process an image, first batch after {its.begun:.2f} s"
        print(f"  {name:<14}{its.rate:8.0f} images/s {told if 'processes' in name else ''}".rstrip())
    most = max(numbers)
    threads, processes = medians[f"{most} threads"].rate, medians[f"{most} processes"].rate
    print(f"{most} processes / {most} threads = {processes / threads:.2f}")
    if usable_cores() >= CORES:
        print(f"{most} processes on {usable_cores()} cores: {processes:.0f} images/s {verdict(processes)}")
        return
    one, cost = medians["1 processes"].rate, medians[f"{most} processes"].cost
    expected = min(CORES * one, 1 / cost)
    how = f"min({CORES} x {one:.0f}, 1 / {cost * 1e6:.0f} us) = min({CORES * one:.0f}, {1 / cost:.0f})"
    print(f"extrapolated to {CORES} cores, not measured: {how} = {expected:.0f} images/s {verdict(expected)}")


def verdict(rate: float) -> str:
    """The bar, and whether it is reached."""
    return f"(bar {BAR}: {'reached' if rate >= BAR else 'missed'})"


def one_pass(shard: Shard, images: int, threads: int, processes: int) -> Pass:
    """At least `images` pictures behind the first batch, the shard over and over."""
    shards = (replace(shard, number=number) for number in islice(count(), -(-(images + BATCH) // DISTINCT)))
    start = time.perf_counter()
    batches = read_batches(shards, HOW, BATCH, threads, processes=processes)
    next(batches)
    first, used = time.perf_counter(), time.process_time()
    seen = sum(len(batch.members) for batch in batches)
    return Pass(seen / (time.perf_counter() - first), (time.process_time() - used) / seen, first - start)


def median(passes: list[Pass]) -> Pass:
    """Of each figure."""
    return Pass(*(statistics.median(getattr(each, name) for each in passes) for name in ("rate", "cost", "begun")))


def packed(folder: Path) -> Shard:
    """A tar of the pictures beside their folder."""
    path = folder.with_suffix(".tar")
    if not path.exists():
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
            for picture in sorted(folder.iterdir()):
                tar.add(picture, picture.name)
    return TarShard(0, str(path))


if __name__ == "__main__":
    main()
