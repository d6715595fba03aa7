"""The options of `layers`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from actmine.options.shared import MODEL_HELP, WEIGHTS_HELP, Channels, Crop, Interpolation, Mean, Resize, Std


@dataclass(frozen=True, slots=True)
class Layers:
    """Lists layers with their units, map sizes and receptive fields.

    A glob selects among the unit-bearing layers: convolutions and linear maps after the normalization and activation
    that directly follow them, and residual sums. An exact name may be any node or module of the network.

    Examples:  layers --model googlenet   |   layers --model resnet50 --layers 'layer4.*' --json

    layers --model timm/convnext_tiny   |   layers --model mine.networks:digits --crop 28 --channels 1
    """

    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "demo"
    weights: Annotated[str, typer.Option(help=WEIGHTS_HELP)] = "random"
    layers: Annotated[
        str, typer.Option(help="Comma-separated globs or exact names; all unit-bearing layers if empty.")
    ] = ""
    resize: Resize = ""
    crop: Crop = ""
    interpolation: Interpolation = ""
    mean: Mean = ""
    std: Std = ""
    channels: Channels = 0
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects with the columns of layers.parquet.")] = (
        False
    )
