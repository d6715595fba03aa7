"""`python -m actmine demo-model`: trains the small network of the demo again and says how good it is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from actmine.console import Display
from actmine.options.demo_model import DemoModel
from actmine.pipeline.demo.network import WEIGHTS_FILE
from actmine.pipeline.demo.train import train


def demo_model(options: DemoModel, display: Display) -> dict[str, Any]:
    """Carries out `demo-model`; its answer is what `--json` says."""
    torch.set_num_threads(options.threads)
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
    return dict(out=out, **asdict(result))
