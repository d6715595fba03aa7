"""`views`: projects the strongest exemplars of a finished run back to pixels."""

from __future__ import annotations

from typing import Any

from actmine.commands.finished import asked, prepared, workforce
from actmine.commands.live import NOTHING_LIVE, Live
from actmine.console import Display
from actmine.options.views import Views
from actmine.pipeline.run import open_run
from actmine.pipeline.spoken import command
from actmine.pipeline.stages.views import view_run
from actmine.pipeline.tables.view_tables import check_method


def views(options: Views, display: Display, live: Live = NOTHING_LIVE) -> dict[str, Any]:
    """Carries out `views`; its answer is what `--json` says."""
    check_method(options.method)
    place = prepared(options.engine, options.device)
    opened = open_run(options.run, options.trust)
    its = asked(opened, options.layers, "", options.weights, live)
    display.say(
        f"Projecting units of {len(its.layers)} layers of {its.network.name} ({its.network.weights}) "
        f"by {options.method}."
    )
    with workforce(options.engine, options.device, place, options.worker_cores, options.block_seconds, display) as crew:
        record = view_run(
            opened.path,
            opened.shards_to_read,
            its.network,
            its.traced,
            its.layers,
            crew,
            display,
            method=options.method,
            most=options.most,
        )
    about = record["views"][options.method]
    display.say(
        f"{opened.path / 'views'} has {about['views']:,} views of {about['layers']} layers by {options.method}."
    )
    look = command("sheets", run=opened.path, layers=its.layers[-1].name, grids=True)
    display.say(f"Look at them: {look}")
    return dict(run=opened.path, method=options.method, **about)
