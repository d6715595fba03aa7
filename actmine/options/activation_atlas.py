"""The options of `activation-atlas`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from actmine.options.shared import FinishedRun, Generator, MovedWeights, Work
from actmine.pipeline.words import AUTO, PRESETS

_CLIMBING = [name for name in PRESETS if name not in ("mean-image", "vital", "deepdream")]


@dataclass(frozen=True, slots=True)
class ActivationAtlas(Work):
    """Makes the activation atlas of a layer of a finished run: what the network sees, combinations of units and all.

    Of each image one position is drawn; the layer's vectors there are laid out on a map, so that alike ones lie side by
    side; and for each cell of a grid over it ascent draws the mean direction. RUN/atlas_points/ has the positions,
    atlas_cells/ cells with their drawings, labels and units, atlas_crops/ crops of images; the atlas shows them as a
    map.
    After Carter et al., Exploring Neural Networks with Activation Atlases (Distill 2019).

    Interrupt it at any time: the same command goes on where it stopped.

    Examples:
    activation-atlas --run runs/demo-demo --layer block5.relu

    activation-atlas --run runs/photos-resnet50 --layer layer4.1.relu --grids 10,20,40
    """

    run: FinishedRun
    layer: Annotated[str, typer.Option(help="The layer: its name.")]
    grids: Annotated[
        str, typer.Option(help="Cells a side, one number a zoom level, as 10,20,40. Default: fitted to the images.")
    ] = ""
    images: Annotated[int, typer.Option(min=1, help="Images at most, drawn at random where there are more.")] = 100_000
    least: Annotated[int, typer.Option(min=1, help="Images of a cell, at least; with fewer it stays empty.")] = 4
    preset: Annotated[str, typer.Option(help=f"The recipe of ascent: {', '.join(_CLIMBING)}.")] = "default"
    generator: Generator = ""
    label_tree: Annotated[str, typer.Option(help="Kinds of labels, as of mine: a CSV or JSON file, auto or none.")] = (
        AUTO
    )
    weights: MovedWeights = ""
    dataset: Annotated[str, typer.Option(help="Where the run's dataset is now. Default: where it was mined.")] = ""
    data: Annotated[Path, typer.Option(help="Where named datasets live.")] = Path("data")
    seed: Annotated[int, typer.Option(min=0, help="Of the positions, the layout and the drawings.")] = 0
