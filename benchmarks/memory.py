"""Does memory grow with the number of images? `python -m benchmarks.memory`.

Scans the demo's shards over and over, as if they were many, and commits every block, as `make mine` does. Prints the
resident memory (MB) of the process after 1,000 images and at the end.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from actmine.pipeline import record
from actmine.pipeline.allocator import keep_freed_memory
from actmine.pipeline.cores import usable_cores
from actmine.pipeline.datasets.batches import Batch
from actmine.pipeline.datasets.sources import Block, find_dataset
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.readings.taps import TappedNetwork
from actmine.pipeline.scanning.compute import Compute, Runner, default_batch_size
from actmine.pipeline.scanning.ledger import Ledger
from actmine.pipeline.scanning.scan import ScanSettings, scan
from benchmarks.mining import CPU, KEEP

BAR = 0.05


def main() -> None:
    """Prints memory along the way and the growth."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--images", type=int, default=50_000)
    words.add_argument("--model", default="demo")
    words.add_argument("--data", type=Path, default=Path("data"))
    given = words.parse_args()
    keep_freed_memory()
    dataset = find_dataset("demo", given.data)
    network = load_network(given.model, "random")
    traced = Traced(network.module, network.input_shape)
    layers = traced.unit_bearing()
    how = Compute(CPU, batch_size=default_batch_size(CPU))
    settings = ScanSettings(network.preprocessing, KEEP, how)
    runner = Runner(TappedNetwork(traced, layers), network.preprocessing, how, usable_cores())
    seen, resident = 0, {}

    def watch(batch: Batch) -> None:
        nonlocal seen
        before, seen = seen, seen + batch.samples
        for mark in (1_000, 10_000, given.images):
            if before < mark <= seen:
                resident[mark] = resident_megabytes()

    def blocks() -> Iterator[Block]:
        for number, shard in enumerate(cycle(dataset.shards)):
            yield Block(number, (replace(shard, number=number),))

    with TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder), record.identity(dataset, network, traced, layers, KEEP, how))
        for state in scan(blocks(), runner, settings, watch):
            ledger.commit(state)
            if seen >= given.images:
                break
    print(f"{date.today()}  {given.model}, {runner.units:,} units, k = {KEEP.topk}, cpu")
    for mark, megabytes in resident.items():
        print(f"  after {mark:>7,} images: {megabytes:,.0f} MB resident")
    growth = resident[given.images] / resident[1_000] - 1
    print(f"growth = {growth:+.1%} (bar {BAR:.0%}: {'reached' if growth < BAR else 'missed'})")


def resident_megabytes() -> float:
    """Memory of this process that is in RAM (MB)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system does not say how much memory a process uses")


if __name__ == "__main__":
    main()
