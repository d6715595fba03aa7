"""The options of `atlas`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from jobs.options.shared import FinishedRun, Trust

PORT = 8420


@dataclass(frozen=True, slots=True)
class Atlas:
    """Shows a run in the browser: its layers, units, images; sorted, filtered and searched.

    Serves pages on 127.0.0.1, for this machine alone, and says their address. They are made from the tables as they
    are asked for; nothing is copied or written. Ctrl-C ends it.

    Examples:  atlas --run runs/demo-demo   |   atlas --run runs/photos-resnet50 --port 9000
    """

    run: FinishedRun
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; if it is taken, the next free.")] = PORT
    trust: Trust = False
    quiet: Annotated[bool, typer.Option("--quiet", help="Say only the address.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: say only the address, as JSON.")] = False
