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

    OTHER may name several runs, by commas or a pattern: each is compared with RUN. With `--checkpoints` they are
    checkpoints of RUN's network in training, the oldest first (a pattern's in the order of the numbers in their names),
    and RUN is the last: RUN/checkpoints/ says of every unit when it came to be, how it drifted and what was lost.

    Examples:  compare --run runs/photos-resnet50 --other runs/photos-squeezenet1_1

    compare --run runs/photos-resnet50 --other runs/photos-vgg16 --layers 'layer4.*' --most 1

    compare --run runs/end --other 'runs/step-*' --checkpoints
    """

    run: FinishedRun
    other: Annotated[
        str,
        typer.Option(help="Another run over the same dataset, as a rule of another network; several by commas or *."),
    ]
    layers: Annotated[str, typer.Option(help="Comma-separated names or globs of RUN's layers; all if empty.")] = ""
    most: Annotated[int, typer.Option(min=1, help="Matches of each unit.")] = MATCHED
    search: Annotated[str, typer.Option(help=f"{' or '.join(SEARCHES)} (which needs faiss): both find the same.")] = (
        EXACT
    )
    both: Annotated[
        bool, typer.Option("--both", help="The other way round as well: OTHER's matches in RUN, into OTHER/matches/.")
    ] = False
    checkpoints: Annotated[
        bool,
        typer.Option("--checkpoints", help="OTHER are checkpoints of RUN's network: follow its units."),
    ] = False
    device: Device = "auto"
    quiet: Quiet = False
    as_json: Json = False
