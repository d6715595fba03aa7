"""What does it cost to know each unit? `python -m benchmarks.units`.

SqueezeNet 1.1, random weights, tensors in memory, all 26 layers (3,944 units), k = 50, as the commands of actmine run:
mining with each thing that can be kept, over mining with the top-k and the statistics alone, as ratios of medians.
Images have 1,000 labels at random, so that no batch is spared any. Every candidate has a process of its own; they take
turns. Then the seconds of a feed of 256 images to each accumulator alone.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date

import numpy as np
import torch

from actmine.pipeline.allocator import keep_freed_memory
from actmine.pipeline.cores import usable_cores
from actmine.pipeline.readings.accumulators import Feed, new_accumulators
from actmine.pipeline.readings.batch_index import BatchIndex, identity
from actmine.pipeline.readings.positions import draws
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import Readings, TappedNetwork, unit_offsets
from actmine.pipeline.scanning.compute import Compute, Runner, default_batch_size
from actmine.pipeline.words import SAMPLED
from benchmarks.elsewhere import Elsewhere
from benchmarks.rounds import interleaved
from benchmarks.subject import PREPROCESSING, layers_of, network, pixels

CPU = torch.device("cpu")
PLAIN = ("statistics", "topk")
KINDS = {
    "plain": (PLAIN, StatisticsOptions()),
    "histograms": ((*PLAIN, "histograms"), StatisticsOptions()),
    "labels": ((*PLAIN, "labels"), StatisticsOptions()),
    "sketches": ((*PLAIN, "sketches"), StatisticsOptions()),
    "all by default": ((), StatisticsOptions()),
    "DIRECTION=both": ((*PLAIN, "lowest"), StatisticsOptions(direction="both")),
    "BANDS=50": ((*PLAIN, "sample"), StatisticsOptions(bands=(50.0,))),
    "POSITIONS=sample": ((*PLAIN, "positions"), StatisticsOptions(positions="sample")),
    "POSITIONS=all": ((*PLAIN, "positions"), StatisticsOptions(positions="all")),
}
BAR = 1.05


def main() -> None:
    """Prints a line a candidate."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=9)
    words.add_argument("--images", type=int, default=512)
    given = words.parse_args()
    print(f"{date.today()}  torch {torch.__version__}, {platform.machine()}, {usable_cores()} cores, cpu")
    with ExitStack() as stack:
        made = {kind: stack.enter_context(Elsewhere(mining, kind, given.images, keep=True)) for kind in KINDS}
        timings = interleaved(made, given.rounds, warmup=1)
    plain = timings["plain"].median
    for kind, timing in timings.items():
        ratio = timing.median / plain
        bar = f"   (bar {BAR}: {'reached' if ratio <= BAR else 'missed'})" if kind == "all by default" else ""
        print(f"  {kind:<18}{given.images / timing.median:8.1f} images/s   {ratio:6.3f} of plain{bar}")
    feeds(given.rounds)


def mining(kind: str, images: int) -> Callable[[], None]:
    """A scan from 8-bit pixels in memory to the state of a block."""
    names, keep = KINDS[kind]
    tapped = TappedNetwork(*layers_of(network()), keep.minima, keep.positions)
    size = default_batch_size(CPU)
    runner = Runner(tapped, PREPROCESSING, Compute(CPU, "fp32", False, size), usable_cores())
    memory = pixels(images)
    index = index_of(images)
    starts = range(0, images, size)
    drawn = (lambda start: draws(index.identities[start : start + size])) if keep.positions == SAMPLED else None

    def run() -> None:
        accumulators = new_accumulators(runner.units, keep, CPU)
        feed = Feed({name: accumulators[name] for name in names or accumulators})
        for start, readings in runner.map(starts, lambda start: (start, memory[start : start + size]), drawn):
            assert readings is not None
            end = start + size
            feed(readings, BatchIndex(index.numbers[start:end], index.identities[start:end], index.labels[start:end]))
        for accumulator in feed.settle().values():
            accumulator.state()

    return run


def feeds(rounds: int) -> None:
    """The update of each accumulator alone, by one thread, once its tables are warm."""
    keep_freed_memory()
    torch.set_num_threads(1)
    units = unit_offsets(layers_of(network())[1])[-1]
    values = torch.randn(256, units).relu_()
    places = torch.zeros(256, units, dtype=torch.int32)
    readings, seen = Readings(values, places, -values, places, values), index_of(256)
    accumulators = new_accumulators(units, StatisticsOptions(direction="both", bands=(50.0,), positions=SAMPLED), CPU)
    calls = {name: lambda each=each: each.update(readings, seen) for name, each in accumulators.items()}
    with torch.inference_mode():
        timings = interleaved(calls, rounds, warmup=2)
    print("256 images, one thread")
    for name, timing in timings.items():
        print(f"  {name:<18}{timing.median * 1e3:8.2f} ms")


def index_of(images: int) -> BatchIndex:
    """Images of 1,000 labels at random."""
    numbers = torch.arange(images)
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 1000, images))
    return BatchIndex(numbers, identity(0, numbers), labels)


if __name__ == "__main__":
    main()
