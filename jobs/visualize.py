"""`visualize`: draws units of a finished run, by any preset."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.console import Display
from jobs.finished import asked, prepared, recipe_of, workforce
from jobs.options import (
    BlockSeconds,
    Device,
    Engine,
    EngineName,
    FinishedRun,
    Generator,
    Json,
    Layers,
    MovedWeights,
    Quiet,
    Trust,
    Units,
    WorkerCores,
)
from pipeline.ascent.presets import PRESETS
from pipeline.engines.ray import BLOCK_SECONDS
from pipeline.run import open_run
from pipeline.stages.visualize import visualize_run


def visualize(
    run: FinishedRun,
    preset: Annotated[str, typer.Option(help=f"The recipe: {', '.join(PRESETS)}.")] = "default",
    layers: Layers = "",
    units: Units = "",
    generator: Generator = "",
    weights: MovedWeights = "",
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other pictures.")] = 0,
    device: Device = "auto",
    engine: Engine = EngineName.local,
    worker_cores: WorkerCores = 0,
    block_seconds: BlockSeconds = BLOCK_SECONDS,
    trust: Trust = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Draws what units of a finished run prefer, by gradient ascent.

    Its network and weights are loaded again as run.json names them. RUN/visualizations/ holds a file for each layer and
    preset, so that presets stand side by side; the units table, sheets and overviews show the best of them.
    Units, layers and presets that are not named stay as they are; what the same recipe has drawn is not drawn again.

    Interrupt it at any time: the same command goes on where it stopped.

    Examples:
    visualize --run runs/demo-demo --preset default --layers 'block5.*' --units 3,7,10-20 --seed 1

    visualize --run runs/photos-resnet50 --layers 'layer4.*' --weights moved/mine.safetensors
    """
    display = Display(quiet or as_json)
    recipe = recipe_of(preset, generator)
    place = prepared(engine, device)
    opened = open_run(run, trust)
    its = asked(opened, layers, units, weights)
    display.say(f"Drawing {its.count:,} units of {its.network.name} ({its.network.weights}) by {recipe.name}.")
    with workforce(engine, device, place, worker_cores, block_seconds, display) as crew:
        record = visualize_run(
            opened.path, its.network, its.traced, its.layers, recipe, crew.device, units=its.units, seed=seed,
            progress=display, engine=crew, shards=opened.shards_to_read,
        )  # fmt: skip
    counted = record["visualizations"][recipe.name]
    shares = (
        f"{counted['reached']:,} of {counted['with_ratio']:,} reach the dataset's maximum, {counted['first']:,} of "
        f"{counted['ranked']:,} suit their own unit best in its layer, {counted['never_fired']:,} never fired"
    )
    display.say(f"{opened.path / 'visualizations'} has {counted['pictures']:,} pictures by {recipe.name}: {shares}.")
    display.say(f"Look at them: make sheets RUN={opened.path} LAYERS='{its.layers[-1].name}' UNITS='{units}'")
    if as_json:
        display.answer(run=opened.path, preset=recipe.name, **counted)
