"""`atlas`: a run in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.console import Display
from jobs.options import FinishedRun, Trust
from pipeline.atlas.extra import atlas_extra

PORT = 8420


def atlas(
    run: FinishedRun,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; if it is taken, the next free.")] = PORT,
    trust: Trust = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say only the address.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: say only the address, as JSON.")] = False,
) -> None:
    """Shows a run in the browser: its layers, units, images; sorted, filtered and searched.

    Serves pages on 127.0.0.1, for this machine alone, and says their address. They are made from the tables as they
    are asked for; nothing is copied or written. Ctrl-C ends it.

    Examples:  atlas --run runs/demo-demo   |   atlas --run runs/photos-resnet50 --port 9000
    """
    with atlas_extra():
        from pipeline.atlas.server import serve
    display = Display(quiet or as_json)

    def say(address: str) -> None:
        if as_json:
            display.answer(run=run, address=address)
        else:
            print(address, flush=True)
        display.say("Open it in a browser; Ctrl-C ends.")

    try:
        serve(run, port, say, trust)
    except KeyboardInterrupt:
        display.say("Ended.")
