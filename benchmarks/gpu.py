"""What does mining cost on a GPU? `make bench-gpu`, or `PYTHONPATH=. python -m benchmarks.gpu` in a plain checkout.

Needs torch, torchvision, numpy, pyarrow and pandas, no data and no network. ResNet-50 and GoogLeNet with random
weights in bf16 and channels_last, all unit-bearing layers, k = 50: the bare forward pass against mining, which begins
with 8-bit pixels on the host; the reductions alone against copying memory; and steps of gradient ascent.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import date
from functools import partial

import numpy as np
import torch
import torchvision

from benchmarks.rounds import Timing, interleaved
from pipeline.ascent.climb import Climb
from pipeline.ascent.presets import find_preset
from pipeline.cores import usable_cores
from pipeline.network.layers import Traced
from pipeline.preprocessing.images import Normalize, Preprocessing
from pipeline.readings.accumulators import Feed, new_accumulators
from pipeline.readings.keep import Keep
from pipeline.readings.seen import Seen
from pipeline.readings.taps import TappedNetwork, read_map, read_rows
from pipeline.receptive_fields.receptive_field import receptive_fields
from pipeline.scanning.compute import PRECISIONS, Compute, Runner

BAR = 0.90
K = 50
HOW = Preprocessing.usual(256, (224, 224))
MAPS = ((64, 112), (256, 56), (512, 28), (1024, 14), (2048, 7))
ASCENT_UNITS = 48


def main() -> None:
    """Prints ratios of medians; says so where there is no GPU."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--device", default="cuda", help="cpu tries the benchmark itself")
    words.add_argument("--precision", choices=list(PRECISIONS), default="bf16")
    words.add_argument("--models", default="resnet50,googlenet")
    words.add_argument("--images", type=int, default=2048, help="images a round")
    words.add_argument("--batch-size", type=int, default=256)
    words.add_argument("--rounds", type=int, default=7)
    words.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    given = words.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("No GPU is at hand: nothing to measure here. `make bench` measures the CPU.")
        return
    device = torch.device(given.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(f"{date.today()}  torch {torch.__version__}, {name}, {given.precision}, batches of {given.batch_size}")
    for model in given.models.split(","):
        for compiled in (False, True) if given.compile else (False,):
            how = Compute(device, given.precision, compiled, given.batch_size)
            mining(model, how, given.images, given.rounds)
    reductions(device, PRECISIONS[given.precision], given.batch_size, given.rounds)
    for model, layer in (("resnet50", "layer3.5.relu_2"), ("googlenet", "inception4c.branch2.1.relu")):
        ascent(model, layer, device)


def network(model: str) -> torch.nn.Module:
    """The network with random weights, in channels_last."""
    torch.manual_seed(0)
    options = {"init_weights": True, "aux_logits": False} if model == "googlenet" else {}
    return torchvision.models.get_model(model, weights=None, **options).eval().to(memory_format=torch.channels_last)


def mining(model: str, how: Compute, images: int, rounds: int) -> None:
    """Bare forward of tensors on the device, taps alone of the same, and mining from 8-bit pixels on the host."""
    module = network(model)
    traced = Traced(module, (3, 224, 224))
    tapped = TappedNetwork(traced, traced.unit_bearing())
    runner = Runner(tapped, HOW, how, usable_cores())
    bare = network(model).to(how.device, PRECISIONS[how.precision])
    call = torch.compile(bare, dynamic=False) if how.compiled else bare
    pixels = np.random.default_rng(0).integers(0, 256, (how.batch_size, 224, 224, 3), dtype=np.uint8)
    batch = Normalize(HOW, how.device)(torch.from_numpy(pixels).to(how.device)).to(PRECISIONS[how.precision])
    starts = range(0, images, how.batch_size)

    @torch.inference_mode()
    def forward() -> None:
        for _ in starts:
            call(batch)
        finish(how.device)

    def mine() -> None:
        feed = Feed(new_accumulators(runner.units, Keep(K), how.device))
        for start, readings in runner.map(starts, lambda start: (start, pixels)):
            assert readings is not None
            numbers = torch.arange(start, start + len(pixels)).to(how.device, non_blocking=True)
            feed(readings, Seen.of(numbers))
        for accumulator in feed.settle().values():
            accumulator.state()
        finish(how.device)

    timings = interleaved({"bare": forward, "mining": mine}, rounds, warmup=2)
    ratio = timings["bare"].median / timings["mining"].median
    mode = "compiled" if how.compiled else "eager"
    print(f"{model}, {mode}, {len(tapped.layers)} layers, {runner.units:,} units, k = {K}")
    for each, timing in timings.items():
        print(f"  {each:<8}{len(starts) * how.batch_size / timing.median:10.0f} images/s")
    print(f"  mining / bare forward = {ratio:.3f} (bar {BAR}: {'reached' if ratio >= BAR else 'missed'})")


def reductions(device: torch.device, precision: torch.dtype, batch: int, rounds: int) -> None:
    """Ways to read a map, as bytes of the map a second, against copying it (which moves twice as many)."""
    print("reductions, GB/s of the map read")
    for channels, side in MAPS:
        image = torch.randn(batch, channels, side, side, device=device, dtype=precision)
        image = image.to(memory_format=torch.channels_last)
        other = torch.empty_like(image)
        compiled = torch.compile(read_rows, dynamic=False)
        ways: dict[str, Callable[[], object]] = {
            "copy": partial(other.copy_, image),
            "tap": partial(read_map, image),
            "rows compiled": partial(compiled, image),
            "amax": partial(image.amax, (2, 3)),
            "max": partial(image.flatten(2).max, -1),
        }
        timings = interleaved({name: repeated(way, device) for name, way in ways.items()}, rounds, warmup=2)
        speeds = ", ".join(f"{name} {_speed(image, timing):.0f}" for name, timing in timings.items())
        print(f"  [{batch}, {channels}, {side}, {side}]  {speeds}")


def repeated(way: Callable[[], object], device: torch.device, times: int = 10) -> Callable[[], None]:
    """`way` so many times, waiting for the last."""

    @torch.inference_mode()
    def run() -> None:
        for _ in range(times):
            way()
        finish(device)

    return run


def _speed(image: torch.Tensor, timing: Timing, times: int = 10) -> float:
    return image.nbytes * times / timing.median / 1e9


def ascent(model: str, layer: str, device: torch.device) -> None:
    """Unit-steps a second of the default recipe, with one batch of units of a late layer, finish and all."""
    traced = Traced(network(model), (3, 224, 224))
    (chosen,) = traced.choose(layer)
    preset = find_preset("default")
    field = receptive_fields(traced, [chosen])[chosen.name]
    climb = Climb(HOW, traced, chosen, field, preset, device)
    units = list(range(ASCENT_UNITS))
    steps = sum(stage.steps for stage in preset.stages)

    def draw() -> None:
        climb(units, units, 0, 0)
        finish(device)

    seconds = interleaved({"draw": draw}, 3)["draw"].median
    print(f"ascent, {model} {layer}: {ASCENT_UNITS * steps / seconds:,.0f} unit-steps/s ({steps} steps, fp32)")


def finish(device: torch.device) -> None:
    """Waits for what the device has been given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
