"""Adds a visualization to every unit of a mined run: ascent in batches, each committed as it is done."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from PIL import Image

from pipeline import record
from pipeline.ascent.ascend import Visualization, budget, check_channels
from pipeline.ascent.recipe import Preset
from pipeline.engines.engine import Engine
from pipeline.engines.local import LocalEngine
from pipeline.errors import UserError
from pipeline.files import alone, remove_files, safe_name, table_file, written_aside
from pipeline.fingerprint import fingerprint
from pipeline.layers import Layer, Traced
from pipeline.models import Network
from pipeline.progress import Progress, Silent
from pipeline.receptive_field import receptive_fields
from pipeline.subject import Subject
from pipeline.tables import MOST_ROWS_A_GROUP, image_column, read_arrow, read_rows, write_table
from pipeline.work import AscentBatch, AscentWork
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
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Writes the visualization columns of the units tables of `layers`; returns the run's record.

    `engine` does the work, this process on `device` if there is none; of an `engine` the device counts that it has.
    Batches that an interrupted call had finished are kept. Raises `UserError` if the run cannot be written.
    """
    engine = engine or LocalEngine(device)
    check_channels(network)
    known = {
        "mined": record.read_record(run)["fingerprint"], "preset": repr(preset), "seed": seed,
        "device": engine.device.type, "layers": [layer.name for layer in layers],
    }  # fmt: skip
    if not _drawn(run, layers, fingerprint(known), progress):
        with alone(run, progress.say):
            if not _drawn(run, layers, fingerprint(known), progress):  # by whoever we waited for
                _draw(run, network, traced, layers, preset, seed, progress, engine, known)
    return record.read_record(run)


def _drawn(run: Path, layers: Sequence[Layer], name: str, progress: Progress) -> bool:
    """Whether all is done under this fingerprint; then removes what a killed command left of its state.

    The tables are asked too: where nothing locks a run, another command may have mined them anew.
    """
    if record.read_record(run).get("visualization", {}).get("fingerprint") != name:
        return False
    paths = [table_file(run, "units", layer.name) for layer in layers]
    if any(read_rows(path, ["visualization_seed"])["visualization_seed"].null_count for path in paths):
        return False
    progress.say(f"{run} has these visualizations already.")
    try:
        remove_files((run / "state").glob("ascent-*"))
    except UserError as error:
        progress.say(f"It holds state that is of no use any more. {error}")
    return True


def _draw(
    run: Path,
    network: Network,
    traced: Traced,
    layers: Sequence[Layer],
    preset: Preset,
    seed: int,
    progress: Progress,
    engine: Engine,
    known: dict[str, Any],
) -> None:
    start = time.perf_counter()
    written = record.read_record(run)
    if written.pop("visualization", None):
        record.write_record(run, written)  # from here on the tables hold some of each
    store = _Store(run / "state" / f"ascent-{fingerprint(known | {'memory': budget(engine.memory)})}")
    work = AscentWork(Subject(network, traced, layers), receptive_fields(traced, layers), preset, seed)
    total = sum(layer.units for layer in layers)
    left = [layer.units for layer in layers]
    silent = 0
    before = store.batches()
    with progress.stage("Drawing", total, "units") as advance:

        def finish(batch: AscentBatch) -> None:
            nonlocal silent
            layer = layers[batch.layer]
            left[batch.layer] -= len(batch.units)
            advance(len(batch.units), note=layer.name)
            if not left[batch.layer]:
                silent += _write_columns(run, layer, store.rows(layer), preset.name)

        def todo() -> Iterator[AscentBatch]:
            for number, layer in enumerate(layers):
                for batch in work.batches(number, engine.here, engine.memory):
                    if _Store.name(layer, batch.units.start) in before:
                        finish(batch)
                    else:
                        yield batch

        for batch, drawn in engine.map(work, todo(), lambda tally: None):
            store.commit(layers[batch.layer], drawn)
            finish(batch)
    written["visualization"] = {
        "fingerprint": fingerprint(known), "preset": preset.name, "seed": seed, "units": total, "never_fired": silent,
        "seconds": round(time.perf_counter() - start, 3),
    }  # fmt: skip
    record.write_record(run, written)
    remove_files((run / "state").glob("ascent-*"))


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
        path = self.folder / self.name(layer, batch[0].unit)
        with written_aside(path) as aside, pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, _DONE) as writer:
            writer.write_table(pa.Table.from_pylist(rows, _DONE))

    def rows(self, layer: Layer) -> pa.Table:
        """Everything committed of a layer, by unit."""
        paths = sorted(self.folder.glob(f"{safe_name(layer.name)}-??????.arrow"))
        tables = [read_arrow(path, _DONE) for path in paths]
        return pa.concat_tables([_DONE.empty_table(), *tables]).sort_by("unit")

    def batches(self) -> set[str]:
        """The names of the batches that are done."""
        return {path.name for path in self.folder.glob("*.arrow")}

    @staticmethod
    def name(layer: Layer, first: int) -> str:
        """The file of the batch whose first unit is `first`."""
        return f"{safe_name(layer.name)}-{first:06d}.arrow"


def _png(item: Visualization) -> bytes:
    data = io.BytesIO()
    Image.fromarray(item.picture).save(data, "PNG")
    return data.getvalue()


def _write_columns(run: Path, layer: Layer, done: pa.Table, preset: str) -> int:
    """Replaces a layer's visualization columns; returns how many units never fired on theirs."""
    path = table_file(run, "units", layer.name)
    units = read_rows(path)
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
