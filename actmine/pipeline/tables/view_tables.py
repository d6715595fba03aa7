"""Where views are kept: a file per layer and method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actmine.pipeline.errors import UserError, near_matches
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import ROWS_A_PART, image_column, read_rows, write_table
from actmine.pipeline.storage.seals import is_whole
from actmine.pipeline.words import METHODS
from actmine.schemas.views import INPUT_BOX, VIEWS

SEEN = pa.schema(
    [
        ("row", pa.int64()),
        ("scale", pa.float32()),
        *((side, pa.int32()) for side in INPUT_BOX),
        ("picture", pa.binary()),
    ]
)
"""What a projection under way keeps of a view."""


def check_method(method: str) -> None:
    """Raises `UserError` for a method that there is not."""
    if method not in METHODS:
        raise UserError(f"There is no METHOD {method!r}.{near_matches(method, METHODS)} It is {' or '.join(METHODS)}.")


class LayerViews:
    """The views of one layer by one method, in the tables of `run`."""

    def __init__(self, run: Path, layer: str, method: str) -> None:
        self.layer, self.method = layer, method
        self.path = table_file(run, "views", f"{layer}-{method}")

    def complete(self, recipe: str, wanted: int) -> bool:
        """Whether they are `wanted` views by `recipe`, and no others."""
        if not is_whole(self.path):
            return False
        recipes = read_rows(self.path, ["recipe"])["recipe"]
        return len(recipes) == wanted and bool(pc.all(pc.equal(recipes, recipe), min_count=0).as_py())

    def count(self) -> int:
        """How many pictures there are."""
        if not self.path.is_file():
            return 0
        scales = read_rows(self.path, ["scale"])["scale"]
        return len(scales) - scales.null_count

    def write(self, wanted: pa.Table, seen: pa.Table, recipe: str) -> None:
        """Writes the views of the exemplars `wanted` (row, unit, rank, image_id), all of which are `seen`.

        They replace whatever was there.
        """
        order = np.argsort(seen["row"].to_numpy(), kind="stable")
        places = order[np.searchsorted(seen["row"].to_numpy()[order], wanted["row"].to_numpy())]
        write_table(self.path, VIEWS, self._parts(wanted, seen, places, recipe))

    def _parts(self, wanted: pa.Table, seen: pa.Table, places: np.ndarray, recipe: str) -> Iterator[pa.Table]:
        """Few rows at a time, so that few pictures are in memory together."""
        batches = _Batches(seen)
        for at in range(0, max(len(wanted), 1), ROWS_A_PART):
            some = wanted.slice(at, ROWS_A_PART)
            columns = {name: some[name] for name in ("unit", "rank", "image_id")} | {
                "layer": pa.array([self.layer] * len(some), pa.string()),
                "method": pa.array([self.method] * len(some), pa.string()),
                "recipe": pa.array([recipe] * len(some), pa.string()),
            }
            found = batches.take(places[at : at + ROWS_A_PART].tolist())
            columns |= {name: found[name] for name in ("scale", *INPUT_BOX)}
            columns["view"] = image_column(found["picture"].combine_chunks())
            yield pa.table([columns[name] for name in VIEWS.names], schema=VIEWS)


class _Batches:
    """Rows of a table in pieces: pyarrow's own `take` would join all pieces, pictures and all, for a few rows."""

    def __init__(self, table: pa.Table) -> None:
        self._schema, self._batches = table.schema, table.to_batches()
        self._begins = np.cumsum([0, *(len(batch) for batch in self._batches)])

    def take(self, rows: Iterable[int]) -> pa.Table:
        """Some rows, in the order that is asked for."""
        found = []
        for row in rows:
            batch = int(np.searchsorted(self._begins, row, side="right")) - 1
            found.append(self._batches[batch].slice(row - int(self._begins[batch]), 1))
        return pa.Table.from_batches(found, self._schema)


def methods_of(run: Path, layer: str, methods: Iterable[str]) -> list[str]:
    """Those of some methods by which a layer has views."""
    return [method for method in methods if table_file(run, "views", f"{layer}-{method}").is_file()]
