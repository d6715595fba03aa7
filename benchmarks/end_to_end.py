"""How near does a scan from JPEG files come to what the cores can do? `python -m benchmarks.end_to_end`.

The limit is 1 / (seconds to decode and resize an image + seconds of the bare forward pass for one), each measured alone
with all cores at work. The scan reads, decodes, resizes, runs SqueezeNet 1.1 with all 26 layers tapped and keeps the
top 50. The forward pass is measured with memory as it comes, as one writes it, and kept, as the scan has it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from tempfile import gettempdir

import torch

from actmine.pipeline.cores import usable_cores
from actmine.pipeline.datasets.sources import blocks_of, find_dataset
from actmine.pipeline.preprocessing.images import decode, network_pixels
from actmine.pipeline.scanning.compute import Compute, Runner, default_batch_size
from actmine.pipeline.scanning.scan import ScanSettings, scan
from benchmarks.elsewhere import Elsewhere
from benchmarks.mining import CPU, KEEP
from benchmarks.photographs import photographs
from benchmarks.rounds import interleaved
from benchmarks.subject import PREPROCESSING, network, normalized, tapped

BAR = 0.90


def main() -> None:
    """Prints the speeds and the ratios."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--images", type=Path, help="a folder of images; generated ones by default")
    words.add_argument("--rounds", type=int, default=5)
    given = words.parse_args()
    folder = given.images or photographs(Path(gettempdir()) / "actmine-photographs-1024", 1024)
    with ExitStack() as stack:
        candidates = {
            "decode": Elsewhere(decoding, folder, keep=True),
            "forward, memory as it comes": Elsewhere(forward, 64, 1, keep=False),
            "forward": Elsewhere(forward, 64, 1, keep=True),
            "forward, a batch a core": Elsewhere(forward, default_batch_size(CPU), usable_cores(), keep=True),
            "scan": Elsewhere(scanning, folder, keep=True),
        }
        for candidate in candidates.values():
            stack.enter_context(candidate)
        images = {name: candidate() for name, candidate in candidates.items()}
        timings = interleaved(candidates, given.rounds)
    speed = {name: images[name] / timing.median for name, timing in timings.items()}
    shown = f"of {folder}" if given.images else "of 500 x 375 pixels"
    print(f"{date.today()}  {usable_cores()} cores, {images['scan']} images {shown}")
    for name, value in speed.items():
        print(f"  {name:<30}{value:8.1f} images/s")
    kept = max(speed["forward"], speed["forward, a batch a core"])
    for regime, fastest, bar in (
        ("memory as it comes", speed["forward, memory as it comes"], BAR),
        ("memory kept", kept, BAR),
    ):
        limit = 1 / (1 / speed["decode"] + 1 / fastest)
        ratio = speed["scan"] / limit
        verdict = "reached" if ratio >= bar else "missed"
        print(f"scan / limit of decoding and a bare pass, {regime} ({limit:.0f}) = {ratio:.3f} (bar {bar}: {verdict})")


def decoding(folder: Path) -> Callable[[], int]:
    """Bytes in memory to network pixels, a thread a core."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    data = [path.read_bytes() for path in paths[:512]]

    def prepare(encoded: bytes) -> None:
        network_pixels(decode(encoded), PREPROCESSING)

    def run() -> int:
        with ThreadPoolExecutor(usable_cores()) as pool:
            return sum(1 for _ in pool.map(prepare, data))

    return run


def forward(batch: int, lanes: int) -> Callable[[], int]:
    """The bare forward pass with all cores in each batch, or with a batch on each core."""
    module, batches = network(), normalized(256).split(batch)

    @torch.inference_mode()
    def compute(images: torch.Tensor) -> None:
        module(images)

    def run() -> int:
        if lanes == 1:
            return sum(256 // len(batches) for _ in map(compute, batches))
        with ThreadPoolExecutor(lanes, "lane", torch.set_num_threads, (usable_cores() // lanes,)) as pool:
            return sum(256 // len(batches) for _ in pool.map(compute, batches))

    return run


def scanning(folder: Path) -> Callable[[], int]:
    """The whole scan, as the commands run it, from files that the system has in memory."""
    dataset = find_dataset(str(folder))
    cores = usable_cores()
    how = Compute(CPU, batch_size=default_batch_size(CPU))
    settings = ScanSettings(PREPROCESSING, KEEP, how)
    runner = Runner(tapped(), PREPROCESSING, how, cores)

    def run() -> int:
        return sum(sum(state.shards["seen"].to_pylist()) for state in scan(blocks_of(dataset), runner, settings))

    return run


if __name__ == "__main__":
    main()
