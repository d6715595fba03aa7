"""The options of `demo-model`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from actmine.options.shared import Json, Quiet


@dataclass(frozen=True, slots=True)
class DemoModel:
    """Trains the demo network on its own split of rendered images and measures it on the mined demo.

    Replaces the shipped weights unless --out says otherwise. About eight minutes on two cores.
    """

    out: Annotated[Path | None, typer.Option(help="Where the weights go (safetensors). Default: the shipped file.")] = (
        None
    )
    directory: Annotated[Path, typer.Option(help="Where the two splits are rendered, and found again.")] = Path(
        "data/demo-training"
    )
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the train split.")] = 20
    seed: Annotated[int, typer.Option(help="Of initialization, order and augmentation.")] = 0
    threads: Annotated[int, typer.Option(min=1, help="CPU threads and rendering processes.")] = 2
    quiet: Quiet = False
    as_json: Json = False
