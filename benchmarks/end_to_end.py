"""How near does a scan from JPEG files come to what the cores can do? `python -m benchmarks.end_to_end`.

The limit is cores / (core-seconds to decode an image + core-seconds of the bare forward pass for one), each measured on
one core alone. The scan reads, decodes, resizes, runs SqueezeNet 1.1 with all 26 layers tapped and keeps the top 50.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from tempfile import gettempdir

import torch

from benchmarks.elsewhere import Elsewhere
from benchmarks.mining import CPU, K
from benchmarks.photographs import photographs
from benchmarks.rounds import interleaved
from benchmarks.subject import PREPROCESSING, network, normalized, tapped
from pipeline.compute import Compute, Runner, default_batch_size
from pipeline.cores import usable_cores
from pipeline.images import decode, network_pixels
from pipeline.scan import ScanSettings, scan
from pipeline.sources import blocks_of, find_dataset

BAR = 0.90


def main() -> None:
    """Prints the three speeds and the ratio."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--images", type=Path, help="a folder of images; generated ones by default")
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--compile", action="store_true")
    given = words.parse_args()
    folder = given.images or photographs(Path(gettempdir()) / "actmine-photographs", 512)
    with ExitStack() as stack:
        made = {"decode": (decoding, folder), "forward": (forward,), "scan": (scanning, folder, given.compile)}
        candidates = {
            name: stack.enter_context(Elsewhere(make, *arguments, keep=True))
            for name, (make, *arguments) in made.items()
        }
        images = {name: candidate() for name, candidate in candidates.items()}
        timings = interleaved(candidates, given.rounds)
    seconds = {name: timing.median / images[name] for name, timing in timings.items()}
    cores = usable_cores()
    limit = cores / (seconds["decode"] + seconds["forward"])
    print(f"{date.today()}  {cores} cores, {images['scan']} images of {folder if given.images else '500 x 375 pixels'}")
    print(f"  decode and resize {1e3 * seconds['decode']:.2f} core-ms, forward {1e3 * seconds['forward']:.2f} core-ms")
    print(f"  limit {limit:.0f} images/s, scan {1 / seconds['scan']:.0f} images/s")
    ratio = 1 / seconds["scan"] / limit
    print(f"scan / limit = {ratio:.3f} (bar {BAR}: {'reached' if ratio >= BAR else 'missed'})")


def decoding(folder: Path) -> Callable[[], int]:
    """Bytes in memory to network pixels, on one core."""
    data = [path.read_bytes() for path in sorted(folder.rglob("*.*"))[:128] if path.is_file()]

    def run() -> int:
        for encoded in data:
            network_pixels(decode(encoded), PREPROCESSING)
        return len(data)

    return run


def forward() -> Callable[[], int]:
    """The bare forward pass, on one core, in the batches of a scan."""
    module, batches = network(), normalized(128).split(default_batch_size(CPU))

    @torch.inference_mode()
    def run() -> int:
        torch.set_num_threads(1)
        for batch in batches:
            module(batch)
        return 128

    return run


def scanning(folder: Path, compiled: bool) -> Callable[[], int]:
    """The whole scan, as the commands run it, from files that the system has in memory."""
    dataset = find_dataset(str(folder))
    cores = usable_cores()
    how = Compute(CPU, "fp32", compiled, default_batch_size(CPU))
    settings = ScanSettings(PREPROCESSING, K, how, cores)
    runner = Runner(tapped(), PREPROCESSING, how, cores)

    def run() -> int:
        return sum(sum(state.shards["seen"].to_pylist()) for state in scan(blocks_of(dataset), runner, settings))

    return run


if __name__ == "__main__":
    main()
