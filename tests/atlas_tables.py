"""A small run for the atlas's tests: names full of markup, ties, silence, and what only some runs have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from actmine.pipeline.readings.histograms import PROBABILITIES, edges
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import image_column, write_rows, write_table
from actmine.schemas.exemplars import EXEMPLARS
from actmine.schemas.facets import FACETS
from actmine.schemas.images import IMAGES
from actmine.schemas.labels import LABELS as LABELS_TABLE
from actmine.schemas.layers import LAYERS
from actmine.schemas.matches import MATCHES
from actmine.schemas.neighbors import NEIGHBORS
from actmine.schemas.shards import SHARDS
from actmine.schemas.skipped import SKIPPED
from actmine.schemas.units import UNITS
from actmine.schemas.views import VIEWS
from actmine.schemas.visualizations import VISUALIZATIONS
from tests.making import encoded, picture

SCRIPT = "<script>document.title='broken'</script>"
ATTACK = '"><img src=x onerror="document.title=1">'
HEBREW = "כלב \"זהב\" & 'חתול'"
WILD, PLAIN, DEAD = f"../../{SCRIPT}%2f", "block.relu", "dead"
NAMES = (WILD, PLAIN, DEAD)
LABELS = (SCRIPT, HEBREW, "tabby cat", None)
KEYS = (ATTACK, f"../../etc/{SCRIPT}", "日本/猫 100%", "plain-000003", "plain-000004", "a\u202eb")
SIZE = (120, 90)
WIDTH, TOPK = 12, 4


def number_of(unit: int, rank: int) -> int:
    """The image that an exemplar is."""
    return (unit + rank) % len(KEYS)


def label_of(image: int) -> str | None:
    """An image's label."""
    return LABELS[image % len(LABELS)]


def activation_of(unit: int, rank: int) -> float:
    """Of a unit of the layers that fire; units 4 and 9 never do."""
    return 0.0 if unit in (4, 9) else round(40.0 - 3 * ((unit * 5) % WIDTH) - rank * 1.25, 3)


def activations(most: float) -> np.ndarray:
    """A thousand image activations, the largest of which is `most`."""
    values = np.random.default_rng(0).gamma(2, most / 8, 999).clip(-1, most).astype(np.float32)
    return np.append(values, np.float32(most))


def histogram(most: float) -> list[int]:
    """Counts of the activations in buckets."""
    return [int(count) for count in np.histogram(activations(most), edges())[0]]


def quantiles(most: float) -> list[float]:
    """Of the activations, as the units table has them."""
    return np.quantile(activations(most), PROBABILITIES, method="inverted_cdf").tolist()


def falling(unit: int, rank: int) -> float:
    """The activation of each exemplar: those of silent units are zero, then negative."""
    return -float(rank) if unit in (4, 9) else activation_of(unit, rank)


def write_run(root: Path, extra: bool = False, name: str = "run", fingerprint: str = "0123") -> Path:
    """A run in the folder `root/NAME` of the images in `root/photos`; `extra` adds tables that few runs have."""
    photos, run = root / "photos", root / name
    photos.mkdir(parents=True, exist_ok=True)
    run.mkdir()
    images = []
    for number, key in enumerate(KEYS):
        data = encoded(picture(*SIZE, seed=number), "PNG")
        (photos / f"{number}.png").write_bytes(data)
        label = label_of(number)
        images.append({
            "image_id": number, "key": key, "shard": 0, "path": f"{number}.png", "offset": 0, "nbytes": len(data),
            "width": SIZE[0], "height": SIZE[1], "label": None if label is None else number % len(LABELS),
            "label_name": label,
        })  # fmt: skip
    layer = dict.fromkeys(LAYERS.names) | {
        "kind": "conv2d + relu", "layout": "maps", "units": WIDTH, "height": 7, "width": 9, "rf_height": 31,
        "rf_width": 31, "stride_y": 4, "stride_x": 4, "rf_global": False,
    }  # fmt: skip
    write_rows(run / "layers.parquet", LAYERS, [layer | {"layer": name} for name in NAMES])
    write_rows(run / "images.parquet", IMAGES, images)
    shard = {"shard": 0, "url": str(photos), "members": 7, "seen": 6, "skipped": 1}
    write_rows(run / "shards.parquet", SHARDS, [shard])
    write_rows(run / "skipped.parquet", SKIPPED, [{"shard": 0, "position": 6, "key": ATTACK, "error": SCRIPT}])
    for name in NAMES:
        write_table(table_file(run, "units", name), UNITS, [_units(name)])
        groups = (_exemplars(name, range(first, first + 3)) for first in range(0, WIDTH, 3))
        write_table(table_file(run, "exemplars", name), EXEMPLARS, groups)
    record: dict[str, Any] = {
        "fingerprint": fingerprint, "model": "net", "dataset": f"pictures {SCRIPT}", "weights": "random", "topk": TOPK,
        "preprocessing": {"size": [64, 64]}, "boxes": "original image", "device": "cpu", "precision": "fp32",
        "counts": {"samples": 7, "seen": 6, "skipped": 1},
    }  # fmt: skip
    if extra:
        record["views"] = {"deconvnet": {"most": 9}}
        record["matches"] = {"other-run": {"other": "nowhere/other-run", "other_fingerprint": "4567"}}
        record["visualizations"] = {"default": {"units": WIDTH}, "maco": {"units": WIDTH}}
        _write_extra(run)
    (run / "run.json").write_text(json.dumps(record))
    return run


def _units(layer: str) -> pa.Table:
    rows = []
    for unit in range(WIDTH):
        most = 0.0 if layer == DEAD else activation_of(unit, 0)
        label = label_of(number_of(unit, 0)) if most > 0 else None
        rows.append(dict.fromkeys(UNITS.names) | {
            "layer": layer, "unit": unit, "images_seen": 6, "nan_count": 0, "activation_max": most,
            "activation_mean": most / 2, "activation_std": 1.0, "firing_rate": 1 / (unit + 1) if most else 0.0,
            "activation_min": -1.0, "activation_histogram": histogram(most) if most else None, "top_label_name": label,
            "activation_quantiles": quantiles(most) if most else None,
            "label_purity": None if label is None else (unit % 5 + 1) / 5, "class_selectivity": 0.5,
            "best_label_auc": 0.875, "best_label_name": label, "best_label_correlation": 0.625, "best_label_q": 0.001,
            "interpretability_exemplars": 0.8125, "label_purity_chance": 0.0625, "label_purity_q": 0.001,
        })  # fmt: skip
        if layer == PLAIN and unit != 3:
            drawn = {"bytes": encoded(picture(24, 24, seed=100 + unit), "PNG"), "path": None}
            rows[-1] |= {
                "visualization": drawn, "visualization_activation": 2 * most, "visualization_preset": "default",
                "visualization_ratio": 2.0 if most else None, "visualization_rank": unit % 2,
            }  # fmt: skip
    return pa.Table.from_pylist(rows, UNITS)


def _exemplars(layer: str, units: Sequence[int]) -> pa.Table:
    rows = []
    for unit in units:
        for rank in range(TOPK):
            number, label = number_of(unit, rank), label_of(number_of(unit, rank))
            box = {"left": 10 + unit, "top": 20, "right": 41 + unit, "bottom": 51}
            crop = picture(*SIZE, seed=number).crop(tuple(box.values()))
            focus = (12, 22, 30, 40) if unit == 0 and rank == 0 else (None,) * 4
            rows.append(dict.fromkeys(EXEMPLARS.names) | {
                "layer": layer, "unit": unit, "rank": rank, "band": "top", "image_id": number, "key": KEYS[number],
                "facet": rank % 2 if layer == PLAIN else None,
                "activation": 0.0 if layer == DEAD else falling(unit, rank),
                "label": None if label is None else number % len(LABELS), "label_name": label, "y": 1, "x": 2,
                **box, "clipped": False, "crop": {"bytes": encoded(crop, "PNG"), "path": None},
                **dict(zip(("focus_left", "focus_top", "focus_right", "focus_bottom"), focus, strict=True)),
            })  # fmt: skip
    return pa.Table.from_pylist(rows, EXEMPLARS)


def _write_extra(run: Path) -> None:
    """Several presets, facets, neighbours, labels, views."""
    units = range(WIDTH)
    pictures = [encoded(picture(24, 24, seed=200 + unit), "PNG") for unit in units]
    cells = image_column(pictures).to_pylist()
    common = [{"layer": PLAIN, "unit": unit} for unit in units]
    for preset in ("default", "maco"):
        rows = [dict.fromkeys(VISUALIZATIONS.names) | row | {
            "preset": preset, "seed": 0, "attempts": 1, "visualization": cell, "activation": 3.0, "recipe": "r",
        } for row, cell in zip(common, cells, strict=True)]  # fmt: skip
        write_rows(table_file(run, "visualizations", f"{PLAIN}-{preset}"), VISUALIZATIONS, rows)
    rows = [row | {
        "facet": facet, "exemplars": [facet, facet + 2], "silhouette": 0.5, "visualization": cell, "activation": 1.0,
        "ratio": 0.5, "seed": 0, "preset": "mean-image",
    } for row, cell in zip(common, cells, strict=True) for facet in (0, 1)]  # fmt: skip
    write_rows(table_file(run, "facets", PLAIN), FACETS, rows)
    alike = [
        row
        | {
            "rank": 0,
            "neighbor_layer": WILD,
            "neighbor_unit": 11 - row["unit"],
            "similarity": 0.75,
            "chance": 0.5,
            "q_value": 0.01 if row["unit"] % 2 else 0.2,
        }
        for row in common
    ]  # type: ignore[operator]
    write_rows(run / "neighbors.parquet", NEIGHBORS, alike)
    others = [
        row
        | {
            "rank": 0,
            "other_layer": WILD,
            "other_unit": (row["unit"] + 1) % WIDTH,
            "similarity": 0.625,
            "chance": 0.5,
            "q_value": 0.01 if row["unit"] % 2 else 0.2,
        }
        for row in common
    ]  # type: ignore[operator]
    write_rows(run / "matches" / "other-run.parquet", MATCHES, others)
    labels = [row | {
        "label": 2, "label_name": HEBREW, "images": 3, "mean": 1.5, "maximum": 9.0, "correlation": 0.5,
    } for row in common]  # fmt: skip
    write_rows(table_file(run, "labels", PLAIN), LABELS_TABLE, labels)
    views = [dict.fromkeys(VIEWS.names, 0) | row | {"rank": 0, "method": "deconvnet", "view": cell, "recipe": "r"}
             for row, cell in zip(common, cells, strict=True)]  # fmt: skip
    write_rows(table_file(run, "views", f"{PLAIN}-deconvnet"), VIEWS, views)


def large(width: int = 1600, height: int = 1200) -> Image.Image:
    """A picture larger than any page shows."""
    return picture(width, height, seed=7)
