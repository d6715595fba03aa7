"""`views`: projects the strongest exemplars of a finished run back to pixels."""

from __future__ import annotations

from jobs.console import Display
from jobs.finished import asked, prepared, workforce
from jobs.options.views import Views
from pipeline.run import open_run
from pipeline.spoken import command
from pipeline.stages.views import view_run
from pipeline.tables.view_tables import check_method


def views(options: Views) -> None:
    """Carries out `views`."""
    display = Display(options.quiet or options.as_json)
    check_method(options.method)
    place = prepared(options.engine, options.device)
    opened = open_run(options.run, options.trust)
    its = asked(opened, options.layers, "", options.weights)
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
    if options.as_json:
        display.answer(run=opened.path, method=options.method, **about)
