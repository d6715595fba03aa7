"""`atlas-export`: the pages of the atlas as plain files."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from jobs.console import Display
from jobs.options import FinishedRun, Json, Layers, Quiet, Trust
from pipeline.atlas.extra import atlas_extra
from pipeline.run import open_run


def atlas_export(
    run: FinishedRun,
    out: Annotated[str, typer.Option(help="Folder for the pages: new, empty, or of an export before.")],
    layers: Layers = "",
    trust: Trust = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Writes the atlas as plain files, which open from the folder or from any web host.

    They hold every picture that they show, the whole images reduced: look at the dataset's licence before you put
    them where others see them.

    Example:  atlas-export --run runs/demo-demo --out site --layers 'block5.*'
    """
    with atlas_extra():
        from pipeline.atlas.export import export
    display = Display(quiet or as_json)
    wanted = [name.strip() for name in layers.split(",") if name.strip()]
    opened = open_run(run, trust)
    written = export(opened, out, wanted, display)
    display.say(f"Open {written.page}")
    if as_json:
        display.answer(run=opened.path, **asdict(written))
