"""The options of `visualize`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from actmine.options.shared import (
    FinishedRun,
    Generator,
    Layers,
    MovedWeights,
    Units,
    Work,
)
from actmine.pipeline.words import PRESETS


@dataclass(frozen=True, slots=True)
class Visualize(Work):
    """Draws what units of a finished run prefer, by gradient ascent.

    Its network and weights are loaded again as run.json names them. RUN/visualizations/ holds a file for each layer and
    preset, so that presets stand side by side; the units table, sheets and overviews show the best of them.
    Units, layers and presets that are not named stay as they are; what the same recipe has drawn is not drawn again.

    Interrupt it at any time: the same command goes on where it stopped.

    Examples:
    visualize --run runs/demo-demo --preset default --layers 'block5.*' --units 3,7,10-20 --seed 1

    visualize --run runs/photos-resnet50 --layers 'layer4.*' --weights moved/mine.safetensors
    """

    run: FinishedRun
    preset: Annotated[str, typer.Option(help=f"The recipe: {', '.join(PRESETS)}.")] = "default"
    layers: Layers = ""
    units: Units = ""
    generator: Generator = ""
    weights: MovedWeights = ""
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other pictures.")] = 0
