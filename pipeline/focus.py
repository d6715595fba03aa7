"""Adds the focus of the first exemplars of units with wide fields: measured in parts, each committed as it is done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import record
from pipeline.effective_field import Focus, FocusPart, focus_parts, is_wide
from pipeline.engines.engine import Engine
from pipeline.errors import UserError
from pipeline.files import alone, remove_files, safe_name, table_file, written_aside
from pipeline.fingerprint import fingerprint
from pipeline.focus_box import PERCENT
from pipeline.layers import Layer, Traced
from pipeline.models import Network
from pipeline.progress import Progress, Silent
from pipeline.receptive_field import receptive_fields
from pipeline.sources import Dataset
from pipeline.subject import Subject
from pipeline.tables import completed, parquet_file, read_arrow, read_rows, write_table
from pipeline.work import FocusWork
from schemas.exemplars import EXEMPLARS, FOCUS

MOST = 9
"""Exemplars of a unit that are measured unless something else is said."""
_DONE = pa.schema([("row", pa.int64()), *((side, pa.int32()) for side in FOCUS)])


def focus_run(
    run: Path,
    dataset: Dataset,
    network: Network,
    traced: Traced,
    layers: Sequence[Layer],
    engine: Engine,
    progress: Progress = Silent(),
    most: int = MOST,
) -> dict[str, Any]:
    """Writes the focus columns of the exemplars tables of a mined run; returns the run's record.

    Measured are the first `most` exemplars of each unit of those `layers` whose field is larger than half of the
    network's input in height or width. `layers` are those that were mined, `dataset` what they were mined over.
    Parts that an interrupted call had finished are kept. Raises `UserError` if an image has changed since the scan
    or the run cannot be written.
    """
    known = {
        "mined": record.read_record(run)["fingerprint"], "most": most, "percent": PERCENT,
        "device": engine.device.type,
    }  # fmt: skip
    if not _measured(run, layers, fingerprint(known), progress):
        with alone(run, progress.say):
            if not _measured(run, layers, fingerprint(known), progress):  # by whoever we waited for
                _Focusing(run, dataset, Subject(network, traced, layers), engine, progress, most).go(known)
    return record.read_record(run)


def _measured(run: Path, layers: Sequence[Layer], name: str, progress: Progress) -> bool:
    """Whether all is done under this fingerprint; then removes what a killed command left of its state.

    The tables are asked too: where nothing locks a run, another command may have mined them anew.
    """
    written = record.read_record(run).get("focus", {})
    if written.get("fingerprint") != name:
        return False
    if sum(_found(table_file(run, "exemplars", layer.name)) for layer in layers) != written["found"]:
        return False
    try:
        remove_files((run / "state").glob("focus-*"))
    except UserError as error:
        progress.say(f"{run} holds state that is of no use any more. {error}")
    return True


class _Focusing:
    """One measurement under way: what is fixed from the start."""

    def __init__(
        self, run: Path, dataset: Dataset, subject: Subject, engine: Engine, progress: Progress, most: int
    ) -> None:
        self.run, self.layers, self.engine, self.progress, self.most = run, subject.layers, engine, progress, most
        self.work = FocusWork(subject)
        self.shards = {shard.number: shard for shard in dataset.shards}
        self.images = read_rows(run / "images.parquet")
        self.fields = receptive_fields(subject.traced, self.layers)
        self.wide = [number for number, layer in enumerate(self.layers) if is_wide(self.fields[layer.name])]

    def go(self, known: dict[str, Any]) -> None:
        """Measures what is missing, then writes the tables and the record."""
        start = time.perf_counter()
        written = record.read_record(self.run)
        if written.pop("focus", None):
            record.write_record(self.run, written)  # from here on the tables hold some of each
        store = _Store(self.run / "state" / f"focus-{fingerprint(known | {'memory': self.engine.memory})}")
        wanted = {number: self._wanted(self.layers[number]) for number in self.wide}
        measured = sum(rows.num_rows for rows in wanted.values())
        if measured:
            self._measure(wanted, measured, store)
        found = sum(_write_columns(self.run, layer, store.rows(layer)) for layer in self._stale())
        written["focus"] = {
            "fingerprint": fingerprint(known), "most": self.most, "percent": PERCENT, "layers": len(self.wide),
            "measured": measured, "found": found, "seconds": round(time.perf_counter() - start, 3),
        }  # fmt: skip
        record.write_record(self.run, written)
        remove_files((self.run / "state").glob("focus-*"))

    def _measure(self, wanted: dict[int, pa.Table], measured: int, store: _Store) -> None:
        before = store.parts()
        with self.progress.stage("Measuring focus", measured, "exemplars") as advance:

            def todo() -> Iterator[FocusPart]:
                for number, rows in wanted.items():
                    layer = self.layers[number]
                    size = self.work.kernel_size(number, self.engine.here, self.engine.memory)
                    field = self.fields[layer.name]
                    for part in focus_parts(number, field, size, rows, self.images, self.shards):
                        if _Store.name(layer, part.number) in before:
                            advance(part.exemplars)
                        else:
                            yield part

            for part, found in self.engine.map(self.work, todo(), lambda tally: advance(tally.done)):
                store.commit(self.layers[part.layer], part.number, found)

    def _wanted(self, layer: Layer) -> pa.Table:
        """The exemplars of a layer to measure: row, unit, image_id, y, x."""
        rows = read_rows(table_file(self.run, "exemplars", layer.name), ["unit", "rank", "image_id", "y", "x"])
        rows = rows.append_column("row", pa.array(np.arange(rows.num_rows)))
        return rows.filter(pc.less(rows["rank"], self.most))

    def _stale(self) -> list[Layer]:
        """The layers whose tables are to write: those measured, and those of a version before, without the columns."""
        wide = {self.layers[number].name for number in self.wide}
        return [
            layer for layer in self.layers
            if layer.name in wide or not _has_columns(table_file(self.run, "exemplars", layer.name))
        ]  # fmt: skip


class _Store:
    """Finished parts of a measurement under way, one Arrow file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def commit(self, layer: Layer, part: int, found: Sequence[Focus]) -> None:
        """Keeps a part: whole or not at all."""
        boxes = [(row, box.left, box.top, box.right, box.bottom) if box else (row,) + 4 * (None,) for row, box in found]
        table = pa.Table.from_pylist([dict(zip(_DONE.names, box, strict=True)) for box in boxes], _DONE)
        path = self.folder / self.name(layer, part)
        with written_aside(path) as aside, pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, _DONE) as writer:
            writer.write_table(table)

    def rows(self, layer: Layer) -> pa.Table:
        """Everything committed of a layer."""
        paths = sorted(self.folder.glob(f"{safe_name(layer.name)}-??????.arrow"))
        return pa.concat_tables([_DONE.empty_table(), *(read_arrow(path, _DONE) for path in paths)])

    def parts(self) -> set[str]:
        """The names of the parts that are done."""
        return {path.name for path in self.folder.glob("*.arrow")}

    @staticmethod
    def name(layer: Layer, part: int) -> str:
        """The file of a part."""
        return f"{safe_name(layer.name)}-{part:06d}.arrow"


def _has_columns(path: Path) -> bool:
    """Whether a table has the focus columns; those of versions before have not."""
    with parquet_file(path) as file:
        return set(FOCUS) <= set(file.schema_arrow.names)


def _found(path: Path) -> int:
    """How many rows of a table have a focus."""
    if not _has_columns(path):
        return 0
    rows = read_rows(path, [FOCUS[0]])
    return rows.num_rows - rows[FOCUS[0]].null_count


def _write_columns(run: Path, layer: Layer, done: pa.Table) -> int:
    """Replaces a layer's focus columns, a row group at a time; returns how many exemplars have a focus."""
    path = table_file(run, "exemplars", layer.name)
    rows = done["row"].to_numpy()
    sides = {side: done[side].fill_null(-1).to_numpy() for side in FOCUS}
    found = 0

    def parts() -> Iterator[pa.Table]:
        nonlocal found
        begin = 0
        with parquet_file(path) as file:
            for group in range(file.num_row_groups):
                part = completed(file.read_row_group(group), EXEMPLARS)
                columns = {name: part[name] for name in EXEMPLARS.names}
                here = (rows >= begin) & (rows < begin + part.num_rows)
                for side in FOCUS:
                    values = np.full(part.num_rows, -1, np.int32)
                    values[rows[here] - begin] = sides[side][here]
                    columns[side] = pa.array(values, mask=values < 0)
                found += part.num_rows - columns[FOCUS[0]].null_count
                begin += part.num_rows
                yield pa.table([columns[name] for name in EXEMPLARS.names], schema=EXEMPLARS)

    write_table(path, EXEMPLARS, parts())
    return found
