"""The options of `sheets`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from actmine.options.shared import FinishedRun, Json, Layers, Quiet, Trust, Units
from actmine.pipeline.words import Format, Paper, Shown


@dataclass(frozen=True, slots=True)
class Sheets:
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

    run: FinishedRun
    layers: Layers = ""
    units: Units = ""
    most: Annotated[int | None, typer.Option(min=0, help="Only the N most selective units of each layer; 0: none.")] = (
        None
    )
    field: Annotated[
        Shown,
        typer.Option(help="What crops show: box, all that a unit sees; or focus, the part that matters, if measured."),
    ] = Shown.box
    views: Annotated[
        bool,
        typer.Option(help="Below large crops what of them drives the unit, where `views` projected them."),
    ] = True
    method: Annotated[str, typer.Option(help="Which views: deconvnet or guided. Default: whichever there are.")] = ""
    maps: Annotated[
        bool, typer.Option(help="Heat maps over large crops and their whole images: where the unit is active.")
    ] = True
    preset: Annotated[
        str, typer.Option(help="Whose visualizations: of what `visualize` drew. Default: each unit's best of all.")
    ] = ""
    grids: Annotated[
        bool, typer.Option(help="Also views of units beside the patches they are of, as Zeiler and Fergus drew them.")
    ] = False
    cells: Annotated[bool, typer.Option(help="Also the map of each level of activation atlases.")] = False
    overviews: Annotated[bool, typer.Option(help="Also one overview of each layer.")] = True
    format: Annotated[
        Format, typer.Option(help="png for screens; pdf or svg for paper, with text and lines sharp.")
    ] = Format.png
    paper: Annotated[Paper, typer.Option(help="Pages of a PDF: a4 or letter.")] = Paper.a4
    large: Annotated[int, typer.Option(help="How many crops of a unit are large, above their whole images.")] = 5
    columns: Annotated[int, typer.Option(help="Columns of the smaller crops.")] = 9
    crops: Annotated[int, typer.Option(help="How many crops of a unit there are in all, at most.")] = 50
    trust: Trust = False
    quiet: Quiet = False
    as_json: Json = False
