"""`sheets`: contact sheets of units and overviews of layers, as pictures."""

from __future__ import annotations

from typing import Any

from actmine.console import Display
from actmine.options.sheets import Sheets
from actmine.pipeline.choose import parse_units
from actmine.pipeline.run import open_run
from actmine.pipeline.sheets.unit_sheet import Look
from actmine.pipeline.sheets.write import write_cell_maps, write_grids, write_overviews, write_sheets
from actmine.pipeline.tables.view_tables import check_method


def sheets(options: Sheets, display: Display) -> dict[str, Any]:
    """Carries out `sheets`; its answer is what `--json` says."""
    look = Look(options.large, options.columns, options.crops)
    opened = open_run(options.run, options.trust)
    wanted = [name.strip() for name in options.layers.split(",") if name.strip()]
    numbers = parse_units(options.units) if options.units.strip() else None
    if options.method:
        check_method(options.method)
    written = []
    if options.grids:  # first: it says what is missing
        written += write_grids(
            opened,
            wanted,
            numbers,
            most=options.most or None,
            shown=options.field,
            method=options.method,
            kind=options.format,
            paper=options.paper,
            progress=display,
        )
    if options.most != 0:
        written += write_sheets(
            opened,
            wanted,
            numbers,
            most=options.most,
            shown=options.field,
            views=options.views,
            method=options.method,
            maps=options.maps,
            preset=options.preset,
            look=look,
            kind=options.format,
            paper=options.paper,
            progress=display,
        )
    if options.overviews:
        written += write_overviews(
            opened,
            wanted,
            shown=options.field,
            preset=options.preset,
            kind=options.format,
            paper=options.paper,
            progress=display,
        )
    if options.cells:
        written += write_cell_maps(opened, wanted, kind=options.format, paper=options.paper, progress=display)
    if written:
        display.say(f"{len(written):,} pictures in {opened.path / 'sheets'}, for example {written[0]}")
    return {"run": opened.path, "sheets": written}
