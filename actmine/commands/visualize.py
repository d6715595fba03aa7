"""`visualize`: draws units of a finished run, by any preset."""

from __future__ import annotations

from typing import Any

from actmine.commands.finished import asked, prepared, recipe_of, workforce
from actmine.commands.live import NOTHING_LIVE, Live
from actmine.console import Display
from actmine.options.visualize import Visualize
from actmine.pipeline.run import open_run
from actmine.pipeline.spoken import command
from actmine.pipeline.stages.visualize import visualize_run


def visualize(options: Visualize, display: Display, live: Live = NOTHING_LIVE) -> dict[str, Any]:
    """Carries out `visualize`; its answer is what `--json` says."""
    recipe = recipe_of(options.preset, options.generator)
    place = prepared(options.engine, options.device)
    opened = open_run(options.run, options.trust)
    its = asked(opened, options.layers, options.units, options.weights, live)
    display.say(f"Drawing {its.count:,} units of {its.network.name} ({its.network.weights}) by {recipe.name}.")
    with workforce(options.engine, options.device, place, options.worker_cores, options.block_seconds, display) as crew:
        record = visualize_run(
            opened.path, its.network, its.traced, its.layers, recipe, crew.device, units=its.units, seed=options.seed,
            progress=display, engine=crew, shards=opened.shards_to_read,
        )  # fmt: skip
    counted = record["visualizations"][recipe.name]
    shares = (
        f"{counted['reached']:,} of {counted['with_ratio']:,} reach the dataset's maximum, {counted['first']:,} of "
        f"{counted['ranked']:,} suit their own unit best in its layer, {counted['never_fired']:,} never fired"
    )
    display.say(f"{opened.path / 'visualizations'} has {counted['pictures']:,} pictures by {recipe.name}: {shares}.")
    look = command("sheets", run=opened.path, layers=its.layers[-1].name, units=options.units)
    display.say(f"Look at them: {look}")
    return dict(run=opened.path, preset=recipe.name, **counted)
