"""The options of `shards`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from actmine.options.shared import Json, Quiet


@dataclass(frozen=True, slots=True)
class Shards:
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

    source: Annotated[
        str, typer.Option(help="What `mine --dataset` takes: a folder of images, tars (also https://, s3://), a name.")
    ]
    out: Annotated[str, typer.Option(help="Folder of the shards, or s3://bucket/folder.")]
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Images in each shard.")] = 1000
    name: Annotated[str, typer.Option(help="What the shards are called. Default: the source's name.")] = ""
    workers: Annotated[
        int, typer.Option(min=0, help="Threads. Default: eight. No shard depends on it.", show_default=False)
    ] = 0
    data: Annotated[Path, typer.Option(help="Where named datasets live.")] = Path("data")
    quiet: Quiet = False
    as_json: Json = False
