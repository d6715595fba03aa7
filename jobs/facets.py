"""`facets`: finds the facets of units of a finished run among their exemplars."""

from __future__ import annotations

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
from pipeline.ascent.facets import check_installed
from pipeline.engines.ray import BLOCK_SECONDS
from pipeline.run import open_run
from pipeline.stages.exemplar_facets import facet_run


def facets(
    run: FinishedRun,
    layers: Layers = "",
    units: Units = "",
    weights: MovedWeights = "",
    device: Device = "auto",
    engine: Engine = EngineName.local,
    worker_cores: WorkerCores = 0,
    block_seconds: BlockSeconds = BLOCK_SECONDS,
    trust: Trust = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Sorts each unit's exemplars into facets: the kinds of images that it answers to.

    The network's own last layer says which images are alike. A unit has one facet unless its exemplars fall into groups
    that stand further apart than any cut through one cloud; up to four. Column facet of exemplars/, facets of units/.

    The images are read again where they were mined. Interrupt it at any time: the same command goes on where it
    stopped.

    Examples:
    facets --run runs/demo-demo --layers 'block5.*'

    facets --run runs/photos-resnet50 --layers 'layer4.*' --units 0-99
    """
    display = Display(quiet or as_json)
    check_installed()
    place = prepared(engine, device)
    opened = open_run(run, trust)
    its = asked(opened, layers, units, weights)
    display.say(f"Finding facets of {its.count:,} units of {its.network.name} ({its.network.weights}).")
    with workforce(engine, device, place, worker_cores, block_seconds, display) as crew:
        record = facet_run(opened, its.network, its.traced, its.layers, crew, display, units=its.units)
    about = record["facets"]
    display.say(
        f"{about['several']:,} of {about['units']:,} units that fire have two facets or more, by {about['by']}: "
        f"columns facets of {opened.path / 'units'} and facet of {opened.path / 'exemplars'}."
    )
    if as_json:
        display.answer(run=opened.path, **about)
