"""`focus`: measures which part of its receptive field matters to each of the strongest exemplars of a finished run."""

from __future__ import annotations

from typing import Any

from actmine.commands.finished import asked, prepared, workforce
from actmine.commands.live import NOTHING_LIVE, Live
from actmine.console import Display
from actmine.options.focus import Focus
from actmine.pipeline.run import open_run
from actmine.pipeline.spoken import command
from actmine.pipeline.stages.focus import focus_run


def focus(options: Focus, display: Display, live: Live = NOTHING_LIVE) -> dict[str, Any]:
    """Carries out `focus`; its answer is what `--json` says."""
    place = prepared(options.engine, options.device)
    opened = open_run(options.run, options.trust)
    its = asked(opened, options.layers, options.units, options.weights, live)
    with workforce(options.engine, options.device, place, options.worker_cores, options.block_seconds, display) as crew:
        record = focus_run(
            opened.path, opened.shards_to_read, its.network, its.traced, its.layers, crew, display, options.most,
            its.units,
        )  # fmt: skip
    about = record["focus"]
    narrow = sum(layer.name not in about["by_layer"] for layer in its.layers)
    display.say(
        f"{about['found']:,} exemplars of {about['layers']} layers have a focus; the fields of "
        f"{narrow} others are no larger than half of the input."
    )
    look = command("sheets", run=opened.path, layers=its.layers[-1].name, field="focus")
    display.say(f"Look at them: {look}")
    return dict(run=opened.path, **about)
