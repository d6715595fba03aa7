"""The options of `facets`."""

from __future__ import annotations

from dataclasses import dataclass

from actmine.options.shared import (
    FinishedRun,
    Layers,
    MovedWeights,
    Units,
    Work,
)


@dataclass(frozen=True, slots=True)
class Facets(Work):
    """Sorts each unit's exemplars into facets: the kinds of images that it answers to.

    The network's own last layer says which images are alike. A unit has one facet unless its exemplars fall into groups
    that stand further apart than any cut through one cloud; up to four. Column facet of exemplars/, facets of units/.

    The images are read again where they were mined. Interrupt it at any time: the same command goes on where it
    stopped.

    Examples:
    facets --run runs/demo-demo --layers 'block5.*'

    facets --run runs/photos-resnet50 --layers 'layer4.*' --units 0-99
    """

    run: FinishedRun
    layers: Layers = ""
    units: Units = ""
    weights: MovedWeights = ""
