"""`facets`: finds the facets of units of a finished run among their exemplars."""

from __future__ import annotations

from typing import Any

from actmine.commands.finished import asked, prepared, workforce
from actmine.commands.live import NOTHING_LIVE, Live
from actmine.console import Display
from actmine.options.facets import Facets
from actmine.pipeline.ascent.facets import check_installed
from actmine.pipeline.run import open_run
from actmine.pipeline.stages.exemplar_facets import facet_run


def facets(options: Facets, display: Display, live: Live = NOTHING_LIVE) -> dict[str, Any]:
    """Carries out `facets`; its answer is what `--json` says."""
    check_installed()
    place = prepared(options.engine, options.device)
    opened = open_run(options.run, options.trust)
    its = asked(opened, options.layers, options.units, options.weights, live)
    display.say(f"Finding facets of {its.count:,} units of {its.network.name} ({its.network.weights}).")
    with workforce(options.engine, options.device, place, options.worker_cores, options.block_seconds, display) as crew:
        record = facet_run(opened, its.network, its.traced, its.layers, crew, display, units=its.units)
    about = record["facets"]
    display.say(
        f"{about['several']:,} of {about['units']:,} units that fire have two facets or more, by {about['by']}: "
        f"columns facets of {opened.path / 'units'} and facet of {opened.path / 'exemplars'}."
    )
    return dict(run=opened.path, **about)
