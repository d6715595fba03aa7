"""`python -m actmine demo-model`: trains the small network of the demo again and says how good it is."""

from __future__ import annotations

from dataclasses import asdict

import torch

from actmine.jobs.console import Display
from actmine.jobs.options.demo_model import DemoModel
from actmine.pipeline.demo.network import WEIGHTS_FILE
from actmine.pipeline.demo.train import train


def demo_model(options: DemoModel) -> None:
    """Carries out `demo-model`."""
    torch.set_num_threads(options.threads)
    display = Display(options.quiet or options.as_json)
    out = options.out or WEIGHTS_FILE
    result = train(
        options.directory,
        out,
        epochs=options.epochs,
        seed=options.seed,
        workers=options.threads,
        progress=display,
    )
    display.say(
        f"{result.accuracy:.2%} of {result.held_out_images:,} held-out images named rightly, after "
        f"{result.epochs} epochs of {result.train_images:,} others in {result.seconds:,.0f} s."
    )
    dead = ", ".join(f"{name} {count} of {result.units[name]}" for name, count in result.dead_units.items())
    display.say(f"Dead units: {dead}.")
    display.say(f"Wrote {out} ({out.stat().st_size / 1e6:.2f} MB).")
    if options.as_json:
        display.answer(out=out, **asdict(result))
