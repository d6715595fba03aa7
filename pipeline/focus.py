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
from pipeline.added_columns import add_columns, filled, has_columns
from pipeline.effective_field import Focus, FocusPart, focus_parts, is_wide
from pipeline.engines.engine import Engine
from pipeline.errors import UserError
from pipeline.files import alone, remove_files, safe_name, table_file
from pipeline.fingerprint import fingerprint
from pipeline.focus_box import PERCENT
from pipeline.layers import Layer, Traced
from pipeline.models import Network
from pipeline.progress import Progress, Silent
from pipeline.receptive_field import receptive_fields
from pipeline.sources import Dataset
from pipeline.stage_store import StageStore
from pipeline.subject import Subject
from pipeline.tables import read_rows
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
    if sum(filled(table_file(run, "exemplars", layer.name), FOCUS[0]) for layer in layers) != written["found"]:
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
        folder = self.run / "state" / f"focus-{fingerprint(known | {'memory': self.engine.memory})}"
        store = StageStore(folder, _DONE)
        wanted = {number: self._wanted(self.layers[number]) for number in self.wide}
        measured = sum(rows.num_rows for rows in wanted.values())
        parts = self._measure(wanted, measured, store) if measured else {}
        found = sum(
            add_columns(table_file(self.run, "exemplars", layer.name), EXEMPLARS, store.rows(parts.get(number, ())))
            for number, layer in self._stale()
        )
        written["focus"] = {
            "fingerprint": fingerprint(known), "most": self.most, "percent": PERCENT, "layers": len(self.wide),
            "measured": measured, "found": found, "seconds": round(time.perf_counter() - start, 3),
        }  # fmt: skip
        record.write_record(self.run, written)
        remove_files((self.run / "state").glob("focus-*"))

    def _measure(self, wanted: dict[int, pa.Table], measured: int, store: StageStore) -> dict[int, list[str]]:
        """Measures what is not in the store; the names of all parts, by the number of their layer."""
        before = store.parts()
        parts: dict[int, list[str]] = {number: [] for number in wanted}
        with self.progress.stage("Measuring focus", measured, "exemplars") as advance:

            def todo() -> Iterator[FocusPart]:
                for number, rows in wanted.items():
                    layer = self.layers[number]
                    size = self.work.kernel_size(number, self.engine.here, self.engine.memory)
                    field = self.fields[layer.name]
                    for part in focus_parts(number, field, size, rows, self.images, self.shards):
                        parts[number].append(_part(layer, part.number))
                        if parts[number][-1] in before:
                            advance(part.exemplars)
                        else:
                            yield part

            for part, found in self.engine.map(self.work, todo(), lambda tally: advance(tally.done)):
                store.commit(_part(self.layers[part.layer], part.number), [_row(each) for each in found])
        return parts

    def _wanted(self, layer: Layer) -> pa.Table:
        """The exemplars of a layer to measure: row, unit, image_id, y, x."""
        rows = read_rows(table_file(self.run, "exemplars", layer.name), ["unit", "rank", "image_id", "y", "x"])
        rows = rows.append_column("row", pa.array(np.arange(rows.num_rows)))
        return rows.filter(pc.less(rows["rank"], self.most))

    def _stale(self) -> list[tuple[int, Layer]]:
        """The layers whose tables are to write: those measured, and those of a version before, without the columns."""
        return [
            (number, layer) for number, layer in enumerate(self.layers)
            if number in self.wide or not has_columns(table_file(self.run, "exemplars", layer.name), *FOCUS)
        ]  # fmt: skip


def _part(layer: Layer, number: int) -> str:
    return f"{safe_name(layer.name)}-{number:06d}"


def _row(found: Focus) -> dict[str, int | None]:
    row, box = found
    sides = (box.left, box.top, box.right, box.bottom) if box else (None,) * 4
    return {"row": row, **dict(zip(FOCUS, sides, strict=True))}
