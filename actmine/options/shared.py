"""Options that several commands share: which network, with which weights, and how images become its input."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from actmine.pipeline.words import BLOCK_SECONDS

Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")]
Json = Annotated[
    bool, typer.Option("--json", help="For scripts: nothing but errors, and the record as JSON on standard output.")
]


class EngineName(StrEnum):
    """Where the work runs."""

    local = "local"
    ray = "ray"


MODEL_HELP = (
    "demo, a name of torchvision's, timm/NAME, hf/OWNER/NAME (transformers), open_clip/NAME,TAG, or "
    "package.module:factory (of your own)."
)
WEIGHTS_HELP = (
    "Empty: the model's own. 'random'; the name of some that come with it (IMAGENET1K_V2, timm's a1_in1k); "
    "or a .safetensors/.pth file; FILE#part where it holds several (#teacher, #state.model)."
)
_PANEL = "How images become the network's input (default: as its weights or its factory say)"

Resize = Annotated[
    str,
    typer.Option(
        help="The short side's pixels; HEIGHTxWIDTH; or none: pictures stay as they are, and if all have one size, "
        "that is the network's input.",
        rich_help_panel=_PANEL,
    ),
]
Crop = Annotated[
    str,
    typer.Option(
        help="What is cut from the middle: pixels of a square, HEIGHTxWIDTH, or none.", rich_help_panel=_PANEL
    ),
]
Interpolation = Annotated[
    str,
    typer.Option(
        help="Of the resize: bilinear, bicubic, nearest, lanczos, box or hamming.",
        rich_help_panel=_PANEL,
    ),
]
Mean = Annotated[
    str,
    typer.Option(help="Subtracted from pixels in 0..1: a number a channel, as 0.5,0.5,0.5.", rich_help_panel=_PANEL),
]
Std = Annotated[str, typer.Option(help="What they are then divided by: a number a channel.", rich_help_panel=_PANEL)]
Channels = Annotated[
    int,
    typer.Option(min=0, help="3, colour, or 1, grey. timm's networks are built for it.", rich_help_panel=_PANEL),
]

AllowDependent = Annotated[
    bool,
    typer.Option(
        "--allow-dependent",
        help="Mine layers that depend on the other images of a batch, or on chance, all the same; run.json says so.",
    ),
]
Orientation = Annotated[
    str,
    typer.Option(help="stored, or exif: turns images as their EXIF orientation says.", rich_help_panel=_PANEL),
]

FinishedRun = Annotated[str, typer.Option(help="Folder of a finished run, or s3://bucket/prefix.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Of someone else's run: import the code and ask the addresses that it names. Yours need it not."
    ),
]
Layers = Annotated[str, typer.Option(help="Comma-separated names or globs; all layers if empty.")]
Units = Annotated[str, typer.Option(help="Numbers and spans such as 3,7,10-20; all units if empty.")]
Generator = Annotated[
    str, typer.Option(help="Of gan-prior: package.module:factory, or package.module:factory,weights.safetensors.")
]
MovedWeights = Annotated[
    str, typer.Option(help="Where the run's weights are now. Default: where they were when it was mined.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Engine = Annotated[
    EngineName,
    typer.Option(help="Where the work runs: local, or ray (every node of a Ray cluster; docs/cluster.md)."),
]
WorkerCores = Annotated[
    int, typer.Option(min=0, help="Ray: cores of a worker. Default: 4, or a GPU's share of its node.")
]
BlockSeconds = Annotated[
    float, typer.Option(min=1, help="Ray: a worker that gives no sign of getting on for so long is replaced.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What every command is told that computes on a finished run: who does the work, and how much it says."""

    device: Device = "auto"
    engine: Engine = EngineName.local
    worker_cores: WorkerCores = 0
    block_seconds: BlockSeconds = BLOCK_SECONDS
    trust: Trust = False
    quiet: Quiet = False
    as_json: Json = False
