"""`focus`: measures which part of its receptive field matters to each of the strongest exemplars of a finished run."""

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
from pipeline.stages.focus import MOST, focus_run


def focus(
    run: FinishedRun,
    layers: Layers = "",
    units: Units = "",
    most: Annotated[int, typer.Option(min=1, help="Exemplars of each unit that are measured.")] = MOST,
    weights: MovedWeights = "",
    device: Device = "auto",
    engine: Engine = EngineName.local,
    worker_cores: WorkerCores = 0,
    block_seconds: BlockSeconds = BLOCK_SECONDS,
    trust: Trust = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
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
    display = Display(quiet or as_json)
    place = prepared(engine, device)
    opened = open_run(run, trust)
    its = asked(opened, layers, units, weights)
    with workforce(engine, device, place, worker_cores, block_seconds, display) as crew:
        record = focus_run(
            opened.path, opened.shards_to_read, its.network, its.traced, its.layers, crew, display, most, its.units
        )  # fmt: skip
    about = record["focus"]
    narrow = sum(layer.name not in about["by_layer"] for layer in its.layers)
    display.say(
        f"{about['found']:,} exemplars of {about['layers']} layers have a focus; the fields of "
        f"{narrow} others are no larger than half of the input."
    )
    display.say(f"Look at them: make sheets RUN={opened.path} LAYERS='{its.layers[-1].name}' ARGS='--field focus'")
    if as_json:
        display.answer(run=opened.path, **about)
