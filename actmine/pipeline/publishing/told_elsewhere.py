"""A run as others may read it: no folder of this machine is named; on request it holds no picture of the dataset."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from actmine.pipeline.datasets.range_requests import public
from actmine.pipeline.datasets.remote import RemoteError
from actmine.pipeline.errors import without_secrets
from actmine.pipeline.publishing.contents import Part, crops_held
from actmine.pipeline.storage.parquet import image_column, parquet_file, write_table
from actmine.pipeline.words import FROM_EXEMPLARS

ABOVE = "…/"
"""Stands for the folders above a file or folder that is named."""
_NAMES = ("layers",)
_DROPPED = ("tables",)
_FULL = re.compile(r"(?:~?/|[A-Za-z]:[\\/]|\\\\).*", re.DOTALL)
_WITHIN = re.compile(r"(?<![\w.:/\\…~-])(?:~?/|[A-Za-z]:[\\/]+)(?:[^\s/\\'\"<>|:]+[/\\]+)+([^\s/\\'\"<>|:]*)")


def text(said: str) -> str:
    """Text whose paths are their last parts, and whose addresses have no passwords."""
    if "://" in said.split(" ", 1)[0]:
        try:
            return without_secrets(public(said))
        except RemoteError:
            return without_secrets(said)
    if _FULL.fullmatch(said) and " " not in said.rstrip("/\\").replace("\\", "/").rpartition("/")[0]:
        return _last(said)
    return without_secrets(_WITHIN.sub(lambda found: ABOVE + found[1], said))


def place(said: str) -> str:
    """A path or an address that is nothing else, as `text` has it, whatever spaces it holds."""
    return _last(said) if _FULL.fullmatch(said) else text(said)


def _last(path: str) -> str:
    return ABOVE + re.split(r"[\\/]+", path.rstrip("/\\"))[-1]


def record(of_run: dict[str, Any], pictures: bool, finished: str) -> dict[str, Any]:
    """A record for others; `published` says whether there are pictures, and when the run was finished."""
    told = {name: _told(value, name) for name, value in of_run.items() if name not in _DROPPED}
    return told | {"published": {"pictures": pictures, "finished": finished}}


def _told(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {text(key): _told(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return value if name in _NAMES else [_told(each) for each in value]
    if not isinstance(value, str):
        return value
    return place(value) if name in ("url", "data", "dataset", "weights", "other", "place", "path") else text(value)


Change = Callable[[pa.Table], pa.Table]


def change_of(part: Part, pictures: bool) -> Change | None:
    """What is changed in a file before it is published; None where it stays as it is."""
    if part.table == "shards":
        return lambda rows: _mapped(rows, "url", place)
    if part.table == "skipped":
        return lambda rows: _mapped(rows, "error", text)
    if pictures:
        return None
    if part.table == "exemplars" and crops_held(part.source):
        return lambda rows: _without(rows, "crop", None)
    if part.table == "units":
        return lambda rows: _without(rows, "visualization", FROM_EXEMPLARS)
    return None


def rewrite(source: Path, target: Path, change: Change) -> None:
    """Writes a table anew, its rows changed. Raises `UserError` where one cannot be read or the other not written."""
    with parquet_file(source) as file:

        def groups() -> Iterator[pa.Table]:
            for number in range(file.num_row_groups):
                yield change(file.read_row_group(number))

        write_table(target, file.schema_arrow, groups())


def _mapped(rows: pa.Table, column: str, make: Callable[[str], str]) -> pa.Table:
    told = [None if each is None else make(each) for each in rows[column].to_pylist()]
    at = rows.schema.get_field_index(column)
    return rows.set_column(at, rows.schema.field(at), pa.array(told, rows.schema.field(at).type))


def _without(rows: pa.Table, column: str, presets: tuple[str, ...] | None) -> pa.Table:
    """Rows whose pictures in a column are null: all of them, or those that `presets` drew."""
    if column not in rows.column_names:
        return rows
    kept = rows[column].to_pylist()
    drawn_by = (
        rows["visualization_preset"].to_pylist() if presets and "visualization_preset" in rows.column_names else []
    )
    gone = [True] * len(rows) if presets is None else [each in presets for each in drawn_by] or [False] * len(rows)
    data = [None if lost or cell is None else cell["bytes"] for cell, lost in zip(kept, gone, strict=True)]
    at = rows.schema.get_field_index(column)
    return rows.set_column(at, rows.schema.field(at), image_column(data))
