"""Finished parts of a stage under way, one Arrow file each, so that an interrupted stage goes on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from actmine.pipeline.storage.parquet import read_arrow, whole_parts, write_arrow


class StageStore:
    """Parts by name in `folder`, each some rows of `schema`."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder, self.schema = folder, schema

    def commit(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Keeps a part. Raises `UserError` if the folder cannot be written."""
        table, sink = pa.Table.from_pylist(rows, self.schema), pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as to:
            to.write_table(table)
        write_arrow(self._path(name), sink.getvalue())

    def rows(self, names: Iterable[str]) -> pa.Table:
        """What the parts of these names hold, in their order. Raises `UserError` if one is damaged."""
        return pa.concat_tables(
            [self.schema.empty_table(), *(read_arrow(self._path(name), self.schema) for name in names)]
        )

    def parts(self) -> set[str]:
        """The names of the parts that are done; damaged ones are deleted, to be made again."""
        there = whole_parts(self.folder.glob("*.arrow"), self.schema)
        return {name.removesuffix(".arrow") for name in there}

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.arrow"
