"""`facets`: finds the facets of units of a finished run among their exemplars."""

from __future__ import annotations

from actmine.jobs.console import Display
from actmine.jobs.finished import asked, prepared, workforce
from actmine.jobs.options.facets import Facets
from actmine.pipeline.ascent.facets import check_installed
from actmine.pipeline.run import open_run
from actmine.pipeline.stages.exemplar_facets import facet_run


def facets(options: Facets) -> None:
    """Carries out `facets`."""
    display = Display(options.quiet or options.as_json)
    check_installed()
    place = prepared(options.engine, options.device)
    opened = open_run(options.run, options.trust)
    its = asked(opened, options.layers, options.units, options.weights)
    display.say(f"Finding facets of {its.count:,} units of {its.network.name} ({its.network.weights}).")
    with workforce(options.engine, options.device, place, options.worker_cores, options.block_seconds, display) as crew:
        record = facet_run(opened, its.network, its.traced, its.layers, crew, display, units=its.units)
    about = record["facets"]
    display.say(
        f"{about['several']:,} of {about['units']:,} units that fire have two facets or more, by {about['by']}: "
        f"columns facets of {opened.path / 'units'} and facet of {opened.path / 'exemplars'}."
    )
    if options.as_json:
        display.answer(run=opened.path, **about)
