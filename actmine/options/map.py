"""The options of `map`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from actmine.options.shared import FinishedRun, Json, Layers, Quiet, Trust
from actmine.pipeline.words import MapOf


@dataclass(frozen=True, slots=True)
class Map:
    """Lays out all units of RUN in a plane, so that those that respond to the same images lie together.

    t-SNE of the sketches of RUN, or, of images, of the units that each drives. RUN/map.parquet (or map_images.parquet)
    holds the places, the atlas shows them, and both say how much of what is near is near on the map: no plane can hold
    all of it. The same run gives the same map.

    Examples:  map --run runs/demo-demo

    map --run runs/photos-resnet50 --layers 'layer4.*' --out map.pdf

    map --run runs/photos-resnet50 --by images
    """

    run: FinishedRun
    layers: Layers = ""
    by: Annotated[MapOf, typer.Option(help="What lies on it: units, or images by the units that they drive.")] = (
        MapOf.units
    )
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another layout of the same neighbours.")] = 0
    out: Annotated[str, typer.Option(help="Also a picture of it: a file .png, .svg or .pdf.")] = ""
    trust: Trust = False
    quiet: Quiet = False
    as_json: Json = False
