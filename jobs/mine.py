"""`mine`: a dataset and a network in; a run's tables, visualizations and sheets out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from jobs.console import Display
from jobs.finished import prepared, recipe_of, workforce
from jobs.forecast import show_plan
from jobs.options import (
    MODEL_HELP,
    WEIGHTS_HELP,
    AllowDependent,
    BlockSeconds,
    Channels,
    Crop,
    Device,
    Engine,
    EngineName,
    Generator,
    Interpolation,
    Json,
    Mean,
    Quiet,
    Resize,
    Std,
    WorkerCores,
)  # fmt: skip
from jobs.summary import show_summary
from pipeline.ascent.facets import check_installed
from pipeline.ascent.recipe import Preset
from pipeline.datasets.sources import find_dataset
from pipeline.engines.ray import BLOCK_SECONDS
from pipeline.errors import listed
from pipeline.exemplars.crops import SIDE, parse_pictures
from pipeline.exemplars.maps import MOST as MAPS
from pipeline.network.layers import Layer
from pipeline.network.models import check_name, load_network
from pipeline.preprocessing.wishes import Wishes
from pipeline.progress import Progress, duration
from pipeline.readings.keep import Keep, parse_bands, parse_maxima
from pipeline.readings.sketches import LENGTH
from pipeline.record import note
from pipeline.relations.neighbors import find_neighbors, sketch_length
from pipeline.run import Run, open_run
from pipeline.sheets.sheet_plan import OF_A_LAYER, SECONDS, sheet_plan
from pipeline.sheets.write import write_overviews, write_sheets
from pipeline.stages.check_crops import check_crops as check_mined_crops
from pipeline.stages.drawing_plan import plan, seconds_a_unit
from pipeline.stages.exemplar_facets import facet_run
from pipeline.stages.focus import focus_run
from pipeline.stages.mine import MineSettings
from pipeline.stages.mine import mine as mine_dataset
from pipeline.stages.mining_plan import Overall, mining_plan, seconds_an_image
from pipeline.stages.views import view_run
from pipeline.stages.visualize import visualize_run
from pipeline.storage.files import readable_name, run_folder
from pipeline.tables.label_tree import AUTO, find_tree


class Precision(StrEnum):
    """What the network computes in."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Decoder(StrEnum):
    """What turns JPEGs into pixels."""

    pillow = "pillow"
    nvjpeg = "nvjpeg"


def mine(
    dataset: Annotated[
        str,
        typer.Option(
            help="demo, imagenet-val, imagenet-train, imagenette, a folder of images, or tars (disk, https://, s3://)."
        ),
    ] = "demo",
    model: Annotated[str, typer.Option(help=f"{MODEL_HELP} Default: demo for the demo, googlenet otherwise.")] = "",
    weights: Annotated[str, typer.Option(help=WEIGHTS_HELP)] = "",
    layers: Annotated[
        str, typer.Option(help="Comma-separated globs or exact names. Default: every unit-bearing layer.")
    ] = "",
    topk: Annotated[int, typer.Option(min=1, help="Exemplars kept of each unit.")] = 50,
    direction: Annotated[
        str, typer.Option(help="max, the strongest activations; min, the most negative; or both.")
    ] = "max",
    bands: Annotated[
        str,
        typer.Option(help="Percentiles, as 50,90,99: images drawn at random from around them are exemplars as well."),
    ] = "",
    band_images: Annotated[int, typer.Option(min=1, help="Images of each unit drawn for each of BANDS.")] = 9,
    run: Annotated[
        str, typer.Option(help="Folder of the run, or s3://bucket/prefix. Default: runs/DATASET-MODEL.")
    ] = "",
    device: Device = "auto",
    engine: Engine = EngineName.local,
    focus: Annotated[
        int,
        typer.Option(
            min=0, help="Exemplars of each unit whose focus is measured, as `focus` does; many times the scan."
        ),
    ] = 0,
    check_crops: Annotated[
        int,
        typer.Option(min=0, help="Exemplars of each unit whose crop is checked, as `check` does. Costs many scans."),
    ] = 0,
    views: Annotated[
        int, typer.Option(min=0, help="Exemplars of each unit that are projected back to pixels by a deconvnet.")
    ] = 0,
    facets: Annotated[
        bool, typer.Option(help="Sort each unit's exemplars into the kinds of images that it answers to.")
    ] = False,
    labels: Annotated[bool, typer.Option(help="What each unit makes of each label, and its selectivity.")] = True,
    min_support: Annotated[
        int,
        typer.Option(
            min=1, help="Images that a label has in each half of the dataset before units are said to tell it."
        ),
    ] = 5,
    label_tree: Annotated[
        str,
        typer.Option(
            help="Kinds of labels, of which units are told as well: a CSV file with the columns label and parent, or "
            'JSON, {"beagle": "dog", "dog": "animal"}; auto: WordNet\'s above ImageNet\'s classes; none.'
        ),
    ] = AUTO,
    sketch: Annotated[
        int,
        typer.Option(
            min=0, help="Length of each unit's sketch, by which units alike are found (docs/units.md); 0: none."
        ),
    ] = LENGTH,
    positions: Annotated[
        str,
        typer.Option(
            help="none; or histograms of what units do at positions, beside those of maxima: at one of each map, drawn "
            "at random (sample, which costs nothing), or at all (all: 1.6 times as long on a CPU)."
        ),
    ] = "none",
    unique: Annotated[
        bool, typer.Option(help="Of images that are nearly the same, keep one among a unit's exemplars.")
    ] = False,
    keep_maxima: Annotated[
        str,
        typer.Option(
            help="1 (float32) or float16: every image activation stays, in RUN/maxima. auto: for a while, where small."
        ),
    ] = "auto",
    pictures: Annotated[
        str,
        typer.Option(
            help="What is kept of images that win: a picture whose shorter side has so many pixels, with crops of what "
            "it does not show sharply; original, the file's own bytes; or none."
        ),
    ] = SIDE,
    maps: Annotated[
        int,
        typer.Option(min=0, help="Exemplars of each unit whose activation map is kept, to show where it is active."),
    ] = MAPS,
    resize: Resize = "",
    crop: Crop = "",
    interpolation: Interpolation = "",
    mean: Mean = "",
    std: Std = "",
    channels: Channels = 0,
    preset: Annotated[str, typer.Option(help="Recipe of the visualizations.")] = "default",
    generator: Generator = "",
    visualize: Annotated[
        bool | None,
        typer.Option(
            "--visualize/--no-visualize",
            help="Draw every unit by gradient ascent, or none. Default: all if that is estimated at ten minutes or "
            "less, else the most selective of each layer.",
        ),
    ] = None,
    sheets: Annotated[
        bool,
        typer.Option(
            help=f"Draw overviews, and contact sheets of {OF_A_LAYER[0]} units of each layer; fewer, spread over the "
            f"layers, where that would take more than about {SECONDS:.0f} seconds."
        ),
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the visualizations.")] = 0,
    precision: Annotated[
        Precision, typer.Option(help="Of the scan. bf16 is faster and shifts some top-k; ascent is always fp32.")
    ] = Precision.fp32,
    compile: Annotated[
        str, typer.Option(help="0, 1, or auto: compile the network where the scan is long enough to pay for it.")
    ] = "auto",
    decoder: Annotated[
        Decoder, typer.Option(help="pillow, exact; or nvjpeg, on the GPU, a few levels off: for hosts with few cores.")
    ] = Decoder.pillow,
    allow_dependent: AllowDependent = False,
    batch_size: Annotated[int, typer.Option(min=0, help="Images a batch. Default: 16 on a CPU, 256 on a GPU.")] = 0,
    workers: Annotated[
        int, typer.Option(min=0, help="Threads that decode and compute. Default: one per core. No table depends on it.")
    ] = 0,
    worker_cores: WorkerCores = 0,
    block_seconds: BlockSeconds = BLOCK_SECONDS,
    max_skipped: Annotated[
        float, typer.Option(min=0, max=1, help="Share of samples that may be skipped before the run fails.")
    ] = 0.01,
    data: Annotated[Path, typer.Option(help="Where named datasets live.")] = Path("data"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Finds what every unit of a network responds to.

    One pass over the dataset keeps each unit's strongest images with the exact place; their receptive-field crops are
    cut from the originals; gradient ascent draws what the unit itself prefers. All of it becomes Parquet tables in RUN.

    Interrupt it at any time: the same command goes on where it stopped.

    Examples:
    mine

    mine --dataset imagenet-val --model resnet50 --layers 'layer4.*' --topk 100

    mine --direction both --bands 50,90,99 --positions sample

    mine --dataset photos/ --model squeezenet1_1 --weights mine.safetensors --layers 'features.*'

    mine --dataset digits/ --model mine.networks:digits --resize none --crop 28 --channels 1 --mean 0.1307 --std 0.3081
    """
    display = Display(quiet or as_json)
    keep = Keep(
        topk, direction, parse_bands(bands), band_images, labels, parse_maxima(keep_maxima), sketch, unique, positions,
        min_support,
    )  # fmt: skip
    kept = parse_pictures(pictures)
    tree = find_tree(label_tree)
    recipe = recipe_of(preset, generator)
    if facets:
        check_installed()
    place = prepared(engine, device)
    name = model or ("demo" if dataset == "demo" else "googlenet")
    check_name(name)
    run_folder(run)  # one that cannot hold a run is refused before anything is downloaded
    source = find_dataset(dataset, data, display)  # before weights are downloaded for nothing
    network = load_network(name, weights, Wishes(resize, crop, interpolation, mean, std, channels))
    for notice in network.notices:
        display.say(notice)
    traced = network.traced()
    chosen = traced.choose(layers, allow_dependent)
    folder = run_folder(run or f"runs/{source.name}-{readable_name(network.name)}")
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
        keep, batch_size, workers, max_skipped, precision.value, compile, decoder.value, kept, maps, tree
    )
    with workforce(engine, device, place, worker_cores, block_seconds, display, workers) as crew:
        drawn = sheet_plan({layer.name: layer.units for layer in chosen})
        costs = {} if visualize is False else seconds_a_unit(network, traced, chosen, recipe, crew)
        progress: Progress = display
        if source.about and not display.console.quiet and not (folder / "run.json").is_file():
            drawing = sum(layer.units * costs[layer.name] for layer in chosen) if costs else 0.0
            an_image = seconds_an_image(network, traced, chosen, place)
            count = len(drawn.overviews) + len(drawn.sheets) * drawn.most if sheets else 0
            planned = mining_plan(source, chosen, settings, an_image, place, drawing, count)
            show_plan(planned, folder, display)
            progress = Overall(display, planned)
        written = mine_dataset(source, network, traced, chosen, folder, crew.device, settings, progress, crew)
        if sketch_length(written):
            find_neighbors(folder, place, progress)
        if focus or check_crops or views or facets or visualize is not False:
            display.say(f"All tables are there: make atlas RUN={folder} works from now on.")
        shards = source.by_number
        if focus:
            focus_run(folder, shards, network, traced, chosen, crew, display, focus)
        if check_crops:
            check_mined_crops(folder, network, traced, chosen, crew, display, check_crops, shards)
        if views:
            view_run(folder, shards, network, traced, chosen, crew, display, most=views)
        if facets:
            facet_run(open_run(folder, trust=True), network, traced, chosen, crew, display, shards=shards)
        if visualize is not False:
            run_now = open_run(folder, trust=True)
            some = None if visualize else _unasked(run_now, chosen, recipe, costs, display)
            visualize_run(
                folder, network, traced, chosen, recipe, crew.device, units=some, seed=seed, progress=progress,
                engine=crew, shards=shards,
            )  # fmt: skip
    mined = open_run(folder, trust=True)
    if sheets:
        start = time.monotonic()
        write_overviews(mined, drawn.overviews, progress=progress)
        write_sheets(mined, drawn.sheets, most=drawn.most, progress=progress)
        if "sheets" not in mined.record:
            note(folder, "sheets", {"seconds": round(time.monotonic() - start, 3)}, display.say)
            mined = open_run(folder, trust=True)
    show_summary(mined, display)
    if sheets and not drawn.whole:
        display.say(
            f"Drawn were overviews of {len(drawn.overviews)} of {len(chosen)} layers, and of {len(drawn.sheets)} "
            f"sheets of {drawn.most} units each. All: make sheets RUN={folder} ARGS='--most {OF_A_LAYER[0]}'"
        )
    if as_json:
        display.answer(run=folder, **mined.record)


def _unasked(
    run: Run, layers: list[Layer], recipe: Preset, costs: Mapping[str, float], display: Display
) -> Mapping[str, Sequence[int]] | None:
    """The units that are drawn where nobody said which, None for all; says what is left out and how to draw it."""
    drawn = plan(run, layers, costs)
    if drawn.units is not None:
        some, every = sum(map(len, drawn.units.values())), sum(layer.units for layer in layers)
        display.say(
            f"Drawing {some:,} of {every:,} units, the most selective of each layer ({duration(drawn.seconds)}). "
            f"All would take about {duration(drawn.whole)}: make visualize RUN={run.path} PRESET={recipe.name}"
        )
    return drawn.units
