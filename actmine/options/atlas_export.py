"""The options of `atlas-export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from actmine.options.shared import FinishedRun, Json, Layers, Quiet, Trust


@dataclass(frozen=True, slots=True)
class AtlasExport:
    """Writes the atlas as plain files, which open from the folder or from any web host.

    They hold every picture that they show, the whole images reduced: look at the dataset's licence before you put
    them where others see them.

    Example:  atlas-export --run runs/demo-demo --out site --layers 'block5.*'
    """

    run: FinishedRun
    out: Annotated[str, typer.Option(help="Folder for the pages: new, empty, or of an export before.")]
    layers: Layers = ""
    trust: Trust = False
    quiet: Quiet = False
    as_json: Json = False
