"""`views`: projects the strongest exemplars of a finished run back to pixels."""

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
    WorkerCores,
)
from pipeline.engines.ray import BLOCK_SECONDS
from pipeline.exemplars.projection import METHODS
from pipeline.run import open_run
from pipeline.stages.views import MOST, check_method, view_run


def views(
    run: FinishedRun,
    method: Annotated[str, typer.Option(help=f"{' or '.join(METHODS)}.")] = "deconvnet",
    layers: Layers = "",
    most: Annotated[int, typer.Option(min=1, help="Exemplars of each unit that get views.")] = MOST,
    weights: MovedWeights = "",
    device: Device = "auto",
    engine: Engine = EngineName.local,
    worker_cores: WorkerCores = 0,
    block_seconds: BlockSeconds = BLOCK_SECONDS,
    trust: Trust = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
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
    display = Display(quiet or as_json)
    check_method(method)
    place = prepared(engine, device)
    opened = open_run(run, trust)
    its = asked(opened, layers, "", weights)
    display.say(
        f"Projecting units of {len(its.layers)} layers of {its.network.name} ({its.network.weights}) by {method}."
    )
    with workforce(engine, device, place, worker_cores, block_seconds, display) as crew:
        record = view_run(
            opened.path,
            opened.shards_to_read,
            its.network,
            its.traced,
            its.layers,
            crew,
            display,
            method=method,
            most=most,
        )
    about = record["views"][method]
    display.say(f"{opened.path / 'views'} has {about['views']:,} views of {about['layers']} layers by {method}.")
    display.say(f"Look at them: make sheets RUN={opened.path} LAYERS='{its.layers[-1].name}' ARGS='--grids'")
    if as_json:
        display.answer(run=opened.path, method=method, **about)
