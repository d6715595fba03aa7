"""Adds a visualization to every unit of a mined run: ascent in batches, each committed as it is done."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from pipeline import record
from pipeline.ascent.ascend import Visualization, visualize
from pipeline.ascent.presets import Preset
from pipeline.files import safe_name, table_file, written_aside
from pipeline.fingerprint import fingerprint
from pipeline.layers import Layer, Traced
from pipeline.models import Network
from pipeline.progress import Progress, Silent
from pipeline.receptive_field import receptive_fields
from pipeline.tables import MOST_ROWS_A_GROUP, image_column, write_table
from schemas.units import UNITS

_DONE = pa.schema(
    [
        ("unit", pa.int32()),
        ("picture", pa.binary()),
        ("activation", pa.float32()),
        ("seed", pa.int64()),
        ("attempts", pa.int32()),
    ]
)


def visualize_run(
    run: Path,
    network: Network,
    traced: Traced,
    layers: Sequence[Layer],
    preset: Preset,
    device: torch.device,
    *,
    seed: int = 0,
    progress: Progress = Silent(),
) -> dict[str, Any]:
    """Writes the visualization columns of the units tables of `layers`; returns the run's record.

    Batches that an interrupted call had finished are kept. Raises `UserError` if the run cannot be written.
    """
    written = record.read_record(run)
    known = {
        "mined": written["fingerprint"], "preset": asdict(preset), "seed": seed, "device": device.type,
        "layers": [layer.name for layer in layers],
    }  # fmt: skip
    name = fingerprint(known)
    if written.get("visualization", {}).get("fingerprint") == name:
        progress.say(f"{run} has these visualizations already.")
        return written
    start = time.perf_counter()
    store = _Store(run / "state" / f"ascent-{name}")
    fields = receptive_fields(traced, layers)
    finished = {layer.name: store.units(layer) for layer in layers}
    total = sum(layer.units for layer in layers)
    silent = 0
    with progress.stage("Drawing", total, "units", sum(map(len, finished.values()))) as advance:
        for layer in layers:
            todo = [unit for unit in range(layer.units) if unit not in finished[layer.name]]
            if todo:
                batches = visualize(
                    network, traced, layer, fields[layer.name], todo, preset=preset, seed=seed, device=device
                )
                for batch in batches:
                    store.commit(layer, batch)
                    advance(len(batch), note=layer.name)
            silent += _write_columns(run, layer, store.rows(layer), preset.name)
    written["visualization"] = {
        "fingerprint": name, "preset": preset.name, "seed": seed, "units": total, "never_fired": silent,
        "seconds": round(time.perf_counter() - start, 3),
    }  # fmt: skip
    record.write_record(run, written)
    store.remove()
    return written


class _Store:
    """Finished batches of an ascent under way, one Arrow file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def commit(self, layer: Layer, batch: Sequence[Visualization]) -> None:
        """Keeps a batch: whole or not at all."""
        rows = [
            {
                "unit": item.unit, "picture": _png(item), "activation": item.activation, "seed": item.seed,
                "attempts": item.attempts,
            }
            for item in batch
        ]  # fmt: skip
        path = self.folder / f"{safe_name(layer.name)}-{batch[0].unit:06d}.arrow"
        with written_aside(path) as aside, pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, _DONE) as writer:
            writer.write_table(pa.Table.from_pylist(rows, _DONE))

    def rows(self, layer: Layer) -> pa.Table:
        """Everything committed of a layer, by unit."""
        paths = sorted(self.folder.glob(f"{safe_name(layer.name)}-??????.arrow"))
        tables = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in paths]
        return pa.concat_tables([_DONE.empty_table(), *tables]).sort_by("unit")

    def units(self, layer: Layer) -> set[int]:
        """The units of a layer that are done."""
        return set(self.rows(layer)["unit"].to_pylist())

    def remove(self) -> None:
        """Deletes the folder: the tables hold it all."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _png(item: Visualization) -> bytes:
    data = io.BytesIO()
    Image.fromarray(item.picture).save(data, "PNG")
    return data.getvalue()


def _write_columns(run: Path, layer: Layer, done: pa.Table, preset: str) -> int:
    """Replaces a layer's visualization columns; returns how many units never fired on theirs."""
    path = table_file(run, "units", layer.name)
    units = pq.read_table(path, schema=UNITS)
    reached = done["activation"].to_pylist()
    maxima = units["activation_max"].to_pylist()
    columns = {
        "visualization": image_column(done["picture"].combine_chunks()),
        "visualization_activation": done["activation"],
        "visualization_ratio": pa.array(
            [
                value / most if most is not None and most > 0 else None
                for value, most in zip(reached, maxima, strict=True)
            ],
            pa.float64(),
        ),
        "visualization_preset": pa.array([preset] * len(reached), pa.string()),
        "visualization_seed": done["seed"],
        "visualization_attempts": done["attempts"],
    }
    table = pa.table([columns.get(name, units[name]) for name in UNITS.names], schema=UNITS)
    write_table(path, UNITS, (table.slice(at, MOST_ROWS_A_GROUP) for at in range(0, table.num_rows, MOST_ROWS_A_GROUP)))
    return sum(value <= 0 for value in reached)
