"""`check`: shows the crops of the strongest exemplars of a finished run to the network, each alone."""

from __future__ import annotations

from typing import Any

from actmine.commands.finished import asked, prepared, workforce
from actmine.commands.live import NOTHING_LIVE, Live
from actmine.console import Display
from actmine.options.check import Check
from actmine.pipeline.run import open_run
from actmine.pipeline.stages.check_crops import check_crops


def check(options: Check, display: Display, live: Live = NOTHING_LIVE) -> dict[str, Any]:
    """Carries out `check`; its answer is what `--json` says."""
    place = prepared(options.engine, options.device)
    opened = open_run(options.run, options.trust)
    its = asked(opened, options.layers, options.units, options.weights, live)
    with workforce(options.engine, options.device, place, options.worker_cores, options.block_seconds, display) as crew:
        record = check_crops(
            opened.path, its.network, its.traced, its.layers, crew, display, options.most, opened.shards_to_read,
            its.units,
        )  # fmt: skip
    about = record["crop_check"]
    display.say(f"{about['checked']:,} exemplars of {about['layers']} layers have a crop_activation.")
    return dict(run=opened.path, **about)
