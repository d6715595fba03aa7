"""The options of `score`."""

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
from actmine.pipeline.words import BUILTIN


@dataclass(frozen=True, slots=True)
class Score(Work):
    """Scores how well units can be understood from their exemplars, and from their visualizations.

    The machine interpretability score (Zimmermann, Klindt, Brendel 2024) puts a task to a measure of similarity: of two
    images that were not shown, which is more like those that drive the unit hardest? 0.5 is chance, 1 certainty. The
    run must hold weak images as well: mine it with --bands 5 --band-images 40. docs/units.md says more.

    The images are read again where they were mined. Interrupt it at any time: the same command goes on where it
    stopped.

    Examples:
    score --run runs/demo-demo --layers 'block5.*'

    score --run runs/photos-resnet50 --layers 'layer4.*' --similarity dreamsim
    """

    run: FinishedRun
    layers: Layers = ""
    units: Units = ""
    similarity: Annotated[
        str,
        typer.Option(help="builtin (the run's own network), dreamsim, lpips, or package.module:factory (of your own)."),
    ] = BUILTIN
    weights: MovedWeights = ""
