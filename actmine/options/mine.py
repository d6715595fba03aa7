"""The options of `mine`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from actmine.options.shared import (
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
    Orientation,
    Quiet,
    Resize,
    Std,
    WorkerCores,
)
from actmine.pipeline.words import AUTO, BLOCK_SECONDS, LENGTH, MAPPED, OF_A_LAYER, SHEETS_SECONDS, SIDE


class Precision(StrEnum):
    """What the network computes in."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Decoder(StrEnum):
    """What turns JPEGs into pixels."""

    pillow = "pillow"
    nvjpeg = "nvjpeg"


@dataclass(frozen=True, slots=True)
class Mine:
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

    dataset: Annotated[
        str,
        typer.Option(
            help="demo, imagenet-val, imagenet-train, imagenette, a folder of images, tars or Parquet files (disk, "
            "https://, s3://), or hf://datasets/OWNER/NAME (gs://, az:// likewise)."
        ),
    ] = "demo"
    model: Annotated[str, typer.Option(help=f"{MODEL_HELP} Default: demo for the demo, googlenet otherwise.")] = ""
    weights: Annotated[str, typer.Option(help=WEIGHTS_HELP)] = ""
    layers: Annotated[
        str, typer.Option(help="Comma-separated globs or exact names. Default: every unit-bearing layer.")
    ] = ""
    dictionary: Annotated[
        str,
        typer.Option(
            help="LAYER=PATH, several behind commas: the latents of a sparse autoencoder, or the rows of a matrix of "
            "directions, on that layer's tensor are units of a further layer LAYER:NAME (docs/guides/directions.md)."
        ),
    ] = ""
    tokens: Annotated[
        str, typer.Option(help="Tokens that dictionaries encode: all, patch or cls; as they were trained.")
    ] = ""
    pool: Annotated[
        str, typer.Option(help="Of a latent's positions: max, the largest, with its place; or mean, sum, or cls.")
    ] = "max"
    least_explained: Annotated[
        float,
        typer.Option(help="Share of a layer's variance that a dictionary has to explain, on first images."),
    ] = 0.0
    topk: Annotated[int, typer.Option(min=1, help="Exemplars kept of each unit.")] = 50
    direction: Annotated[str, typer.Option(help="max, the strongest activations; min, the most negative; or both.")] = (
        "max"
    )
    bands: Annotated[
        str,
        typer.Option(help="Percentiles, as 50,90,99: images drawn at random from around them are exemplars as well."),
    ] = ""
    band_images: Annotated[int, typer.Option(min=1, help="Images of each unit drawn for each of BANDS.")] = 9
    random_images: Annotated[
        int, typer.Option(min=0, max=1024, help="Images of each unit drawn at random from the whole dataset as well.")
    ] = 0
    run: Annotated[str, typer.Option(help="Folder of the run, or s3://bucket/prefix. Default: runs/DATASET-MODEL.")] = (
        ""
    )
    device: Device = "auto"
    engine: Engine = EngineName.local
    focus: Annotated[
        int,
        typer.Option(
            min=0, help="Exemplars of each unit whose focus is measured, as `focus` does; many times the scan."
        ),
    ] = 0
    check_crops: Annotated[
        int,
        typer.Option(min=0, help="Exemplars of each unit whose crop is checked, as `check` does. Costs many scans."),
    ] = 0
    views: Annotated[
        int, typer.Option(min=0, help="Exemplars of each unit that are projected back to pixels by a deconvnet.")
    ] = 0
    unit_map: Annotated[
        bool | None,
        typer.Option(
            "--unit-map/--no-unit-map",
            help="Lay out all units on a map, as `map` does. Default: if that takes at most a fifth of the scan and "
            "the extra map is installed.",
        ),
    ] = None
    facets: Annotated[
        bool, typer.Option(help="Sort each unit's exemplars into the kinds of images that it answers to.")
    ] = False
    labels: Annotated[bool, typer.Option(help="Statistics of each unit by label, and its selectivity.")] = True
    min_support: Annotated[
        int,
        typer.Option(
            min=1, help="Images that a label has in each half of the dataset before units are said to tell it."
        ),
    ] = 5
    label_tree: Annotated[
        str,
        typer.Option(
            help="Kinds of labels, of which units are told as well: a CSV file with the columns label and parent, or "
            'JSON, {"beagle": "dog", "dog": "animal"}; auto: WordNet\'s above ImageNet\'s classes; none.'
        ),
    ] = AUTO
    sketch: Annotated[
        int,
        typer.Option(
            min=0, help="Length of each unit's sketch, by which units alike are found (docs/units.md); 0: none."
        ),
    ] = LENGTH
    positions: Annotated[
        str,
        typer.Option(
            help="none; or histograms of what units do at positions, beside those of maxima: at one of each map, drawn "
            "at random (sample, which costs nothing), or at all (all: 1.6 times as long on a CPU)."
        ),
    ] = "none"
    ignore_norm: Annotated[
        float,
        typer.Option(
            min=0,
            help="Leave out tokens of vision transformers whose vector is so many times as long as the median one of "
            "their image, as 10; 0: none (docs/guides/directions.md).",
        ),
    ] = 0.0
    unique: Annotated[
        bool, typer.Option(help="Of images that are nearly the same, keep one among a unit's exemplars.")
    ] = False
    keep_maxima: Annotated[
        str,
        typer.Option(
            help="1 (float32) or float16: every image activation stays, in RUN/maxima. auto: for a while, where small."
        ),
    ] = "auto"
    pictures: Annotated[
        str,
        typer.Option(
            help="What is kept of images that win: a picture whose shorter side has so many pixels, with crops of what "
            "it does not show sharply; original, the file's own bytes; or none."
        ),
    ] = SIDE
    maps: Annotated[
        int,
        typer.Option(min=0, help="Exemplars of each unit whose activation map is kept, to show where it is active."),
    ] = MAPPED
    resize: Resize = ""
    crop: Crop = ""
    interpolation: Interpolation = ""
    mean: Mean = ""
    std: Std = ""
    channels: Channels = 0
    orientation: Orientation = ""
    preset: Annotated[str, typer.Option(help="Recipe of the visualizations.")] = "default"
    generator: Generator = ""
    visualize: Annotated[
        bool | None,
        typer.Option(
            "--visualize/--no-visualize",
            help="Draw every unit by gradient ascent, or none. Default: all if that is estimated at ten minutes or "
            "less, else the most selective of each layer.",
        ),
    ] = None
    sheets: Annotated[
        bool,
        typer.Option(
            help=f"Draw overviews, and contact sheets of {OF_A_LAYER[0]} units of each layer; fewer, spread over the "
            f"layers, where that would take more than about {SHEETS_SECONDS:.0f} seconds."
        ),
    ] = True
    seed: Annotated[int, typer.Option(min=0, help="Seed of the visualizations.")] = 0
    precision: Annotated[
        Precision, typer.Option(help="Of the scan. bf16 is faster and shifts some top-k; ascent is always fp32.")
    ] = Precision.fp32
    compile: Annotated[
        str, typer.Option(help="0, 1, or auto: compile the network where the scan is long enough to pay for it.")
    ] = "auto"
    decoder: Annotated[
        Decoder, typer.Option(help="pillow, exact; or nvjpeg, on the GPU, a few levels off: for hosts with few cores.")
    ] = Decoder.pillow
    allow_dependent: AllowDependent = False
    batch_size: Annotated[
        int, typer.Option(min=0, help="Images a batch. Default: 16 on a CPU, 256 or what fits on a GPU.")
    ] = 0
    workers: Annotated[
        int, typer.Option(min=0, help="Threads that decode and compute. Default: one per core. No table depends on it.")
    ] = 0
    worker_cores: WorkerCores = 0
    block_seconds: BlockSeconds = BLOCK_SECONDS
    max_skipped: Annotated[
        float, typer.Option(min=0, max=1, help="Share of samples that may be skipped before the run fails.")
    ] = 0.01
    data: Annotated[Path, typer.Option(help="Where named datasets live.")] = Path("data")
    quiet: Quiet = False
    as_json: Json = False
