"""`shards`: a dataset in; WebDataset shards with the original bytes out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from jobs.console import Display
from jobs.options import Json, Quiet
from pipeline.datasets.shard_writer import out_folder, write_shards
from pipeline.datasets.sources import find_dataset


def shards(
    source: Annotated[
        str, typer.Option(help="What `mine --dataset` takes: a folder of images, tars (also https://, s3://), a name.")
    ],
    out: Annotated[str, typer.Option(help="Folder of the shards, or s3://bucket/folder.")],
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Images in each shard.")] = 1000,
    name: Annotated[str, typer.Option(help="What the shards are called. Default: the source's name.")] = "",
    workers: Annotated[
        int, typer.Option(min=0, help="Threads. Default: eight. No shard depends on it.", show_default=False)
    ] = 0,
    data: Annotated[Path, typer.Option(help="Where named datasets live.")] = Path("data"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Writes any dataset as WebDataset shards, image bytes untouched.

    Each image goes in as it is, with its label as `.cls` and its class in words as `.json`; beside each shard lies an
    index (NAME-000000.index.parquet) by which mining notices any damage. Other files (captions, masks) stay behind.
    What cannot be read is counted, and named in OUT/skipped.parquet.

    A dot in an image's name becomes %2E, since a shard's keys end at their first dot; the index keeps the old name.

    Interrupt it at any time: the same command goes on where it stopped, and ends with the same bytes.

    Examples:
    shards --source photos/ --out shards/photos

    shards --source imagenet-train --out s3://bucket/imagenet-train --samples-per-shard 2000

    then: mine --dataset 's3://bucket/imagenet-train' --model resnet50
    """
    display = Display(quiet or as_json)
    folder = out_folder(out)
    dataset = find_dataset(source, data, display)
    written = write_shards(dataset, folder, samples_per_shard, name, workers, display)
    display.say(f"{written.samples:,} images in {written.shards:,} shards are in {written.folder}.")
    if written.skipped:
        display.say(
            f"{written.skipped:,} samples were left out: {written.folder / 'skipped.parquet'} says which and why."
        )
    if written.renamed:
        display.say(f"{written.renamed:,} images have another key than before; the indices keep the old one.")
    display.say(f"Mine them:  make mine DATASET='{written.folder}'")
    if as_json:
        display.answer(**asdict(written))
