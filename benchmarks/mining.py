"""What does mining cost over a bare forward pass? `python -m benchmarks.mining`.

SqueezeNet 1.1, random weights, tensors in memory, all 26 layers, k = 50, channels_last, all cores. Every candidate has
a process of its own; they take turns, round by round. `bare` is the forward pass alone, of normalized tensors; `mining`
begins with 8-bit pixels and ends with the state of a block.

Two regimes: memory as it comes (the default of the C library, which maps large blocks anew each time) with the taps in
the plain pass, and memory kept with every core computing batches of its own, as the commands of actmine run.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date

import torch

from actmine.pipeline.cores import usable_cores
from actmine.pipeline.readings.accumulators import Feed, new_accumulators
from actmine.pipeline.readings.batch_index import BatchIndex
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import Readings, unit_offsets
from actmine.pipeline.scanning.compute import PRECISIONS, Compute, Runner, default_batch_size
from benchmarks.elsewhere import Elsewhere
from benchmarks.rounds import Timing, interleaved
from benchmarks.subject import PREPROCESSING, network, normalized, pixels, tapped

KEEP = StatisticsOptions()
CPU = torch.device("cpu")


def main() -> None:
    """Prints images/s of each candidate and the ratios of medians with their bars."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=9, help="counted rounds, at least 5")
    words.add_argument("--images", type=int, default=256)
    words.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        default=torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported(),
        help="bf16 as well; by default where this processor has instructions for it",
    )
    given = words.parse_args()
    print(f"{date.today()}  torch {torch.__version__}, {platform.machine()}, {usable_cores()} cores, cpu")
    if not given.bf16:
        print("bf16 is left out (--bf16)")
    made = {
        "bare, as it comes": (bare, "fp32", False, False),
        "mining, as it comes": (plain_mining, "fp32", False, False),
        "bare compiled, as it comes": (bare, "fp32", True, False),
        "mining compiled, as it comes": (plain_mining, "fp32", True, False),
        "bare bf16, as it comes": (bare, "bf16", False, False),
        "mining bf16, as it comes": (plain_mining, "bf16", False, False),
        "bare": (bare, "fp32", False, True),
        "mining": (mining, "fp32", False, True),
        "bare compiled": (bare, "fp32", True, True),
        "mining compiled": (mining, "fp32", True, True),
        "bare bf16": (bare, "bf16", False, True),
        "mining bf16": (mining, "bf16", False, True),
        "bare bf16 compiled": (bare, "bf16", True, True),
        "mining bf16 compiled": (mining, "bf16", True, True),
    }
    with ExitStack() as stack:
        candidates = {
            name: stack.enter_context(Elsewhere(make, given.images, precision, compiled, keep=keep))
            for name, (make, precision, compiled, keep) in made.items()
            if given.bf16 or precision != "bf16"
        }
        timings = interleaved(candidates, max(given.rounds, 5), warmup=2)
    for name, timing in timings.items():
        show(name, timing, given.images)
    print()
    for over, under, bar in (
        ("mining, as it comes", "bare, as it comes", 0.97),
        ("mining compiled, as it comes", "bare compiled, as it comes", 0.92),
        ("mining compiled, as it comes", "bare, as it comes", 1.5),
        ("mining bf16, as it comes", "bare bf16, as it comes", None),
        ("mining", "bare", 0.97),
        ("mining", "bare, as it comes", None),
        ("mining compiled", "bare compiled", 0.92),
        ("mining compiled", "bare", None),
        ("mining compiled", "bare, as it comes", 1.5),
        ("mining bf16", "bare bf16", None),
        ("mining bf16", "bare", None),
        ("mining bf16 compiled", "bare bf16 compiled", None),
    ):
        if over not in timings:
            continue
        ratio = timings[under].median / timings[over].median
        verdict = "" if bar is None else f"   (bar {bar}: {'reached' if ratio >= bar else 'missed'})"
        print(f"{over + ' / ' + under:<60}{ratio:6.3f}{verdict}")


def show(name: str, timing: Timing, images: int) -> None:
    """Prints a line: median speed and the spread of the rounds."""
    slow, fast = images / max(timing.seconds), images / min(timing.seconds)
    print(f"  {name:<30}{images / timing.median:8.1f} images/s   ({slow:.0f} to {fast:.0f})")


def bare(images: int, precision: str, compiled: bool, batch: int = 64) -> Callable[[], None]:
    """The forward pass alone, as one writes it: batches of 64, all threads in each."""
    module = network().to(PRECISIONS[precision])
    batches = normalized(images).to(PRECISIONS[precision]).split(batch)
    call = _compiled(module) if compiled else module

    @torch.inference_mode()
    def run() -> None:
        for part in batches:
            call(part)

    return run


def plain_mining(images: int, precision: str, compiled: bool, batch: int = 64) -> Callable[[], None]:
    """Taps in that pass, and accumulators."""
    taps = tapped()
    module = taps.network.to(PRECISIONS[precision])
    batches = normalized(images).to(PRECISIONS[precision]).split(batch)
    numbers = torch.arange(images).split(batch)
    call = _compiled(module) if compiled else module

    @torch.inference_mode()
    def run() -> None:
        feed = Feed(new_accumulators(unit_offsets(taps.layers)[-1], KEEP, CPU))
        for part, places in zip(batches, numbers, strict=True):
            readings = Readings(*call(part))
            feed(readings, BatchIndex.of(places))
        for accumulator in feed.settle().values():
            accumulator.state()

    return run


def mining(images: int, precision: str, compiled: bool) -> Callable[[], None]:
    """As the commands run it."""
    size = default_batch_size(CPU)
    runner = Runner(tapped(), PREPROCESSING, Compute(CPU, precision, compiled, size), usable_cores())
    memory = pixels(images)
    starts = range(0, images, size)

    def run() -> None:
        feed = Feed(new_accumulators(runner.units, KEEP, CPU))
        for start, readings in runner.map(starts, lambda start: (start, memory[start : start + size])):
            assert readings is not None
            feed(readings, BatchIndex.of(torch.arange(start, start + len(readings.maximum))))
        for accumulator in feed.settle().values():
            accumulator.state()

    return run


def _compiled(module: torch.nn.Module) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    import torch._inductor.config as inductor

    inductor.freezing = True
    return torch.compile(module, dynamic=False)


if __name__ == "__main__":
    main()
