"""Adds what the first exemplars' crops are worth alone to a mined run, in parts, each committed as it is done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import record
from pipeline.added_columns import add_columns, filled
from pipeline.crop_check import CropCheckPart, CropCheckWork, crop_parts
from pipeline.engines.engine import Engine
from pipeline.errors import UserError
from pipeline.files import alone, remove_files, safe_name, table_file
from pipeline.fingerprint import fingerprint
from pipeline.layers import Layer, Traced
from pipeline.models import Network
from pipeline.progress import Progress, Silent
from pipeline.stage_store import StageStore
from pipeline.subject import Subject
from pipeline.tables import parquet_file, read_rows
from schemas.exemplars import EXEMPLARS

MOST = 9
"""Exemplars of a unit that are checked unless something else is said."""
COLUMN = "crop_activation"
_NEEDED = ["unit", "rank", "image_id", "y", "x", "left", "top", "crop"]
_DONE = pa.schema([("row", pa.int64()), (COLUMN, pa.float32())])


def check_crops(
    run: Path,
    network: Network,
    traced: Traced,
    layers: Sequence[Layer],
    engine: Engine,
    progress: Progress = Silent(),
    most: int = MOST,
) -> dict[str, Any]:
    """Writes `crop_activation` of the first `most` exemplars of each unit of a mined run; returns the run's record.

    `layers` are those that were mined. No image is read again. Parts that an interrupted call had finished are kept.
    Raises `UserError` if the run cannot be written.
    """
    checking = _Checking(run, Subject(network, traced, layers), engine, progress, most)
    if not checking.done():
        with alone(run, progress.say):
            if not checking.done():  # by whoever we waited for
                checking.go()
    return record.read_record(run)


class _Checking:
    """One check under way: what is fixed from the start."""

    def __init__(self, run: Path, subject: Subject, engine: Engine, progress: Progress, most: int) -> None:
        self.run, self.subject, self.layers = run, subject, subject.layers
        self.engine, self.progress, self.most = engine, progress, most
        known = {"mined": record.read_record(run)["fingerprint"], "most": most, "device": engine.device.type}
        self.fingerprint = fingerprint(known)
        self.store = StageStore(run / "state" / f"crop-check-{self.fingerprint}", _DONE)

    def done(self) -> bool:
        """Whether the tables hold it all; then removes what a killed command left of its state."""
        written = record.read_record(self.run).get("crop_check", {})
        if written.get("fingerprint") != self.fingerprint:
            return False
        if (
            sum(filled(table_file(self.run, "exemplars", layer.name), COLUMN) for layer in self.layers)
            != written["checked"]
        ):
            return False  # where nothing locks a run, another command may have mined it anew
        try:
            remove_files((self.run / "state").glob("crop-check-*"))
        except UserError as error:
            self.progress.say(f"{self.run} holds state that is of no use any more. {error}")
        return True

    def go(self) -> None:
        """Checks what is missing, then writes the tables and the record."""
        start = time.perf_counter()
        written = record.read_record(self.run)
        if written.pop("crop_check", None):
            record.write_record(self.run, written)  # from here on the tables hold some of each
        before = self.store.parts()
        images = read_rows(self.run / "images.parquet", ["image_id", "width", "height"])
        parts: list[list[str]] = [[] for _ in self.layers]
        work = CropCheckWork(self.subject)
        with self.progress.stage("Checking crops", self._total(), "crops") as advance:

            def todo() -> Iterator[CropCheckPart]:
                for number, layer in enumerate(self.layers):
                    for part in crop_parts(number, self._wanted(layer), images):
                        parts[number].append(_part(layer, part.number))
                        if parts[number][-1] in before:
                            advance(len(part.crops))
                        else:
                            yield part

            for part, found in self.engine.map(work, todo(), lambda tally: advance(tally.done)):
                rows = [{"row": row, COLUMN: value} for row, value in found]
                self.store.commit(_part(self.layers[part.layer], part.number), rows)
        checked = 0
        for layer, names in zip(self.layers, parts, strict=True):
            checked += add_columns(table_file(self.run, "exemplars", layer.name), EXEMPLARS, self.store.rows(names))
        written["crop_check"] = {
            "fingerprint": self.fingerprint, "most": self.most, "checked": checked,
            "seconds": round(time.perf_counter() - start, 3),
        }  # fmt: skip
        record.write_record(self.run, written)
        remove_files((self.run / "state").glob("crop-check-*"))

    def _total(self) -> int:
        ranks = (read_rows(table_file(self.run, "exemplars", layer.name), ["rank"]) for layer in self.layers)
        return sum(int(pc.sum(pc.less(rows["rank"], self.most)).as_py() or 0) for rows in ranks)

    def _wanted(self, layer: Layer) -> pa.Table:
        """The exemplars of a layer to check, those with a crop."""
        chosen, begin = [], 0
        with parquet_file(table_file(self.run, "exemplars", layer.name)) as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, _NEEDED)
                rows = rows.append_column("row", pa.array(np.arange(begin, begin + len(rows))))
                begin += len(rows)
                chosen.append(rows.filter(pc.and_(pc.less(rows["rank"], self.most), pc.is_valid(rows["crop"]))))
        return pa.concat_tables(chosen) if chosen else EXEMPLARS.empty_table().select(_NEEDED)


def _part(layer: Layer, number: int) -> str:
    return f"{safe_name(layer.name)}-{number:06d}"
