"""Where facets are kept: which exemplars belong to each, and its picture; a file per layer."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import completed, image_column, read_rows, write_table
from actmine.schemas.facets import FACETS


def add_facets(run: Path, layer: str, preset: str, drawn: pa.Table) -> None:
    """Writes the facets among the rows that ascent has drawn, in place of any of the same units and preset.

    `drawn` has the columns of `visualization_tables.DRAWN`. Rows of other units and presets stay.
    """
    path = table_file(run, "facets", layer)
    most = read_rows(table_file(run, "units", layer), ["activation_max"])["activation_max"].to_pylist()
    drawn = drawn.filter(pc.is_valid(drawn["facet"]))
    ratios = [
        value / most[unit] if (most[unit] or 0) > 0 else None
        for unit, value in zip(drawn["unit"].to_pylist(), drawn["activation"].to_pylist(), strict=True)
    ]
    columns = {name: drawn[name] for name in ("unit", "facet", "exemplars", "silhouette", "activation", "seed")} | {
        "layer": pa.array([layer] * len(drawn), pa.string()),
        "preset": pa.array([preset] * len(drawn), pa.string()),
        "visualization": image_column(drawn["picture"].combine_chunks()),
        "ratio": pa.array(ratios, pa.float64()),
    }
    table = pa.table([columns[name] for name in FACETS.names], schema=FACETS)
    if path.is_file():
        before = completed(read_rows(path), FACETS)
        same = pc.and_(pc.equal(before["preset"], preset), pc.is_in(before["unit"], table["unit"].combine_chunks()))
        table = pa.concat_tables([before.filter(pc.invert(same)), table])
    table = table.sort_by([("unit", "ascending"), ("preset", "ascending"), ("facet", "ascending")])
    write_table(path, FACETS, [table])
