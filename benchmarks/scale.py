"""What do many units cost? `python -m benchmarks.scale`.

Folding a block's state into the merged one, for the 30,000 units of a large network and the 1,000,000 of a sparse
autoencoder, k = 100; and looking one unit up in the `exemplars/` of 26,000 units with 50 exemplars each, by
`pd.read_parquet` with filters and by `Run.exemplars`; and its crops, out of the pictures of 50,000 images.
"""

from __future__ import annotations

import io
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sized
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image

from actmine.pipeline.allocator import keep_freed_memory
from actmine.pipeline.cores import usable_cores
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.topk import TopK, pack
from actmine.pipeline.run import Run
from actmine.pipeline.scanning.limits import most_blocks
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import few_bytes, image_column, units_a_part, write_rows, write_table
from actmine.schemas.exemplars import EXEMPLARS, FOCUS
from actmine.schemas.images import IMAGES
from actmine.schemas.pictures import PICTURES
from actmine.schemas.shards import SHARDS

K, MANY = 100, 1_281_167
LAYERS, UNITS, EXEMPLARS_EACH, MEMBERS = 26, 1000, 50, 50_000
BAR_MS = 50
_WHOLE, _REDUCED = (500, 375), (341, 256)


def main() -> None:
    """Prints merge times a block and for a whole run, then look-ups."""
    keep_freed_memory()
    torch.set_num_threads(usable_cores())
    print(f"{date.today()}  {usable_cores()} cores")
    for units, blocks in ((30_000, 5), (1_000_000, 2)):
        seconds, most = merging(units, blocks), most_blocks(units, StatisticsOptions(K), MANY)
        print(
            f"merge {units:,} units, k = {K}: {seconds:.2f} s a block, "
            f"{seconds * most / 60:.1f} minutes for {most:,} blocks, {units * K * 12 / 1e6:,.0f} MB of top-k in each"
        )
    with TemporaryDirectory() as folder:
        written = exemplar_tables(Path(folder))
        print(f"exemplars of {LAYERS * UNITS:,} units x {EXEMPLARS_EACH}, {MEMBERS:,} pictures: {written / 1e9:.1f} GB")
        lookups(Path(folder))


def merging(units: int, blocks: int) -> float:
    """Median seconds to take one more block's top-k in."""
    merged = _block(units, 0)
    seconds = []
    for number in range(1, blocks + 1):
        block = _block(units, number)
        start = time.perf_counter()
        block.shift(1000 * number)
        merged.merge(block)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _block(units: int, seed: int) -> TopK:
    random = torch.Generator().manual_seed(seed)
    activation = torch.randn(units, K, generator=random)
    image = torch.arange(K).expand(units, K)
    keys = pack(activation, image).sort(dim=1, descending=True)[0]
    return TopK.from_state({"keys": keys, "positions": torch.zeros(units, K, dtype=torch.int32)})


def exemplar_tables(run: Path) -> int:
    """Writes exemplars, images and their pictures as mining does; the bytes they take."""
    random = np.random.default_rng(0)
    for layer in range(LAYERS):
        step = units_a_part(EXEMPLARS_EACH)
        parts = (
            _exemplars(random, f"layer{layer}", range(first, min(first + step, UNITS)))
            for first in range(0, UNITS, step)
        )
        write_table(table_file(run, "exemplars", f"layer{layer}"), EXEMPLARS, parts)
    write_table(run / "pictures.parquet", PICTURES, few_bytes(_pictures(random), "picture"))
    images = (
        {"image_id": number, "key": f"n{number:08d}", "shard": 0, "path": f"n{number:08d}.jpg", "offset": 0,
         "nbytes": 1, "width": _WHOLE[0], "height": _WHOLE[1], "label": number % 9, "label_name": f"class {number % 9}"}
        for number in range(MEMBERS)
    )  # fmt: skip
    write_rows(run / "images.parquet", IMAGES, list(images))
    write_rows(run / "shards.parquet", SHARDS, [dict.fromkeys(SHARDS.names, 0) | {"url": str(run / "gone.tar")}])
    (run / "run.json").write_text(json.dumps({"direction": "max"}))
    return sum(path.stat().st_size for path in run.rglob("*.parquet"))


def _pictures(random: np.random.Generator) -> Iterator[pa.Table]:
    """A thousand at a time, about 30 kB each, 16 different ones."""
    drawn = []
    for _ in range(16):
        coarse = Image.fromarray(random.integers(0, 256, (128, 171, 3), dtype=np.uint8))
        data = io.BytesIO()
        coarse.resize(_REDUCED, Image.Resampling.BICUBIC).save(data, "JPEG", quality=80)
        drawn.append(data.getvalue())
    for first in range(0, MEMBERS, 1000):
        numbers = range(first, min(first + 1000, MEMBERS))
        columns = {
            "image_id": pa.array(numbers, pa.int64()),
            "width": pa.array([_REDUCED[0]] * len(numbers), pa.int32()),
            "height": pa.array([_REDUCED[1]] * len(numbers), pa.int32()),
            "picture": image_column([drawn[number % 16] for number in numbers]),
        }
        yield pa.table(columns, schema=PICTURES)


def _exemplars(random: np.random.Generator, layer: str, units: range) -> pa.Table:
    count = len(units) * EXEMPLARS_EACH
    numbers = {name: pa.array(random.integers(0, 200, count)) for name in ("y", "x", "label")}
    corner = random.integers(0, 120, (2, count))
    columns = {
        "layer": pa.array([layer] * count),
        "unit": pa.array(np.repeat(np.array(units), EXEMPLARS_EACH)),
        "rank": pa.array(np.tile(np.arange(EXEMPLARS_EACH), len(units))),
        "band": pa.array(["top"] * count),
        "activation": pa.array(random.random(count, np.float32)),
        "key": pa.array([f"n{number:08d}" for number in range(count)]),
        "label_name": pa.array(["a class"] * count),
        "clipped": pa.array(np.zeros(count, bool)),
        "image_id": pa.array(random.integers(0, MEMBERS, count)),
        **numbers,
        **dict(zip(("left", "top", "right", "bottom"), map(pa.array, (*corner, *(corner + 250))), strict=True)),
        **{side: pa.array(random.integers(0, 224, count)) for side in FOCUS},
    }
    missing = {field.name: pa.nulls(count, field.type) for field in EXEMPLARS if field.name not in columns}
    return pa.table([(missing | columns)[field.name].cast(field.type) for field in EXEMPLARS], schema=EXEMPLARS)


def lookups(run: Path) -> None:
    """Warm look-ups of one unit of one layer."""
    folder = str(run / "exemplars")
    random = np.random.default_rng(1)
    opened = Run(run)

    def by_pandas(layer: str, unit: int) -> pd.DataFrame:
        return pd.read_parquet(folder, filters=[("layer", "==", layer), ("unit", "==", unit)])

    def by_file(layer: str, unit: int) -> pd.DataFrame:
        return pd.read_parquet(f"{folder}/{layer}.parquet", filters=[("unit", "==", unit)])

    def with_crops(layer: str, unit: int) -> list[Image.Image | None]:
        return opened.crops(opened.exemplars(layer, unit).to_dict("records"))

    ways: dict[str, Callable[[str, int], Sized]] = {
        "pandas, the folder": by_pandas, "pandas, the layer's file": by_file, "Run.exemplars": opened.exemplars,
        "the same with its crops": with_crops,
    }  # fmt: skip
    for name, way in ways.items():
        seconds = []
        for _ in range(12):
            layer, unit = f"layer{random.integers(LAYERS)}", int(random.integers(UNITS))
            start = time.perf_counter()
            found = way(layer, unit)
            seconds.append(time.perf_counter() - start)
            assert len(found) == EXEMPLARS_EACH
        median = statistics.median(seconds[2:]) * 1e3
        verdict = "" if way is with_crops else f" (bar {BAR_MS} ms: {'reached' if median < BAR_MS else 'missed'})"
        print(f"  {name:<26}{median:6.1f} ms{verdict}")


if __name__ == "__main__":
    main()
