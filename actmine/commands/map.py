"""`map`: all units of a run in a plane, or all images by what they drive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actmine.console import Display
from actmine.options.map import Map
from actmine.pipeline.network.devices import compute_exactly
from actmine.pipeline.relations.maps import map_run
from actmine.pipeline.run import open_run
from actmine.pipeline.sheets.map_sheet import check_file, write_map
from actmine.pipeline.spoken import command
from actmine.pipeline.unit_maps import MAP_FILES, truth
from actmine.pipeline.words import MapOf


def map(options: Map, display: Display) -> dict[str, Any]:
    """Carries out `map`; its answer is what `--json` says."""
    out = Path(options.out) if options.out else None
    if out:
        check_file(out)
    compute_exactly()
    opened = open_run(options.run, options.trust)
    layers = [name.strip() for name in options.layers.split(",") if name.strip()]
    about = map_run(opened.path, options.by, layers, options.seed, display)["maps_of"][str(options.by)]
    display.say(f"{opened.path / MAP_FILES[options.by]} has the places of {about['rows']:,} {options.by}.")
    if said := truth(about, options.by):
        display.say(said)
    if about.get("without_variance"):
        silent = about["without_variance"]
        display.say(f"{silent:,} {'unit never varies, and has' if silent == 1 else 'units never vary, and have'} none.")
    if out:
        write_map(open_run(options.run, options.trust), options.by, out)
        display.say(f"{out} shows it.")
    display.say(f"Look at it: {command('atlas', run=opened.path)}")
    return dict(run=opened.path, table=opened.path / MAP_FILES[MapOf(options.by)], out=out, **about)
