"""All that mining makes of generated JPEGs but ascent and sheets, stage by stage, and what it says of ImageNet-val."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
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
from actmine.pipeline.words import MAPPED
from benchmarks.gpu.mining import K
from benchmarks.gpu.setting import Setting

IMAGES = 50_000
"""Of ImageNet's validation set."""
BAR = 60
KEEP = StatisticsOptions(K, maxima="none", min_support=1)
"""Of 50,000 images the matrix is too large to be made for a while; labels have few images each here, and all count."""
ASSUMED = (
    "beginning, end, winners, tables and neighbours take as long: they are of as many units, exemplars and labels",
    "the scan takes longer in proportion, its beginning too, and merging with the number of blocks",
    "an image wins as often as here, in a second run that keeps so many fewer exemplars and maps of each unit",
    "the images are in the system's memory, and the receptive fields of the network are not known yet",
    "neither visualizations, sheets nor a map of the units; imports and the download of weights are not counted",
)


def whole_run(setting: Setting, folder: Path) -> None:
    """Mines the images below `folder` and prints a line for each stage, measured and extrapolated."""
    record, seconds = _mined(setting, folder, KEEP, MAPPED)
    counts = record["counts"]
    fewer = IMAGES / counts["seen"]
    topk, maps = (max(round(most / fewer), 1) for most in (K, MAPPED))
    thin, _ = _mined(setting, folder, replace(KEEP, topk=topk, labels=False, sketch=0), maps)
    here, there = stages_of(record, seconds), extrapolated(record, seconds, thin)
    print(
        f"a whole run of {counts['seen']:,} JPEGs, {record['model']}, {len(record['layers'])} layers, "
        f"{record['units']:,} units, {counts['exemplars']:,} exemplars in {counts['images_with_exemplars']:,} images, "
        f"bf16, k = {K}, {MAPPED} maps of each unit; {IMAGES:,} images by it and by one with k = {topk}, maps of {maps}"
    )
    for name in here:
        print(f"  {name:<20}{here[name]:8.1f} s   extrapolated {there[name]:8.1f} s")
    setting.keep("whole run", **here)
    setting.keep("whole run, extrapolated", **there)
    all_of_it = sum(there.values())
    what = (
        f"ImageNet-val end to end, {record['model']}, without ascent and sheets, extrapolated from {counts['seen']:,}"
    )
    bar = setting.judged(what, all_of_it, BAR, "s", most=True)
    print(f"  {'all':<20}{sum(here.values()):8.1f} s   extrapolated {all_of_it:8.1f} s {bar}, if")
    for each in ASSUMED:
        print(f"    {each}")


def _mined(setting: Setting, folder: Path, keep: StatisticsOptions, maps: int) -> tuple[dict[str, Any], float]:
    """The record of a run of all layers, with its neighbours if it has sketches, and the seconds that it took."""
    start = time.perf_counter()
    network = load_network("resnet18" if setting.small else "resnet50", "random")
    traced = network.traced()
    dataset, layers = find_dataset(str(folder)), traced.unit_bearing()
    settings = MineSettings(keep, setting.batch_size, precision="bf16", compile="0", maps=maps, tree=find_tree("auto"))
    with TemporaryDirectory(prefix="actmine-run-") as place:
        run = Path(place) / "run"
        record = mine(dataset, network, traced, layers, run, setting.device, settings)
        if keep.sketch:
            record = find_neighbors(run, setting.device)
    return record, time.perf_counter() - start


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
        "beginning and end": whole - its["mine"] - neighbours,
        **apart,
        "winners": its["mine"] - sum(apart.values()),
        "neighbours": neighbours,
    }


def extrapolated(record: Mapping[str, Any], whole: float, thin: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each stage for `IMAGES` images; in the run `thin` an image wins as often as it would among so many."""
    seen = record["counts"]["seen"]
    shards = -(-IMAGES // FILES_PER_SHARD)
    together = -(-shards // most_blocks(record["units"], KEEP, IMAGES))
    found = stages_of(record, whole)
    found["scan"] *= IMAGES / seen
    found["merging"] *= -(-shards // together) / record["blocks"]
    of_pictures = {"pictures and maps": "pictures", "tables of pictures": "picture_tables"}
    return found | {name: thin["seconds"][its] * IMAGES / thin["counts"]["seen"] for name, its in of_pictures.items()}
