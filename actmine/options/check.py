"""The options of `check`."""

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
from actmine.pipeline.words import CHECKED


@dataclass(frozen=True, slots=True)
class Check(Work):
    """Checks crops: what the pixels inside an exemplar's box drive its unit to when the network sees nothing else.

    They are put back at their place in a picture that has the network's mean colour everywhere else. An activation
    close to that of the whole image says that box, crop and position are right. Column crop_activation of
    RUN/exemplars/ holds it. Every box of an image is a forward pass of its own, as far as its units depend on it: many
    times the scan.

    What other calls have checked stays: calls for further layers, units and exemplars add up. Images of which the run
    holds a reduced picture are read again. Interrupt it at any time: the same command goes on where it stopped.

    Examples:
    check --run runs/demo-demo --layers 'block5.*'

    check --run runs/photos-resnet50 --layers 'layer4.*' --units 3,7,10-20 --most 3
    """

    run: FinishedRun
    layers: Layers = ""
    units: Units = ""
    most: Annotated[int, typer.Option(min=1, help="Exemplars of each unit whose crop is checked.")] = CHECKED
    weights: MovedWeights = ""
