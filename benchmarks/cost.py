"""What does a run cost beyond its scan? `python -m benchmarks.cost --images PHOTOGRAPHS --weights SQUEEZENET`.

The seconds of each stage as multiples of the scan's, as run.json has them, and the bytes of each table as multiples of
those of the images that exemplars name: for the demo; for photographs and SqueezeNet 1.1 `features.*`, k = 50; and for
24 of the photographs and ViT-B/32 (timm), k = 5. Without visualizations, focus, checks and sheets. Without `--images`,
pictures of noise.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import pyarrow.parquet as pq

from actmine.pipeline.cores import usable_cores
from benchmarks.photographs import photographs

COUNT, FEW = 622, 24
MOST_MB = 60
"""Bar of the run of 24 photographs, all but its sketches (MB)."""
MOST_TIMES = 13.0
"""Bar of exemplars, pictures and crops of the photographs: a third of what they took with a crop in every row."""
_WITHOUT = ("--no-visualize", "--no-sheets", "--focus", "0", "--check-crops", "0")
_PICTURED = ("exemplars", "pictures", "crops")


def main() -> None:
    """Prints a block for each run."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--images", type=Path, help="a folder of images; generated ones by default")
    words.add_argument("--weights", default="random", help="of SqueezeNet 1.1; a file may lack the head")
    words.add_argument("--pictures", default="", help="as of `mine`")
    given = words.parse_args()
    images = given.images or photographs(Path(gettempdir()) / f"actmine-photographs-{COUNT}", COUNT)
    more = ["--pictures", given.pictures] if given.pictures else []
    print(f"{date.today()}  {usable_cores()} cores")
    with TemporaryDirectory() as folder:
        few = some_of(images, Path(folder) / "few", FEW)
        squeezenet = ["--model", "squeezenet1_1", "--weights", given.weights, "--layers", "features.*"]
        vit = ["--model", "timm/vit_base_patch32_224", "--weights", "random", "--topk", "5"]
        told("demo", mined(Path(folder), *more), {})
        cost = mined(Path(folder), "--dataset", str(images), *squeezenet, *more)
        told("photographs, SqueezeNet 1.1", cost, {_PICTURED: MOST_TIMES})
        cost = mined(Path(folder), "--dataset", str(few), *vit, *more)
        told(f"{FEW} photographs, ViT-B/32", cost, {})
        size = sum(nbytes for name, nbytes in cost["bytes"].items() if name != "sketches") / 1e6
        print(f"  all but sketches: {size:.1f} MB (bar {MOST_MB} MB: {_verdict(size, MOST_MB)})")


def some_of(images: Path, folder: Path, count: int) -> Path:
    """A folder with `count` images spread evenly over those below another."""
    every = sorted(path for path in images.rglob("*") if path.is_file())
    folder.mkdir()
    for number in range(count):
        path = every[number * len(every) // count]
        shutil.copy(path, folder / f"{number:05d}{path.suffix}")
    return folder


def mined(folder: Path, *words: str) -> dict[str, Any]:
    """Mines in a process of its own: `seconds` of each stage, `bytes` of each table and of all `images`, the latter by
    what those that exemplars name have."""
    with TemporaryDirectory(dir=folder) as place:
        run = Path(place) / "run"
        command = [sys.executable, "-m", "actmine", "mine", *words, *_WITHOUT, "--run", str(run), "--json"]
        record = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        tables = [
            path for path in run.iterdir() if path.suffix == ".parquet" or (path.is_dir() and path.name != "state")
        ]
        seconds = dict(record["seconds"])
        seconds["neighbors"] = record.get("neighbors", {}).get("seconds", 0.0)
        return {
            "units": record["units"], "seen": record["counts"]["seen"], "exemplars": record["counts"]["exemplars"],
            "seconds": seconds, "bytes": {path.stem: _bytes_of(path) for path in sorted(tables)},
            "images": sum(pq.read_table(run / "images.parquet", columns=["nbytes"])["nbytes"].to_pylist()),
        }  # fmt: skip


def told(name: str, cost: Mapping[str, Any], bars: Mapping[tuple[str, ...], float]) -> None:
    """Prints what a run cost."""
    scan, images, sizes = cost["seconds"]["scan"], cost["images"], cost["bytes"]
    print(f"{name}: {cost['seen']:,} images, {images / 1e6:.1f} MB; {cost['units']:,} units, "
          f"{cost['exemplars']:,} exemplars; scan {scan:.1f} s")  # fmt: skip
    for stage, seconds in cost["seconds"].items():
        if stage not in ("scan", "mine"):
            print(f"  {stage:<16}{seconds:8.1f} s   {seconds / scan:6.2f} x the scan")
    for table, nbytes in sorted(sizes.items(), key=lambda item: -item[1]):
        if nbytes > 0.005 * images:
            print(f"  {table:<16}{nbytes / 1e6:8.1f} MB  {nbytes / images:6.2f} x the images")
    for tables, bar in bars.items():
        times = sum(sizes.get(table, 0) for table in tables) / images
        print(f"  {', '.join(tables)}: {times:.2f} x the images (bar {bar}: {_verdict(times, bar)})")


def _verdict(value: float, bar: float) -> str:
    return "reached" if value <= bar else "missed"


def _bytes_of(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


if __name__ == "__main__":
    main()
