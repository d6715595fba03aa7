"""`check`: shows the crops of the strongest exemplars of a finished run to the network, each alone."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.console import Display
from jobs.finished import asked, prepared, workforce
from jobs.options import (
    BlockSeconds,
    Device,
    Engine,
    EngineName,
    FinishedRun,
    Json,
    Layers,
    MovedWeights,
    Quiet,
    Trust,
    Units,
    WorkerCores,
)
from pipeline.engines.ray import BLOCK_SECONDS
from pipeline.run import open_run
from pipeline.stages.check_crops import MOST, check_crops


def check(
    run: FinishedRun,
    layers: Layers = "",
    units: Units = "",
    most: Annotated[int, typer.Option(min=1, help="Exemplars of each unit whose crop is checked.")] = MOST,
    weights: MovedWeights = "",
    device: Device = "auto",
    engine: Engine = EngineName.local,
    worker_cores: WorkerCores = 0,
    block_seconds: BlockSeconds = BLOCK_SECONDS,
    trust: Trust = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
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
    display = Display(quiet or as_json)
    place = prepared(engine, device)
    opened = open_run(run, trust)
    its = asked(opened, layers, units, weights)
    with workforce(engine, device, place, worker_cores, block_seconds, display) as crew:
        record = check_crops(
            opened.path, its.network, its.traced, its.layers, crew, display, most, opened.shards_to_read, its.units
        )  # fmt: skip
    about = record["crop_check"]
    display.say(f"{about['checked']:,} exemplars of {about['layers']} layers have a crop_activation.")
    if as_json:
        display.answer(run=opened.path, **about)
