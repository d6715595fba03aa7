"""`activation-atlas`: lays out a layer's vectors at drawn positions and draws what each part of that map prefers."""

from __future__ import annotations

from typing import Any

from actmine.commands.finished import mined_dataset, prepared, recipe_of, workforce
from actmine.commands.forecast import show_plan
from actmine.commands.live import NOTHING_LIVE, Live
from actmine.console import Display
from actmine.options.activation_atlas import ActivationAtlas
from actmine.pipeline.activation_atlas.grid import fitted_sides, parse_grids
from actmine.pipeline.activation_atlas.make import AtlasSettings, check_preset, make_activation_atlas
from actmine.pipeline.activation_atlas.plan import atlas_plan
from actmine.pipeline.errors import UserError
from actmine.pipeline.mined_network import mined_network
from actmine.pipeline.relations.layout import check_installed
from actmine.pipeline.run import open_run
from actmine.pipeline.spoken import command
from actmine.pipeline.stages.drawing_plan import seconds_a_unit
from actmine.pipeline.stages.mining_plan import Overall, seconds_an_image
from actmine.pipeline.tables.label_tree import find_tree


def activation_atlas(options: ActivationAtlas, display: Display, live: Live = NOTHING_LIVE) -> dict[str, Any]:
    """Carries out `activation-atlas`; its answer is what `--json` says."""
    sides = parse_grids(options.grids)
    recipe = recipe_of(options.preset, options.generator)
    check_preset(recipe)
    check_installed()
    tree = find_tree(options.label_tree)
    place = prepared(options.engine, options.device)
    opened = open_run(options.run, options.trust)
    opened.at(options.layer)
    network = mined_network(opened, options.weights, live.module, live.transform)
    traced = network.traced()
    layers = traced.choose(options.layer.partition(":")[0], bool(opened.record.get("dependent")))
    if len(layers) != 1 or layers[0].name != options.layer:
        raise UserError(f"LAYER={options.layer} is not a layer with vectors of its own: say one without ':', and one.")
    (layer,) = layers
    dataset = mined_dataset(opened, options.dataset, options.data, live, display)
    settings = AtlasSettings(sides, options.images, options.least, options.seed)
    images = min(int(opened.record["counts"]["seen"]), options.images)
    fitted = sides or fitted_sides(images, options.least)
    display.say(
        f"The activation atlas of {layer.name} ({layer.units} units) of {network.name}: one position of each of "
        f"{images:,} images, {' and '.join(f'{side} x {side}' for side in fitted)} cells, drawn by {recipe.name}."
    )
    with workforce(options.engine, options.device, place, options.worker_cores, options.block_seconds, display) as crew:
        a_cell = seconds_a_unit(network, traced, layers, recipe, crew)[layer.name]
        an_image = seconds_an_image(network, traced, layers, crew.here)
        planned = atlas_plan(layer, images, fitted, options.least, an_image, a_cell)
        if not options.quiet and not options.as_json:
            show_plan(planned, opened.path, display)
        about = make_activation_atlas(
            opened, network, traced, layer, dataset.shards, recipe, settings, crew,
            words=dataset.label_words(network.categories) or (), tree=tree, progress=Overall(display, planned),
        )  # fmt: skip
    display.say(
        f"{about['cells']:,} cells of {about['positions']:,} positions: {about['reached']:,} of "
        f"{about['with_ratio']:,} drawings reach what the dataset does, {about['first']:,} of {about['ranked']:,} suit "
        f"their own cell best of their level, {about['named']:,} have a label beyond chance."
    )
    display.say(f"Look at it: {command('atlas', run=opened.path)}")
    display.say(f"On paper: {command('sheets', run=opened.path, layers=layer.name, most='0', cells=True)}")
    return dict(run=opened.path, layer=layer.name, **about)
