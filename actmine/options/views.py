"""The options of `views`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from actmine.options.shared import (
    FinishedRun,
    Layers,
    MovedWeights,
    Work,
)
from actmine.pipeline.words import METHODS, PROJECTED


@dataclass(frozen=True, slots=True)
class Views(Work):
    """Shows what of each exemplar drives its unit: the activation projected back to pixels.

    deconvnet (Zeiler and Fergus 2014) unpools with the switches of the forward pass, rectifies and convolves with
    transposed filters; guided (Springenberg et al. 2015) also closes the ReLUs that were closed on the way forward.
    Both are about ReLUs: other activations keep their own gradient. RUN/views/ holds a file for each layer and method;
    contact sheets show them below the crops, and `sheets --grids` draws them as Zeiler and Fergus did.

    The images are read again where they were mined. Interrupt it at any time: the same command goes on where it
    stopped.

    Examples:
    views --run runs/demo-demo --layers 'block5.*'

    views --run runs/photos-resnet50 --layers 'layer4.*' --method guided --most 5
    """

    run: FinishedRun
    method: Annotated[str, typer.Option(help=f"{' or '.join(METHODS)}.")] = "deconvnet"
    layers: Layers = ""
    most: Annotated[int, typer.Option(min=1, help="Exemplars of each unit that get views.")] = PROJECTED
    weights: MovedWeights = ""
