"""The options of `focus`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from actmine.options.shared import (
    FinishedRun,
    Layers,
    MovedWeights,
    Units,
    Work,
)
from actmine.pipeline.words import FOCUSED


@dataclass(frozen=True, slots=True)
class Focus(Work):
    """Measures the focus of exemplars: the part of the receptive field that the activation truly depends on.

    It is the smallest box with 95% of the unit's squared input gradient (Luo et al. 2016), for layers whose field is
    larger than half of the input. Columns focus_left to focus_bottom of RUN/exemplars/ hold it; sheets show it with
    `--field focus`, the atlas outlines it. An image goes forward once, and back for each exemplar: many times the scan.

    What other calls have measured stays: calls for further layers, units and exemplars add up. The images are read
    again where they were mined. Interrupt it at any time: the same command goes on where it stopped.

    Examples:
    focus --run runs/demo-demo --layers 'block5.*'

    focus --run runs/photos-resnet50 --layers 'layer4.*' --units 3,7,10-20 --most 3
    """

    run: FinishedRun
    layers: Layers = ""
    units: Units = ""
    most: Annotated[int, typer.Option(min=1, help="Exemplars of each unit that are measured.")] = FOCUSED
    weights: MovedWeights = ""
