"""`mine`: a dataset and a network in; a run's tables, visualizations and sheets out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from actmine.commands.finished import prepared, recipe_of, workforce
from actmine.commands.forecast import show_plan
from actmine.commands.live import NOTHING_LIVE, Live
from actmine.commands.summary import show_summary
from actmine.console import Display
from actmine.options.mine import Mine
from actmine.pipeline.ascent.facets import check_installed
from actmine.pipeline.ascent.recipe import Preset
from actmine.pipeline.datasets.first_images import first_sizes
from actmine.pipeline.errors import listed
from actmine.pipeline.exemplars.crops import parse_pictures
from actmine.pipeline.network.dictionary_layers import attach, recorded
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.network.models import check_name
from actmine.pipeline.preprocessing.options import EXIF, PreprocessingOptions
from actmine.pipeline.preprocessing.sight import USUAL, as_large_as, padding_warning, resizes, sight
from actmine.pipeline.progress import Progress, duration
from actmine.pipeline.readings.statistics_options import StatisticsOptions, parse_bands, parse_maxima
from actmine.pipeline.record import note, read_record
from actmine.pipeline.relations.layout import check_installed as check_map
from actmine.pipeline.relations.maps import is_cheap, map_run
from actmine.pipeline.relations.neighbors import find_neighbors, sketch_length
from actmine.pipeline.run import Run, open_run
from actmine.pipeline.sheets.sheet_plan import sheet_plan
from actmine.pipeline.sheets.write import write_overviews, write_sheets
from actmine.pipeline.spoken import command
from actmine.pipeline.stages.check_crops import check_crops as check_mined_crops
from actmine.pipeline.stages.drawing_plan import plan, seconds_a_unit
from actmine.pipeline.stages.exemplar_facets import facet_run
from actmine.pipeline.stages.focus import focus_run
from actmine.pipeline.stages.mine import MineSettings
from actmine.pipeline.stages.mine import mine as mine_dataset
from actmine.pipeline.stages.mining_plan import Overall, mining_plan, seconds_an_image
from actmine.pipeline.stages.views import view_run
from actmine.pipeline.stages.visualize import visualize_run
from actmine.pipeline.storage.files import readable_name, run_folder
from actmine.pipeline.tables.label_tree import find_tree
from actmine.pipeline.words import OF_A_LAYER


def mine(options: Mine, display: Display, live: Live = NOTHING_LIVE) -> dict[str, Any]:
    """Carries out `mine`; its answer is what `--json` says."""
    keep = StatisticsOptions(
        options.topk,
        options.direction,
        parse_bands(options.bands),
        options.band_images,
        options.labels,
        parse_maxima(options.keep_maxima),
        options.sketch,
        options.unique,
        options.positions,
        options.min_support,
        ignore_norm=options.ignore_norm,
        random_images=options.random_images,
    )
    kept = parse_pictures(options.pictures)
    tree = find_tree(options.label_tree)
    recipe = recipe_of(options.preset, options.generator)
    dictionaries = live.latents(options.dictionary, options.tokens, options.pool)
    if options.facets:
        check_installed()
    if options.unit_map:
        check_map()
    place = prepared(options.engine, options.device)
    name = options.model
    if live.module is None:
        name = name or ("demo" if options.dataset == "demo" else "googlenet")
        check_name(name)
    run_folder(options.run)  # one that cannot hold a run is refused before anything is downloaded
    source = live.source(options.dataset, options.data, display)  # before weights are downloaded for nothing
    overrides = PreprocessingOptions(
        options.resize,
        options.crop,
        options.interpolation,
        options.mean,
        options.std,
        options.channels,
        options.orientation,
    )
    sizes = first_sizes(source, overrides.orientation == EXIF) if overrides.resize == "none" else []
    overrides = as_large_as(overrides, sizes)
    network = live.network(name, options.weights, overrides)
    for notice in network.notices:
        display.say(notice)
    display.say(sight(network.preprocessing))
    of = [USUAL] if resizes(network.preprocessing) else sizes or first_sizes(source, network.preprocessing.upright)
    if warning := padding_warning(network.preprocessing, of):
        display.say(warning)
    traced = network.traced()
    attach(traced, dictionaries)
    latents = [layer.name for layer in traced.latent_layers]
    chosen = traced.choose(",".join([options.layers, *latents]) if options.layers else "", options.allow_dependent)
    folder = run_folder(options.run or f"runs/{source.name}-{readable_name(network.name)}")
    names = {layer.name for layer in traced.latent_layers}  # what a run has already need not be said again
    attach(traced, [each for each in recorded(read_record(folder)) if f"{each.layer}:{each.name}" not in names])
    units = sum(layer.units for layer in chosen)
    display.say(f"Mining {source.name} with {network.name} ({network.weights}): {len(chosen)} layers, {units:,} units.")
    for remark in traced.remarks():
        display.say(remark)
    if network.missing:
        display.say(
            f"The weights lack {listed(sorted(network.missing))}; the chosen layers do not need "
            f"{'it' if len(network.missing) == 1 else 'them'}."
        )
    settings = MineSettings(
        keep,
        options.batch_size,
        options.workers,
        options.max_skipped,
        options.precision.value,
        options.compile,
        options.decoder.value,
        kept,
        options.maps,
        tree,
        options.least_explained,
    )
    with workforce(
        options.engine, options.device, place, options.worker_cores, options.block_seconds, display, options.workers
    ) as crew:
        drawn = sheet_plan({layer.name: layer.units for layer in chosen})
        planning = source.about and not display.console.quiet and not (folder / "run.json").is_file()
        asked = options.visualize is None or (options.visualize and planning)  # what drawing takes
        costs = seconds_a_unit(network, traced, chosen, recipe, crew) if asked else {}
        progress: Progress = display
        if planning:
            drawing = sum(layer.units * costs[layer.name] for layer in chosen) if costs else 0.0
            an_image = seconds_an_image(network, traced, chosen, place)
            count = len(drawn.overviews) + len(drawn.sheets) * drawn.most if options.sheets else 0
            planned = mining_plan(source, chosen, settings, an_image, place, drawing, count)
            show_plan(planned, folder, display)
            progress = Overall(display, planned)
        written = mine_dataset(source, network, traced, chosen, folder, crew.device, settings, progress, crew)
        if sketch_length(written):
            find_neighbors(folder, place, progress)
            if options.unit_map or (options.unit_map is None and is_cheap(read_record(folder))):
                map_run(folder, progress=progress)
        if options.focus or options.check_crops or options.views or options.facets or options.visualize is not False:
            display.say(f"All tables are there: {command('atlas', run=folder)} works from now on.")
        shards = source.by_number
        if options.focus:
            focus_run(folder, shards, network, traced, chosen, crew, display, options.focus)
        if options.check_crops:
            check_mined_crops(folder, network, traced, chosen, crew, display, options.check_crops, shards)
        if options.views:
            view_run(folder, shards, network, traced, chosen, crew, display, most=options.views)
        if options.facets:
            facet_run(open_run(folder, trust=True), network, traced, chosen, crew, display, shards=shards)
        if options.visualize is not False:
            run_now = open_run(folder, trust=True)
            some = None if options.visualize else _unasked(run_now, chosen, recipe, costs, display)
            visualize_run(
                folder, network, traced, chosen, recipe, crew.device, units=some, seed=options.seed, progress=progress,
                engine=crew, shards=shards,
            )  # fmt: skip
    mined = open_run(folder, trust=True)
    if options.sheets:
        start = time.monotonic()
        write_overviews(mined, drawn.overviews, progress=progress)
        write_sheets(mined, drawn.sheets, most=drawn.most, progress=progress)
        if "sheets" not in mined.record:
            note(folder, "sheets", {"seconds": round(time.monotonic() - start, 3)}, display.say)
            mined = open_run(folder, trust=True)
    show_summary(mined, display)
    if options.sheets and not drawn.whole:
        every = command("sheets", run=folder, most=OF_A_LAYER[0])
        display.say(
            f"Drawn were overviews of {len(drawn.overviews)} of {len(chosen)} layers, and of {len(drawn.sheets)} "
            f"sheets of {drawn.most} units each. All: {every}"
        )
    return dict(run=folder, **mined.record)


def _unasked(
    run: Run, layers: list[Layer], recipe: Preset, costs: Mapping[str, float], display: Display
) -> Mapping[str, Sequence[int]] | None:
    """The units that are drawn where nobody said which, None for all; says what is left out and how to draw it."""
    drawn = plan(run, layers, costs)
    if drawn.units is not None:
        some, every = sum(map(len, drawn.units.values())), sum(layer.units for layer in layers)
        rest = command("visualize", run=run.path, preset=recipe.name)
        display.say(
            f"Drawing {some:,} of {every:,} units, the most selective of each layer ({duration(drawn.seconds)}). "
            f"All would take about {duration(drawn.whole)}: {rest}"
        )
    return drawn.units
