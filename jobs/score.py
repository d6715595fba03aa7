"""`score`: how well units of a finished run can be understood, without asking people."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

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
from pipeline.stages.score import score_run, weak_bands
from pipeline.stages.similarity import BUILTIN, check_similarity


def score(
    run: FinishedRun,
    layers: Layers = "",
    units: Units = "",
    similarity: Annotated[
        str,
        typer.Option(help="builtin (the run's own network), dreamsim, lpips, or package.module:factory (of your own)."),
    ] = BUILTIN,
    weights: MovedWeights = "",
    device: Device = "auto",
    engine: Engine = EngineName.local,
    worker_cores: WorkerCores = 0,
    block_seconds: BlockSeconds = BLOCK_SECONDS,
    trust: Trust = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
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
    display = Display(quiet or as_json)
    check_similarity(similarity)
    place = prepared(engine, device)
    opened = open_run(run, trust)
    weak = weak_bands(opened)
    its = asked(opened, layers, units, weights)
    display.say(
        f"Scoring {its.count:,} units of {its.network.name} ({its.network.weights}) by {similarity}: "
        f"images of the band top against those of {', '.join(weak)}."
    )
    with workforce(engine, device, place, worker_cores, block_seconds, display) as crew:
        record = score_run(
            opened, its.network, its.traced, its.layers, crew, display, units=its.units, similarity=similarity
        )
    _show(record["interpretability"]["layers"], display)
    if not any(opened.units(layer.name)["visualization_preset"].notna().any() for layer in its.layers):
        display.say(f"No unit of them is drawn: `make visualize RUN={opened.path}`, then score again.")
    if as_json:
        display.answer(run=opened.path, **record["interpretability"])


def _show(layers: dict[str, dict[str, Any]], display: Display) -> None:
    """The median score of each layer."""
    table = Table(box=box.SIMPLE_HEAD, title="Median score", title_style="bold", title_justify="left")
    table.add_column("layer")
    for heading in ("units", "by exemplars", "by visualization"):
        table.add_column(heading, justify="right")
    for name, about in layers.items():
        scores = ("" if about[key] is None else f"{about[key]:.2f}" for key in ("exemplars", "visualization"))
        table.add_row(name, f"{about['units']:,}", *scores)
    display.console.print(table)
