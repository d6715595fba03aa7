"""The options of `inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from actmine.options.shared import MODEL_HELP, WEIGHTS_HELP, Json, Layers, Quiet, Trust


@dataclass(frozen=True, slots=True)
class Inspect:
    """Shows a picture to a network, and what every layer makes of it: the units that stand out, lit where they fire.

    With a run, units are chosen by how far they are above their mean over its dataset, and stand beside their own
    visualization and strongest images. One PNG for each layer, and a page with all of them: OUT/index.html.

    Examples:
    inspect --image dog.jpg --model resnet50 --layers 'layer4.*'

    inspect --image dog.jpg --other wolf.jpg --run runs/imagenet-val-resnet50 --layers 'layer4.*'

    inspect --image dog.jpg --model resnet50 --class 'golden retriever'
    """

    image: Annotated[Path, typer.Option(help="The picture.")]
    other: Annotated[str, typer.Option(help="Another one, to compare: the same units of both, side by side.")] = ""
    run: Annotated[
        str, typer.Option(help="A finished run: its network, its units' own pictures and strongest images.")
    ] = ""
    model: Annotated[str, typer.Option(help=f"Without a run. {MODEL_HELP}")] = ""
    weights: Annotated[str, typer.Option(help=WEIGHTS_HELP)] = ""
    layers: Layers = ""
    most: Annotated[int, typer.Option(min=1, help="Units shown of each layer.")] = 24
    attention: Annotated[bool, typer.Option(help="Grad-CAM: where in the picture a class is decided.")] = True
    class_: Annotated[
        str, typer.Option("--class", help="Whose: a name or a number. Default: the class that the network predicts.")
    ] = ""
    out: Annotated[str, typer.Option(help="Folder to write to. Default: inspections/IMAGE-MODEL.")] = ""
    trust: Trust = False
    quiet: Quiet = False
    as_json: Json = False
