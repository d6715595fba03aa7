"""`layers`: what a network offers to mine."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from actmine.commands.live import NOTHING_LIVE, Live
from actmine.console import Display
from actmine.options.layers import Layers
from actmine.pipeline.network.grids import grids
from actmine.pipeline.network.layouts import SEQUENCE, TOKEN_LAYOUTS, WINDOW_MAPS, WINDOWS
from actmine.pipeline.preprocessing.options import PreprocessingOptions
from actmine.pipeline.preprocessing.sight import USUAL, padding_warning, resizes, sight
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from actmine.pipeline.tables.layer_table import layer_rows


def layers(options: Layers, display: Display, live: Live = NOTHING_LIVE) -> list[dict[str, Any]]:
    """Carries out `layers`; its answer is what `--json` says."""
    overrides = PreprocessingOptions(
        options.resize, options.crop, options.interpolation, options.mean, options.std, options.channels
    )
    network = live.network(options.model, options.weights, overrides)
    for notice in network.notices:
        display.say(notice)
    if not options.as_json:
        display.say(sight(network.preprocessing))
        if resizes(network.preprocessing) and (warning := padding_warning(network.preprocessing, [USUAL])):
            display.say(warning)
    traced = network.traced()
    chosen = traced.choose(options.layers, dependent=True)
    rows = layer_rows(chosen, receptive_fields(traced, chosen), grids(traced, chosen))
    if options.as_json:
        return rows
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{network.name}: {len(rows)} layers, {sum(r['units'] for r in rows):,} units",
        title_justify="left",
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("layer", no_wrap=True, min_width=max(len(row["layer"]) for row in rows))
    for heading in ("units", "map", "field", "stride"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("made by", min_width=max(len(word) for row in rows for word in row["kind"].split()))
    for row in rows:
        size = _positions(row)
        field = f"{row['rf_height']} × {row['rf_width']}" + (" all" if row["rf_global"] else "")
        stride = "" if row["stride_y"] is None else f"{row['stride_y']}, {row['stride_x']}"
        table.add_row(row["layer"], str(row["units"]), size, field, stride, row["kind"])
    _print(table)
    for remark in traced.remarks():
        print(remark)
    for note in sorted({row["rf_note"] for row in rows if row["rf_note"]}):
        Console().print(f"Note: {note}; its layers count as seeing the whole input.", markup=False)
    return rows


def _print(table: Table) -> None:
    """As wide as the terminal, wider where that would break words; elsewhere than on a terminal a row is one line."""
    console = Console(highlight=False)
    needed = Measurement.get(console, console.options.update(max_width=1000), table)
    console.width = max(console.width, needed.minimum) if console.is_terminal else needed.maximum
    console.print(table)


def _positions(row: dict[str, Any]) -> str:
    """The size of a layer's map, in words where it is none."""
    if row["height"] is None:
        return ""
    if row["layout"] in (*TOKEN_LAYOUTS, SEQUENCE):
        if row["first_patch"] is None:
            return f"{row['height']} tokens"
        others = row["height"] - row["patch_rows"] * row["patch_columns"]
        return f"{f'{others} + ' if others else ''}{row['patch_rows']} × {row['patch_columns']} tokens"
    across = "windows of" if row["layout"] in (WINDOWS, WINDOW_MAPS) else "×"
    return f"{row['height']} {across} {row['width']}"
