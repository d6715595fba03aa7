"""From generated JPEGs of ImageNet's sizes through ResNet-50, and what of it decoding and the network take alone.

Then a whole run of them (`whole_run.py`). They lie in ImageNet's 1,000 classes.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from actmine.pipeline.allocator import keep_freed_memory
from actmine.pipeline.cores import usable_cores
from actmine.pipeline.datasets.batches import read_batches
from actmine.pipeline.datasets.sources import blocks_of, find_dataset
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import TappedNetwork
from actmine.pipeline.scanning.compute import Compute, Runner
from actmine.pipeline.scanning.scan import ScanSettings, scan
from actmine.pipeline.tables.label_tree import CLASSES, find_tree
from benchmarks.gpu.mining import HOW, K, network
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.whole_run import whole_run
from benchmarks.photographs import write_photograph

BAR = 0.90
DISTINCT, IMAGES = 625, 5_000


def end_to_end(setting: Setting) -> None:
    """The scan against the slower of decoding alone and the network alone; a whole run."""
    distinct, images = (16, 64) if setting.small else (DISTINCT, IMAGES)
    keep_freed_memory()
    folder = Path(tempfile.mkdtemp(prefix="actmine-photographs-"))
    try:
        write_photographs(folder, distinct, images, 8 if setting.small else CLASSES)
        _measured(setting, folder)
        whole_run(setting, folder)
    finally:
        shutil.rmtree(folder)


def write_photographs(folder: Path, distinct: int, images: int, classes: int) -> None:
    """So many pictures, of which some are distinct, in as many folders as classes, which have ImageNet's names."""
    tree = find_tree("auto")
    assert tree is not None
    places = [folder / name for name in list(tree.parent)[:classes]]
    for place in places:
        place.mkdir()
    first = [places[number % classes] for number in range(distinct)]
    with ProcessPoolExecutor(usable_cores(), get_context("spawn")) as pool:
        list(pool.map(write_photograph, first, range(distinct)))
    for number in range(distinct, images):
        same = number % distinct
        (places[number % classes] / f"{number:05d}.jpg").hardlink_to(first[same] / f"{same:05d}.jpg")


def _measured(setting: Setting, folder: Path) -> None:
    cores = usable_cores()
    dataset = find_dataset(str(folder))
    how = Compute(setting.device, "bf16", False, setting.batch_size)
    traced = Traced(network("resnet18" if setting.small else "resnet50"), (3, 224, 224))
    runner = Runner(TappedNetwork(traced, traced.unit_bearing()), HOW, how, cores)
    settings = ScanSettings(HOW, StatisticsOptions(K, maxima="none"), how)
    speed: dict[str, float] = {}
    for kind, processes in (("threads", 0), ("processes", max(cores - 1, 1))):
        start = time.perf_counter()
        read = partial(read_batches, dataset.shards, HOW, setting.batch_size, cores, processes=processes)
        seen = sum(batch.samples for batch in read())
        speed[f"decode in {kind}"] = seen / (time.perf_counter() - start)
    pixels = torch.randint(0, 256, (setting.batch_size, 224, 224, 3), dtype=torch.uint8, device=setting.device)
    runner(pixels)
    setting.finish()
    start = time.perf_counter()
    for _ in range(2 if setting.small else 10):
        runner(pixels)
    setting.finish()
    speed["network"] = (2 if setting.small else 10) * setting.batch_size / (time.perf_counter() - start)
    for _ in range(2):
        start = time.perf_counter()
        seen = sum(sum(state.shards["seen"].to_pylist()) for state in scan(blocks_of(dataset, 4), runner, settings))
        speed["scan"] = max(speed.get("scan", 0.0), seen / (time.perf_counter() - start))
    limit = min(max(speed["decode in threads"], speed["decode in processes"]), speed["network"])
    print(f"from {seen:,} JPEGs, {cores} cores, images/s")
    for name, value in speed.items():
        print(f"  {name:<22}{value:9.0f}")
    ratio = speed["scan"] / limit
    bar = setting.judged("scan of JPEGs / slower of decoding and network", ratio, BAR)
    print(f"  scan / slower of decoding and network = {ratio:.3f} {bar}", flush=True)
    setting.keep("files", ratio=ratio, **speed)
