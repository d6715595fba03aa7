"""The options of `publish`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from actmine.options.shared import FinishedRun, Json, Quiet


@dataclass(frozen=True, slots=True)
class Publish:
    """Publishes a run: its tables, its atlas as plain files, and a dataset card, in a folder, on S3 or on the hub.

    What would go out and how much it is, is said first. Tables name no folder of this machine. What is there already is
    not sent again, so that the same command goes on after a stop, and brings what has changed later.

    Examples:
    publish --run runs/demo-demo --to published --license apache-2.0

    publish --run runs/demo-demo --to hf://datasets/OWNER/NAME --plan

    publish --run runs/photos-resnet50 --to s3://bucket/photos --no-pictures
    """

    run: FinishedRun
    to: Annotated[
        str,
        typer.Option(help="A new, an empty or a published folder; s3://bucket/prefix; or hf://datasets/OWNER/NAME."),
    ]
    license: Annotated[
        str, typer.Option(help="As the hub calls it, cc-by-4.0 say. Empty: the card says that none was stated.")
    ] = ""
    title: Annotated[str, typer.Option(help="Of the card. Default: the network and the dataset.")] = ""
    pictures: Annotated[
        bool, typer.Option(help="Pictures of the dataset's images, in tables and pages; those drawn by ascent stay.")
    ] = True
    notes: Annotated[bool, typer.Option("--notes", help="What people noted, too, with their names.")] = False
    layers: Annotated[
        str, typer.Option(help="Comma-separated names or globs: layers that have pages. The tables are whole.")
    ] = ""
    exemplars: Annotated[int, typer.Option(min=0, help="Exemplars on a unit's page; 0: all. The tables hold all.")] = 9
    image_pages: Annotated[
        bool, typer.Option("--image-pages", help="A page for each image, with the units that it drives hardest.")
    ] = False
    public: Annotated[
        bool, typer.Option("--public", help="A repository that is made on the hub is public; else private.")
    ] = False
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would go out.")] = False
    quiet: Quiet = False
    as_json: Json = False
