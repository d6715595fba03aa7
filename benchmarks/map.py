"""What does a map of many units cost? `python -m benchmarks.map`.

The page of 100,000 units in Chromium: milliseconds from frame to frame, and of those how long the page's own drawing
takes, while one pans and zooms by mouse, far out and so close that pictures appear. Then how long a layout takes and
how many of the ten nearest it keeps: `--layout 10000` vectors of a sketch's length, finding the nearest apart;
`--by umap` lays out the same by umap-learn, for whoever has installed it. Chromium without a GPU draws in software.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import shutil
import statistics
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from actmine.pipeline.cores import usable_cores
from actmine.pipeline.readings.sketches import LENGTH
from actmine.pipeline.relations.layout import NEIGHBORS, laid_out, neighbors_kept
from actmine.pipeline.relations.nearest import Nearest
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import ROWS_A_PART, image_column, write_rows, write_table
from actmine.schemas.exemplars import EXEMPLARS
from actmine.schemas.images import IMAGES
from actmine.schemas.layers import LAYERS as LAYERS_TABLE
from actmine.schemas.shards import SHARDS
from actmine.schemas.unit_map import UNIT_MAP
from actmine.schemas.units import UNITS as UNITS_TABLE
from benchmarks.atlas import served

UNITS, LAYERS, GROUPS = 100_000, 20, 600
BAR_MS = 1000 / 60
WIDTH, HEIGHT = 1280, 900
_FRAMES = 240
_TOLERANCE_MS = 0.5  # a screen of 60 Hz gives a frame each 16.7 ms, a little more or less

_MOVE = """([kind, frames, by, x, y]) => {
  const field = document.querySelector("[data-map]"), between = [], drawn = [];
  let before = 0, frame = 0;
  window.moved = null;
  const step = (now) => {
    if (frame > 2) { between.push(now - before); drawn.push(Number(field.dataset.drawn)); }
    before = now;
    if (frame++ === frames) { window.moved = [between, drawn]; return; }
    const turn = frame / frames * 4 * Math.PI;
    const place = { clientX: x + by * Math.sin(turn), clientY: y + by * (1 - Math.cos(turn)) / 2 };
    field.dispatchEvent(kind === "pan"
      ? new PointerEvent("pointermove", { pointerId: 1, pointerType: "mouse", ...place })
      : new WheelEvent("wheel", { deltaY: by, clientX: x, clientY: y, cancelable: true }));
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}"""


def main() -> None:
    """Prints a line for each way to move, then for each layout."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--units", type=int, default=UNITS)
    words.add_argument("--layout", type=int, nargs="*", default=[10_000])
    words.add_argument("--by", choices=("tsne", "umap"), default="tsne")
    given = words.parse_args()
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{date.today()}  {usable_cores()} cores, load {load}")
    if given.units:
        with TemporaryDirectory() as folder:
            shown(write_run(Path(folder) / "run", given.units), given.units)
    for count in given.layout:
        laid(count, given.by)


def shown(run: Path, units: int) -> None:
    """The page under way."""
    from playwright.sync_api import sync_playwright

    chromium = next(
        found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))
    )
    safe = ["--no-sandbox"] if os.getuid() == 0 else []  # a sandbox of root's is refused
    with served(run) as port, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=safe)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        start = time.perf_counter()
        page.goto(f"http://127.0.0.1:{port}/map/units")
        while page.get_attribute("[data-map]", "data-ready") != str(units):
            page.wait_for_timeout(20)
        print(f"{units:,} units; the page is there after {time.perf_counter() - start:.1f} s, "
              f"Chromium {browser.version}, no GPU")  # fmt: skip
        box = page.locator("[data-map]").bounding_box()
        assert box is not None
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(*middle)
        page.wait_for_timeout(500)
        told("pan, all in sight", moved(page, "pan", 150, middle))
        told("zoom in", moved(page, "zoom", -12, middle))
        page.wait_for_timeout(1500)
        told("pan, with pictures", moved(page, "pan", 150, middle))
        told("zoom out", moved(page, "zoom", 12, middle))
        browser.close()


def moved(page: Any, kind: str, by: float, middle: tuple[float, float]) -> tuple[list[float], list[float]]:
    """Milliseconds from frame to frame while one moves in each of them, and of the drawing in each."""
    if kind == "pan":
        page.mouse.down()
    page.evaluate(_MOVE, [kind, _FRAMES, by, *middle])
    while (found := page.evaluate("window.moved")) is None:
        page.wait_for_timeout(100)
    if kind == "pan":
        page.mouse.up()
    between, drawn = found
    return between, drawn


def told(what: str, found: tuple[list[float], list[float]]) -> None:
    """Prints one line."""
    frames, drawn = (sorted(each) for each in found)
    middle, slow = statistics.median(frames), frames[int(0.95 * len(frames))]
    own = f"drawing {statistics.median(drawn):4.1f}, 95% {drawn[int(0.95 * len(drawn))]:4.1f} ms"
    verdict = "reached" if slow <= BAR_MS + _TOLERANCE_MS else "missed"
    print(
        f"  {what:<20} {len(frames):4} frames: median {middle:5.1f} ms, 95% within {slow:5.1f} ms "
        f"(bar {BAR_MS:.1f}: {verdict}); {own}",
        flush=True,
    )


def laid(count: int, by: str) -> None:
    """How long a layout takes, and how many neighbours stay."""
    vectors = made_up(count)
    start = time.perf_counter()
    near = Nearest(vectors).among(NEIGHBORS)[0]
    found = time.perf_counter()
    cores = time.process_time()
    positions = laid_out(vectors, near=near) if by == "tsne" else _by_umap(vectors, near)
    kept = float(neighbors_kept(positions, near).mean())
    print(
        f"  {count:,} vectors by {by}: the nearest {found - start:.1f} s, layout {time.perf_counter() - found:.1f} s "
        f"({time.process_time() - cores:.1f} s of cores), keeps {kept:.1%} of {NEIGHBORS} neighbours "
        f"(by chance {NEIGHBORS / (count - 1):.2%})",
        flush=True,
    )


def made_up(count: int) -> np.ndarray:
    """Sketches of groups in families, each as much itself as of its group."""
    random = np.random.default_rng(0)
    groups = max(count // 30, 1)
    families = random.standard_normal((max(groups // 20, 1), LENGTH))
    middles = 0.7 * families[random.integers(0, len(families), groups)] + random.standard_normal((groups, LENGTH))
    found = np.empty((count, LENGTH), np.float32)
    for at in range(0, count, 4096):
        part = found[at : at + 4096]
        part[:] = random.uniform(0.3, 1.5, (len(part), 1)) * middles[random.integers(0, groups, len(part))]
        part += random.standard_normal(part.shape).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def _by_umap(vectors: np.ndarray, near: np.ndarray) -> np.ndarray:
    umap = importlib.import_module("umap")
    own = np.arange(len(vectors))[:, None]
    similar = np.einsum("nd,nkd->nk", vectors, vectors[near]) if len(vectors) <= 20_000 else np.ones(near.shape)
    known = np.hstack([own, near]), np.hstack([np.zeros((len(own), 1)), 1 - similar]).astype(np.float32)
    made = umap.UMAP(n_neighbors=near.shape[1] + 1, metric="cosine", random_state=0, precomputed_knn=known)
    return np.asarray(made.fit_transform(vectors), np.float32)


def write_run(run: Path, units: int) -> Path:
    """A run of so many units in layers, with the tables that the page reads, and pictures of 64 x 64 pixels."""
    random = np.random.default_rng(0)
    pictures = [_picture(random) for _ in range(64)]
    widths = {f"layer{number}": units // LAYERS for number in range(LAYERS)}
    for name, width in widths.items():
        parts = (range(first, min(first + ROWS_A_PART, width)) for first in range(0, width, ROWS_A_PART))
        write_table(
            table_file(run, "units", name), UNITS_TABLE, (_units(random, name, part, pictures) for part in parts)
        )
        write_table(table_file(run, "exemplars", name), EXEMPLARS, [])
    layer = dict.fromkeys(LAYERS_TABLE.names) | {
        "kind": "conv2d + relu", "height": 14, "width": 14, "layout": "maps", "rf_height": 99, "rf_width": 99,
        "rf_global": False,
    }  # fmt: skip
    write_rows(run / "layers.parquet", LAYERS_TABLE, [layer | {"layer": name, "units": width}
                                                      for name, width in widths.items()])  # fmt: skip
    write_table(run / "images.parquet", IMAGES, [])
    write_table(run / "shards.parquet", SHARDS, [])
    write_table(run / "map.parquet", UNIT_MAP, _places(random, widths))
    about = {"mined": "x", "kept": 0.5, "chance": 1e-4, "neighbors": NEIGHBORS, "library": "none", "seed": 0,
             "rows": units, "layers": [*widths]}  # fmt: skip
    (run / "run.json").write_text(json.dumps({
        "model": "net", "dataset": "random", "fingerprint": "x", "counts": {"seen": 50_000, "skipped": 0},
        "maps_of": {"units": about},
    }))  # fmt: skip
    return run


def _places(random: np.random.Generator, widths: dict[str, int]) -> Iterator[pa.Table]:
    """Clusters of many sizes, as t-SNE has them."""
    middles, spreads = random.uniform(-100, 100, (GROUPS, 2)), random.gamma(2.0, 1.2, (GROUPS, 1))
    for name, width in widths.items():
        group = random.integers(0, GROUPS, width)
        places = (middles[group] + spreads[group] * random.standard_normal((width, 2))).astype(np.float32)
        columns = {
            "layer": [name] * width, "unit": range(width), "x": places[:, 0], "y": places[:, 1],
            "kept": random.random(width).astype(np.float32),
        }  # fmt: skip
        yield pa.table({key: pa.array(value) for key, value in columns.items()}).cast(UNIT_MAP)


def _picture(random: np.random.Generator) -> bytes:
    small = Image.fromarray(random.integers(0, 255, (8, 8, 3), np.uint8))
    data = io.BytesIO()
    small.resize((64, 64), Image.Resampling.BICUBIC).save(data, "PNG")
    return data.getvalue()


def _units(random: np.random.Generator, layer: str, units: range, pictures: list[bytes]) -> pa.Table:
    count = len(units)
    columns = {
        "layer": pa.array([layer] * count), "unit": pa.array(units), "images_seen": pa.array([50_000] * count),
        "nan_count": pa.array([0] * count),
        "visualization": image_column([pictures[unit % len(pictures)] for unit in units]),
        "top_label_name": pa.array([f"class {random.integers(99)}" for _ in units]),
        "label_purity_q": pa.array([0.01] * count), "label_purity_chance": pa.array([0.05] * count),
        **{name: pa.array(random.random(count)) for name in ("activation_max", "firing_rate", "label_purity")},
    }  # fmt: skip
    fields = ((field, columns.get(field.name)) for field in UNITS_TABLE)
    return pa.table(
        [pa.nulls(count, field.type) if column is None else column.cast(field.type) for field, column in fields],
        schema=UNITS_TABLE,
    )


if __name__ == "__main__":
    main()
