"""`sheets`: contact sheets of units and overviews of layers, as pictures."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.console import Display
from jobs.options import FinishedRun, Json, Layers, Quiet, Trust, Units
from pipeline.choose import parse_units
from pipeline.run import open_run
from pipeline.sheets.region import Shown
from pipeline.sheets.unit_sheet import Look
from pipeline.sheets.write import Format, write_grids, write_overviews, write_sheets
from pipeline.stages.views import check_method


def sheets(
    run: FinishedRun,
    layers: Layers = "",
    units: Units = "",
    most: Annotated[
        int | None, typer.Option(min=0, help="Only the N most selective units of each layer; 0: none.")
    ] = None,
    field: Annotated[
        Shown,
        typer.Option(help="What crops show: box, all that a unit sees; or focus, the part that matters, if measured."),
    ] = Shown.box,
    views: Annotated[
        bool,
        typer.Option(help="Below large crops what of them drives the unit, where `make views` projected them."),
    ] = True,
    method: Annotated[str, typer.Option(help="Which views: deconvnet or guided. Default: whichever there are.")] = "",
    maps: Annotated[
        bool, typer.Option(help="Heat maps over large crops and their whole images: where the unit is active.")
    ] = True,
    grids: Annotated[
        bool, typer.Option(help="Also views of units beside the patches they are of, as Zeiler and Fergus drew them.")
    ] = False,
    overviews: Annotated[bool, typer.Option(help="Also one overview of each layer.")] = True,
    kind: Annotated[
        Format, typer.Option("--format", help="png for screens; pdf or svg for paper, with text and lines sharp.")
    ] = Format.png,
    large: Annotated[int, typer.Option(help="How many crops of a unit are large, above their whole images.")] = 5,
    columns: Annotated[int, typer.Option(help="Columns of the smaller crops.")] = 9,
    crops: Annotated[int, typer.Option(help="How many crops of a unit there are in all, at most.")] = 50,
    trust: Trust = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Draws contact sheets: one picture per unit and an overview of each layer.

    A sheet shows what the unit itself prefers, its numbers, and the image regions that drive it hardest, the first
    few within their whole image. Files: RUN/sheets/LAYER/UNIT.png, RUN/sheets/LAYER/overview.png and, with --grids,
    RUN/sheets/LAYER/views.png.

    The most selective units fire, and their exemplars share a label more than others' do.

    Examples:  sheets --run runs/demo-demo --layers 'block5.*' --units 3,7,10-20

    sheets --run runs/photos-resnet50 --layers 'layer4.*' --most 10 --field focus

    sheets --run runs/photos-resnet50 --layers 'layer2.*' --most 16 --grids

    sheets --run runs/demo-demo --layers block4.relu --units 14 --format pdf --columns 7 --crops 19
    """
    display = Display(quiet or as_json)
    look = Look(large, columns, crops)
    opened = open_run(run, trust)
    wanted = [name.strip() for name in layers.split(",") if name.strip()]
    numbers = parse_units(units) if units.strip() else None
    if method:
        check_method(method)
    written = []
    if grids:  # first: it says what is missing
        written += write_grids(
            opened, wanted, numbers, most=most or None, shown=field, method=method, kind=kind, progress=display
        )
    if most != 0:
        written += write_sheets(
            opened,
            wanted,
            numbers,
            most=most,
            shown=field,
            views=views,
            method=method,
            maps=maps,
            look=look,
            kind=kind,
            progress=display,
        )
    if overviews:
        written += write_overviews(opened, wanted, shown=field, kind=kind, progress=display)
    if as_json:
        display.answer(sheets=written)
    if written:
        display.say(f"{len(written):,} pictures in {opened.path / 'sheets'}, for example {written[0]}")
