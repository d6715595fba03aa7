"""The options of `dictionary`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from actmine.options.shared import FinishedRun, Json, MovedWeights, Quiet, Trust


@dataclass(frozen=True, slots=True)
class Dictionary:
    """Trains a sparse dictionary on the vectors of a layer: directions whose combinations, a few at a time, make them.

    A top-k autoencoder (Gao et al. 2024), on the images that the run was mined over, which go through the network
    again; no activation is written. OUT is in the layout of SAELens. Its latents are units for `mine`.

    Interrupt it at any time: the same command goes on where it stopped.

    Examples:
    dictionary --run runs/demo-demo --layer block4.relu --latents 640

    mine --dictionary block4.relu=runs/demo-demo/dictionaries/block4.relu/640 --run runs/demo-demo --layers block4.relu
    """

    run: FinishedRun
    layer: Annotated[str, typer.Option(help="The layer: its name.")]
    latents: Annotated[int, typer.Option(min=0, help="How many. Default: 8 times the layer's units.")] = 0
    k: Annotated[int, typer.Option(min=1, help="Latents that are active at a position.")] = 16
    vectors: Annotated[int, typer.Option(min=1, help="Vectors to learn from, each as often as it takes.")] = 4_000_000
    tokens: Annotated[str, typer.Option(help="Tokens to learn from: all, patch or cls.")] = ""
    out: Annotated[str, typer.Option(help="Folder to write to. Default: RUN/dictionaries/LAYER/LATENTS.")] = ""
    seed: Annotated[int, typer.Option(min=0, help="Of its beginnings and of the order of vectors.")] = 0
    dataset: Annotated[str, typer.Option(help="Where the run's dataset is now. Default: where it was mined.")] = ""
    data: Annotated[Path, typer.Option(help="Where named datasets live.")] = Path("data")
    weights: MovedWeights = ""
    trust: Trust = False
    quiet: Quiet = False
    as_json: Json = False
