"""`sheets`: contact sheets of units and overviews of layers, as pictures."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.console import Display
from pipeline.run import open_run
from pipeline.sheets.choose import parse_units
from pipeline.sheets.region import Shown
from pipeline.sheets.write import write_overviews, write_sheets


def sheets(
    run: Annotated[str, typer.Option(help="Folder of a finished run, or s3://bucket/prefix.")],
    layers: Annotated[str, typer.Option(help="Comma-separated names or globs; all layers if empty.")] = "",
    units: Annotated[str, typer.Option(help="Numbers and spans such as 3,7,10-20; all units if empty.")] = "",
    most: Annotated[
        int | None, typer.Option(min=0, help="Only the N most selective units of each layer; 0: overviews only.")
    ] = None,
    field: Annotated[
        Shown,
        typer.Option(help="What crops show: box, all that a unit sees; or focus, the part that matters, if measured."),
    ] = Shown.box,
    overviews: Annotated[bool, typer.Option(help="Also one overview of each layer.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Draws contact sheets: one PNG per unit and an overview of each layer.

    A sheet shows what the unit itself prefers, its numbers, and the image regions that drive it hardest, the first
    few within their whole image. Files: RUN/sheets/LAYER/UNIT.png and RUN/sheets/LAYER/overview.png.

    The most selective units fire, and their exemplars share a label more than others' do.

    Examples:  sheets --run runs/demo-demo --layers 'block5.*' --units 3,7,10-20

    sheets --run runs/photos-resnet50 --layers 'layer4.*' --most 10 --field focus
    """
    display = Display(quiet)
    opened = open_run(run)
    wanted = [name.strip() for name in layers.split(",") if name.strip()]
    numbers = parse_units(units) if units.strip() else None
    written = write_sheets(opened, wanted, numbers, most=most, shown=field, progress=display) if most != 0 else []
    if overviews:
        written += write_overviews(opened, wanted, shown=field, progress=display)
    if written:
        display.say(f"{len(written):,} pictures in {opened.path / 'sheets'}, for example {written[0]}")
