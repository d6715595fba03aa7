"""The options of `compare`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from actmine.options.shared import Device, FinishedRun, Json, Quiet
from actmine.pipeline.words import EXACT, MATCHED, SEARCHES


@dataclass(frozen=True, slots=True)
class Compare:
    """Finds for each unit of RUN the units of OTHER that respond to the same images.

    Both runs were mined over the same dataset, with sketches of the same length (what `mine` does by default).
    RUN/matches/ gets a table named after OTHER's folder; it replaces the one of the same run. A similarity is the
    estimated correlation of image activations over the whole dataset; docs/units.md says how good the estimate is.

    Examples:  compare --run runs/photos-resnet50 --other runs/photos-squeezenet1_1

    compare --run runs/photos-resnet50 --other runs/photos-vgg16 --layers 'layer4.*' --most 1
    """

    run: FinishedRun
    other: Annotated[str, typer.Option(help="Another run over the same dataset, of another network as a rule.")]
    layers: Annotated[str, typer.Option(help="Comma-separated names or globs of RUN's layers; all if empty.")] = ""
    most: Annotated[int, typer.Option(min=1, help="Matches of each unit.")] = MATCHED
    search: Annotated[str, typer.Option(help=f"{' or '.join(SEARCHES)} (which needs faiss): both find the same.")] = (
        EXACT
    )
    device: Device = "auto"
    quiet: Quiet = False
    as_json: Json = False
