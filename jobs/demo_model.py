"""`python -m jobs demo-model`: trains the small network of the demo again and says how good it is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from jobs.console import Display
from jobs.options import Json, Quiet
from pipeline.demo.network import WEIGHTS_FILE
from pipeline.demo.train import train


def demo_model(
    out: Annotated[
        Path, typer.Option(help="Where the weights go (safetensors).", show_default="the shipped file")
    ] = WEIGHTS_FILE,
    directory: Annotated[Path, typer.Option(help="Where the two splits are rendered, and found again.")] = Path(
        "data/demo-training"
    ),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the train split.")] = 20,
    seed: Annotated[int, typer.Option(help="Of initialization, order and augmentation.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads and rendering processes.")] = 2,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Trains the demo network on its own split of rendered images and measures it on the mined demo.

    Replaces the shipped weights unless --out says otherwise. About eight minutes on two cores.
    """
    torch.set_num_threads(threads)
    display = Display(quiet or as_json)
    result = train(directory, out, epochs=epochs, seed=seed, workers=threads, progress=display)
    display.say(
        f"{result.accuracy:.2%} of {result.held_out_images:,} held-out images named rightly, after "
        f"{result.epochs} epochs of {result.train_images:,} others in {result.seconds:,.0f} s."
    )
    dead = ", ".join(f"{name} {count} of {result.units[name]}" for name, count in result.dead_units.items())
    display.say(f"Dead units: {dead}.")
    display.say(f"Wrote {out} ({out.stat().st_size / 1e6:.2f} MB).")
    if as_json:
        display.answer(out=out, **asdict(result))
