"""What does mining cost over a bare forward pass? `make bench`.

Tensors in memory, SqueezeNet 1.1 with random weights, every convolutional layer, k = 50, channels_last, float32,
eager. The bar is 0.97 with memory allocation as it comes. A second part measures the same with freed memory kept, as
the commands of actmine do (`pipeline/allocator.py`): both are then much faster, and what the taps read weighs more.
"""

from __future__ import annotations

import argparse
import platform
from datetime import date

import torch
import torchvision

from benchmarks.rounds import Timing, interleaved
from pipeline.allocator import keep_freed_memory
from pipeline.cores import usable_cores
from pipeline.layers import Traced
from pipeline.scan import new_accumulators
from pipeline.taps import TappedNetwork, unit_offsets

BAR = 0.97


def main() -> None:
    """Prints images/s of each candidate and the ratios of medians."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=9, help="counted rounds, at least 5")
    words.add_argument("--images", type=int, default=256)
    words.add_argument("--batch-size", type=int, default=64)
    words.add_argument("--topk", type=int, default=50)
    given = words.parse_args()
    torch.set_num_threads(usable_cores())
    torch.manual_seed(0)
    module = torchvision.models.squeezenet1_1(weights=None).eval().to(memory_format=torch.channels_last)
    traced = Traced(module, (3, 224, 224))
    layers = traced.unit_bearing()
    tapped = TappedNetwork(traced, layers)
    units = unit_offsets(layers)[-1]
    images = torch.randn(given.images, 3, 224, 224).to(memory_format=torch.channels_last)
    numbers = torch.arange(given.images)
    batches = list(zip(images.split(given.batch_size), numbers.split(given.batch_size), strict=True))

    def bare() -> None:
        for batch, _ in batches:
            module(batch)

    def taps() -> None:
        for batch, _ in batches:
            tapped(batch)

    def mining() -> None:
        accumulators = new_accumulators(units, given.topk, torch.device("cpu")).values()
        for batch, place in batches:
            readings = tapped(batch)
            for accumulator in accumulators:
                accumulator.update(readings, place)
        for accumulator in accumulators:
            accumulator.state()

    candidates = {"bare forward": bare, "with taps": taps, "mining": mining}
    rounds = max(given.rounds, 5)
    print(f"{date.today()}  torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads, cpu")
    print(f"SqueezeNet 1.1, {len(layers)} layers, {units:,} units, k = {given.topk}, {given.images} images a round")
    with torch.inference_mode():
        as_it_comes = interleaved(candidates, rounds)
        show("memory as it comes", as_it_comes, given.images)
        if keep_freed_memory():
            kept = interleaved(candidates, rounds)
            show("freed memory kept, as actmine does", kept, given.images)
            gain = as_it_comes["bare forward"].median / kept["mining"].median
            print(f"mining with memory kept / bare forward as it comes (one after the other) = {gain:.2f}")
    ratio = as_it_comes["bare forward"].median / as_it_comes["mining"].median
    print(f"mining / bare forward = {ratio:.3f} (bar {BAR}: {'reached' if ratio >= BAR else 'missed'})")


def show(title: str, timings: dict[str, Timing], images: int) -> None:
    """Prints speed and share of the bare forward pass."""
    print(title)
    base = timings["bare forward"].median
    for name, timing in timings.items():
        speed, share = images / timing.median, base / timing.median
        spread = f"{min(timing.seconds):.2f} to {max(timing.seconds):.2f} s"
        print(f"  {name:<14}{speed:8.1f} images/s   {share:6.3f} of bare   ({spread})")


if __name__ == "__main__":
    main()
