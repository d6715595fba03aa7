"""The options of `atlas`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from actmine.options.shared import Trust


@dataclass(frozen=True, slots=True)
class Atlas:
    """Shows a run, or all runs of a folder, in the browser: layers, units, images; sorted, filtered and searched.

    Serves pages on 127.0.0.1, for this machine alone, and says their address. They are made from the tables as they
    are asked for; nothing is copied. Stars, names, tags and notes that you type are kept in RUN/notes.jsonl.
    Ctrl-C ends it.

    On a node of a cluster, `--host 0.0.0.0` lets other machines look, by the node's own name; behind a proxy,
    `--allow-host` says by which name it is called there. It answers to no other name.

    Programs ask it below `/api`, which `/api/openapi.json` describes. Pages of other sites cannot read it unless
    `--allow-origin` names them; notes they never can.

    Examples:  atlas --run runs   |   atlas --run runs/photos-resnet50 --port 9000 --host 0.0.0.0
    """

    run: Annotated[
        str, typer.Option(help="Folder of a finished run or of several, or s3://bucket/prefix; several are listed.")
    ]
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Where to listen; if not said, 8420 or the next free.")
    ] = None
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 is all, and whoever reaches the port can look.")
    ] = "127.0.0.1"
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Further names of hosts by which it may be called; repeated, or a,b.")
    ] = None
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Sites whose pages may read rows and pictures, as in https://lab.example; * is all. Repeated, or a,b."
        ),
    ] = None
    read_only: Annotated[
        bool | None,
        typer.Option(
            "--read-only/--writable",
            help="Whether notes are only shown. Default: they can be taken on this machine, not where others reach it.",
        ),
    ] = None
    author: Annotated[str, typer.Option(help="Whose notes are taken. Default: the user's name.")] = ""
    allow_upload: Annotated[
        bool,
        typer.Option(
            "--allow-upload",
            help="Pictures of your own may be dropped onto the page and are shown to the network, which is loaded "
            "then. They are kept in memory alone.",
        ),
    ] = False
    upload_by_others: Annotated[
        bool, typer.Option("--upload-by-others", help="Also by whoever else reaches it, with --host.")
    ] = False
    trust: Trust = False
    quiet: Annotated[bool, typer.Option("--quiet", help="Say only the address.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: say only the address, as JSON.")] = False
