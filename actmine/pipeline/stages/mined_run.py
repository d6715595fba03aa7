"""What there is of a mined run: whether its record and tables are whole, and what of its state is of no use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actmine.pipeline import record
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.progress import Progress
from actmine.pipeline.readings.maxima import Stored, sum_of
from actmine.pipeline.scanning.ledger import Ledger
from actmine.pipeline.storage.files import is_local, table_file
from actmine.pipeline.storage.fingerprint import canonical
from actmine.pipeline.storage.seals import is_whole


def mined(run: Path, ledger: Ledger, progress: Progress) -> dict[str, Any] | None:
    """The record of a run that is done and whole, after removing what a killed command left of its state, or None."""
    written = record.read_record(run)
    if written.get("fingerprint") != ledger.fingerprint or lost_of(run, written):
        return None
    known = json.loads(canonical(ledger.identity))
    if wrong := {word: value for word, value in known.items() if word in written and written[word] != value}:
        written |= wrong  # whose bytes have changed since
        record.write_record(run, written)
    progress.say(f"{run} is already mined with these settings.")
    try:
        clear(ledger)
    except UserError as error:
        progress.say(f"It holds state that is of no use any more. {error}")
    return written


def lost_of(run: Path, written: dict[str, Any]) -> list[str]:
    """Those of the tables and matrices of a run that are gone or damaged, by their names in it; on S3 none is asked."""
    if not is_local(run):
        return []
    sums = written.get("tables")
    if not isinstance(sums, dict):
        return [f"what {run / 'run.json'} says of them"]
    return [name for name, crc32 in sums.items() if not _is_whole(run / name, crc32)]


def _is_whole(path: Path, crc32: str | None) -> bool:
    if crc32 is None:
        return is_whole(path, before=False)
    try:
        return sum_of(path) == crc32
    except OSError:
        return False


def clear(ledger: Ledger) -> None:
    """Removes the state of a mining that is done."""
    ledger.clear("block-*")
    ledger.clear("maxima-*")
    ledger.clear("pictures-*")
    ledger.clear("maps-*")


def tables_of(run: Path, layers: Sequence[Layer], maxima: Sequence[Stored]) -> dict[str, str | None]:
    """The names of all files of a mined run, and the sums of those that do not hold their own; none on S3."""
    if not is_local(run):
        return {}
    names = [f"{name}.parquet" for name in ("images", "layers", "shards", "skipped", "pictures", "crops")]
    names += [
        str(table_file(Path(), table, layer.name, new=True))
        for table in ("units", "exemplars", "labels", "sketches", "maps", "directions") for layer in layers
    ]  # fmt: skip
    kept = {f"maxima/{part.path.name}": part.crc32 for part in maxima}
    if kept:
        names.append("maxima/images.parquet")
    return {name: None for name in names if (run / name).is_file()} | kept
