"""Mining against the bare forward pass of tensors on the device: bf16, channels_last, all units, k = 50."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import nn

from actmine.pipeline.cores import usable_cores
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.readings.accumulators import Feed, new_accumulators
from actmine.pipeline.readings.batch_index import BatchIndex
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import TappedNetwork
from actmine.pipeline.scanning.compute import Compute, Runner
from benchmarks.gpu.setting import Setting

BAR, MOST_GB = 0.90, 8
K = 50
HOW = Preprocessing.usual(256, (224, 224))
LABELS = 10  # of a block of a sorted folder, about
DTYPE = torch.bfloat16
BATCHES = 8
"""Of a round."""


def network(model: str) -> nn.Module:
    """The network with random weights, in channels_last."""
    torch.manual_seed(0)
    return torchvision.models.get_model(model, weights=None).eval().to(memory_format=torch.channels_last)


def resnet(setting: Setting) -> None:
    """ResNet-50, eager and compiled."""
    for compiled in (False, True):
        _mining(setting, "resnet18" if setting.small else "resnet50", compiled)


def vit(setting: Setting) -> None:
    """ViT-B/16, eager and compiled."""
    for compiled in (False,) if setting.small else (False, True):
        _mining(setting, "vit_b_16", compiled)


class _Pass:
    """A model's runner and accumulators, fed with the same batches of 8-bit pixels."""

    def __init__(self, setting: Setting, model: str, how: Compute) -> None:
        module = network(model)
        traced = Traced(module, (3, 224, 224))
        self.setting, self.runner = (
            setting,
            Runner(TappedNetwork(traced, traced.unit_bearing()), HOW, how, usable_cores()),
        )
        shape = (how.batch_size, 224, 224, 3)
        self.host = torch.randint(0, 256, shape, dtype=torch.uint8)
        self.pixels = self.host.to(setting.device)

    def mine(self, batches: int, pixels: torch.Tensor) -> None:
        """All that is kept by default, of so many batches."""
        feed = Feed(new_accumulators(self.runner.units, StatisticsOptions(K), self.setting.device))
        size = len(pixels)
        opened = range(0, batches * size, size)
        for start, readings in self.runner.map(opened, lambda start: (start, pixels)):
            assert readings is not None
            numbers = torch.arange(start, start + size, device=self.setting.device)
            feed(readings, BatchIndex.of(numbers, labels=[number % LABELS for number in range(size)]))
        feed.settle()
        self.setting.finish()

    def tap(self) -> None:
        """The tapped network alone."""
        self.runner(self.pixels)


def _mining(setting: Setting, model: str, compiled: bool) -> None:
    how = Compute(setting.device, "bf16", compiled, setting.batch_size)
    mode = "compiled" if compiled else "eager"
    its = _Pass(setting, model, how)
    bare = network(model).to(setting.device, DTYPE)
    call = torch.compile(bare, dynamic=False) if compiled else bare
    batch = Normalize(HOW, setting.device)(its.pixels).to(DTYPE)
    batches = 2 if setting.small else BATCHES

    def several(way: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(batches):
                way()

        return run

    ways: dict[str, Callable[[], object]] = {
        "bare": several(partial(call, batch)),
        "taps": several(its.tap),
        "mining": partial(its.mine, batches, its.pixels),
        "from the host": partial(its.mine, batches, its.host),
    }
    if setting.cuda:
        torch.cuda.reset_peak_memory_stats()
    timings = setting.timed(ways)
    images = batches * setting.batch_size
    speed = {name: images / timing.median for name, timing in timings.items()}
    ratio = speed["mining"] / speed["bare"]
    print(f"{model}, bf16, {mode}, {len(its.runner.tapped.layers)} layers, {its.runner.units:,} units, k = {K}")
    for name, value in speed.items():
        print(f"  {name:<16}{value:9.0f} images/s   {value / speed['bare']:.3f}")
    bar = setting.judged(f"mining / bare forward, {model}, bf16, {mode}", ratio, BAR)
    print(f"  mining / bare forward = {ratio:.3f} {bar}", flush=True)
    if setting.cuda:
        peak = torch.cuda.max_memory_allocated() / 1e9
        bar = setting.judged(f"peak device memory, {model}, {mode}", peak, MOST_GB, "GB", most=True)
        print(f"  peak device memory {peak:.2f} GB {bar}, captured: {its.runner.captured}", flush=True)
        speed["peak GB"] = peak
    setting.keep(f"{model} {mode}", ratio=ratio, **speed)


def batches(setting: Setting) -> None:
    """Images a second and memory of the tapped ResNet-50 by batch size."""
    print("resnet50, bf16, eager, by batch size")
    for size in (2, 4) if setting.small else (32, 64, 128, 256, 512):
        if setting.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        its = _Pass(setting, "resnet18" if setting.small else "resnet50", Compute(setting.device, "bf16", False, size))
        rounds = 2 if setting.small else max(2048 // size, 1)
        timing = setting.timed({"mining": partial(its.mine, rounds, its.pixels)})["mining"]
        peak = torch.cuda.max_memory_allocated() / 1e9 if setting.cuda else 0.0
        print(f"  {size:5}{rounds * size / timing.median:10.0f} images/s   {peak:.2f} GB", flush=True)
        setting.keep("batches", **{f"{size} images/s": rounds * size / timing.median, f"{size} GB": peak})


def accumulators(setting: Setting) -> None:
    """Milliseconds of each accumulator for a batch of readings of ResNet-50's units."""
    units = 64 if setting.small else 26_560
    images = setting.batch_size
    made = new_accumulators(
        units, StatisticsOptions(K, direction="both", bands=(50.0,), positions="sample"), setting.device
    )
    from actmine.pipeline.readings.taps import Readings

    draw = torch.Generator(setting.device).manual_seed(0)
    values = torch.randn(images, units, generator=draw, device=setting.device).relu()
    place = torch.randint(0, 49, (images, units), generator=draw, device=setting.device, dtype=torch.int32)
    readings = Readings(values, place, -values, place, values)
    labels = [number % LABELS for number in range(images)]
    started = dict.fromkeys(made, 0)

    def update(name: str) -> None:
        started[name] += images
        numbers = torch.arange(started[name], started[name] + images, device=setting.device)
        made[name].update(readings, BatchIndex.of(numbers, labels=labels))

    timings = setting.timed({name: partial(update, name) for name in made}, 5)
    print(f"accumulators, ms for {images} images of {units:,} units")
    for name, timing in timings.items():
        milliseconds = 1e3 * statistics.median(timing.seconds) / 5
        print(f"  {name:<12}{milliseconds:8.3f}")
        setting.keep("accumulators", **{name: milliseconds})


def profile(setting: Setting) -> None:
    """The kernels that mining ResNet-50 and ViT-B/16 spend most on."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if setting.cuda else [])]
    for model in ("resnet18",) if setting.small else ("resnet50", "vit_b_16"):
        its = _Pass(setting, model, Compute(setting.device, "bf16", False, setting.batch_size))
        its.mine(2, its.pixels)
        with profiled(activities=kinds) as found:
            its.mine(2, its.pixels)
        by = "self_cuda_time_total" if setting.cuda else "self_cpu_time_total"
        table = found.key_averages().table(sort_by=by, row_limit=45, max_name_column_width=90)
        if setting.out is not None:
            setting.out.mkdir(parents=True, exist_ok=True)
            (setting.out / f"profile-{model}.txt").write_text(table)
        else:
            print(table)
