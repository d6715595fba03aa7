"""All that mining makes of generated JPEGs but ascent and sheets, stage by stage, and what it says of ImageNet-val."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from actmine.pipeline.datasets.sources import FILES_PER_SHARD, find_dataset
from actmine.pipeline.network.models import load_network
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.relations.neighbors import find_neighbors
from actmine.pipeline.scanning.limits import most_blocks
from actmine.pipeline.stages.mine import MineSettings, mine
from actmine.pipeline.tables.label_tree import find_tree
from benchmarks.gpu.mining import K
from benchmarks.gpu.setting import Setting

IMAGES = 50_000
"""Of ImageNet's validation set."""
BAR = 60
KEEP = StatisticsOptions(K, maxima="none", min_support=1)
"""Of 50,000 images the matrix is too large to be made for a while; labels have few images each here, and all count."""
ASSUMED = (
    "beginning, winners, tables and neighbours take as long: they are of as many units, exemplars and labels",
    "the scan takes longer in proportion, its beginning too",
    "every image wins somewhere, and costs what an image that wins costs here: its crops are fewer then",
    "states are merged in proportion to the number of blocks",
    "the images are in the system's memory, and the receptive fields of the network are not known yet",
    "neither visualizations, sheets nor a map of the units; imports and the download of weights are not counted",
)


def whole_run(setting: Setting, folder: Path) -> None:
    """Mines the images below `folder` and prints a line for each stage, measured and extrapolated."""
    model = "resnet18" if setting.small else "resnet50"
    start = time.perf_counter()
    network = load_network(model, "random")
    traced = network.traced()
    dataset, layers = find_dataset(str(folder)), traced.unit_bearing()
    settings = MineSettings(KEEP, setting.batch_size, precision="bf16", compile="0", tree=find_tree("auto"))
    with TemporaryDirectory(prefix="actmine-run-") as place:
        run = Path(place) / "run"
        mine(dataset, network, traced, layers, run, setting.device, settings)
        record = find_neighbors(run, setting.device)
    stages = stages_of(record, time.perf_counter() - start)
    scale = scales(record)
    counts = record["counts"]
    print(
        f"a whole run of {counts['seen']:,} JPEGs, {model}, {len(layers)} layers, {record['units']:,} units, "
        f"{counts['exemplars']:,} exemplars in {counts['images_with_exemplars']:,} images, bf16, k = {K}; "
        f"ImageNet-val by it, which is extrapolated"
    )
    for name, seconds in stages.items():
        print(f"  {name:<22}{seconds:7.1f} s x {scale[name]:5.1f} = {seconds * scale[name]:7.1f} s")
        setting.keep("whole run", **{name: seconds, f"{name}, times": scale[name]})
    here, there = sum(stages.values()), sum(seconds * scale[name] for name, seconds in stages.items())
    what = f"ImageNet-val end to end, {model}, without ascent and sheets, extrapolated from {counts['seen']:,} images"
    bar = setting.judged(what, there, BAR, "s", most=True)
    print(f"  {'all':<22}{here:7.1f} s         {there:7.1f} s {bar}, if:")
    for each in ASSUMED:
        print(f"    {each}")


def stages_of(record: Mapping[str, Any], whole: float) -> dict[str, float]:
    """Seconds of each stage of a finished run with its neighbours, which took `whole` seconds in all."""
    its = record["seconds"]
    apart = {
        "scan": its["scan"],
        "merging": its["merge"],
        "pictures and maps": its["pictures"],
        "tables of pictures": its["picture_tables"],
        "tables": its["tables"],
    }
    neighbours = record["neighbors"]["seconds"]
    return {
        "beginning": whole - its["mine"] - neighbours,
        **apart,
        "winners": its["mine"] - sum(apart.values()),
        "neighbours": neighbours,
    }


def scales(record: Mapping[str, Any]) -> dict[str, float]:
    """How many times as long each stage takes of `IMAGES` images."""
    counts = record["counts"]
    shards = -(-IMAGES // FILES_PER_SHARD)
    together = -(-shards // most_blocks(record["units"], KEEP, IMAGES))
    pictures = IMAGES / counts["images_with_exemplars"]
    return {
        "beginning": 1.0,
        "scan": IMAGES / counts["seen"],
        "merging": -(-shards // together) / record["blocks"],
        "pictures and maps": pictures,
        "tables of pictures": pictures,
        "tables": 1.0,
        "winners": 1.0,
        "neighbours": 1.0,
    }
