"""How long does a page of the atlas take? `python -m benchmarks.atlas`.

Pages over HTTP from a run of 26,000 units with 50 exemplars each, and one more layer of 26,000 units. Cold: the first
page after a start, of a layer that was not opened before; warm: units that were not asked for before, layers open;
again: those units once more.
"""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import uvicorn

from actmine.pipeline.atlas.hosts import LOOPBACK, listening
from actmine.pipeline.atlas.server import application
from actmine.pipeline.cores import usable_cores
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import ROWS_A_PART, image_column, write_rows, write_table
from actmine.schemas.exemplars import EXEMPLARS
from actmine.schemas.layers import LAYERS as LAYERS_TABLE
from actmine.schemas.units import UNITS as UNITS_TABLE
from benchmarks.scale import EXEMPLARS_EACH, LAYERS, UNITS, exemplar_tables

BAR_MS = 100
COLD, WARM = 8, 100
WIDE = 26_000
_PICTURE_BYTES = 30_000


def main() -> None:
    """Prints the median and the slowest of each kind of page."""
    print(f"{date.today()}  {usable_cores()} cores; {LAYERS * UNITS:,} units x {EXEMPLARS_EACH}")
    with TemporaryDirectory() as folder:
        run = write_run(Path(folder) / "run")
        random = np.random.default_rng(1)
        cold = []
        for _ in range(COLD):
            with served(run) as port:
                seconds(port, "/static/atlas.svg")
                cold.append(seconds(port, _unit(random)))
        told("unit, cold", cold, BAR_MS)
        with served(run) as port:
            for layer in range(LAYERS):
                seconds(port, f"/layer/layer{layer}/0")
            asked = [_unit(random) for _ in range(WARM)]
            told("unit, warm", [seconds(port, path) for path in asked], BAR_MS)
            told("unit, again", [seconds(port, path) for path in asked], BAR_MS)
            crops = [path.replace("/layer/", "/picture/") + "/crop/7" for path in asked]
            told("crop of such a unit", [seconds(port, path) for path in crops])
            told("layer of 1,000 units", [seconds(port, f"/layer/layer{layer}") for layer in range(9)])
            wide = [f"/layer/wide{asked}" for asked in ("", "?page=30", "?sort=label_purity&page=9", "?label=class+3")]
            told(f"layer of {WIDE:,}, the first", [seconds(port, wide[0])], BAR_MS)
            told(f"layer of {WIDE:,} units", [seconds(port, path) for path in wide * 5], BAR_MS)
            told("image, the first", [seconds(port, "/image/3")])
            told("image, warm", [seconds(port, f"/image/{image}") for image in range(4, 12)])
            told("search, warm", [seconds(port, "/search?q=class+1") for _ in range(9)])


def write_run(run: Path) -> Path:
    """A run with the tables that mining writes, visualizations of random bytes."""
    exemplar_tables(run)
    random = np.random.default_rng(0)
    widths = {f"layer{number}": UNITS for number in range(LAYERS)} | {"wide": WIDE}
    write_table(table_file(run, "exemplars", "wide"), EXEMPLARS, [])
    for name, width in widths.items():
        groups = (
            _units(random, name, range(first, min(first + ROWS_A_PART, width)))
            for first in range(0, width, ROWS_A_PART)
        )
        write_table(table_file(run, "units", name), UNITS_TABLE, groups)
    layer = dict.fromkeys(LAYERS_TABLE.names) | {
        "kind": "conv2d + relu", "units": UNITS, "height": 14, "width": 14, "layout": "maps", "rf_height": 99,
        "rf_width": 99, "rf_global": False,
    }  # fmt: skip
    write_rows(
        run / "layers.parquet",
        LAYERS_TABLE,
        [layer | {"layer": name, "units": width} for name, width in widths.items()],
    )
    (run / "run.json").write_text(
        json.dumps({"model": "net", "dataset": "random", "counts": {"seen": 50_000, "skipped": 0}})
    )
    return run


def _units(random: np.random.Generator, layer: str, units: range) -> pa.Table:
    count = len(units)
    columns = {
        "layer": pa.array([layer] * count), "unit": pa.array(units), "images_seen": pa.array([50_000] * count),
        "nan_count": pa.array([0] * count), "visualization": image_column([random.bytes(_PICTURE_BYTES)] * count),
        "top_label_name": pa.array([f"class {unit % 9}" for unit in units]),
        "label_purity_q": pa.array([0.01] * count), "label_purity_chance": pa.array([0.05] * count),
        **{name: pa.array(random.random(count)) for name in ("activation_max", "firing_rate", "label_purity")},
    }  # fmt: skip
    fields = ((field, columns.get(field.name)) for field in UNITS_TABLE)
    return pa.table(
        [pa.nulls(count, field.type) if column is None else column.cast(field.type) for field, column in fields],
        schema=UNITS_TABLE,
    )


def _unit(random: np.random.Generator) -> str:
    return f"/layer/layer{random.integers(LAYERS)}/{random.integers(UNITS)}"


@contextmanager
def served(run: Path) -> Iterator[int]:
    """The atlas of `run` under way; yields its port."""
    with listening(0) as there:
        config = uvicorn.Config(application(run), log_level="error", access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [there]}, daemon=True)
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield int(there.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


def seconds(port: int, path: str) -> float:
    """How long until the whole page is there."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 200, (path, answer.status)
    return time.perf_counter() - start


def told(what: str, found: list[float], bar: float | None = None) -> None:
    """Prints one line."""
    median = statistics.median(found) * 1e3
    verdict = f" (bar {bar} ms: {'reached' if median < bar else 'missed'})" if bar else ""
    print(f"  {what:<22} median {median:7.1f} ms, slowest {max(found) * 1e3:7.1f} ms{verdict}", flush=True)


if __name__ == "__main__":
    main()
