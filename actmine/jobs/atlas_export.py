"""`atlas-export`: the pages of the atlas as plain files."""

from __future__ import annotations

from dataclasses import asdict

from actmine.jobs.console import Display
from actmine.jobs.options.atlas_export import AtlasExport
from actmine.pipeline.atlas.extra import atlas_extra
from actmine.pipeline.run import open_run


def atlas_export(options: AtlasExport) -> None:
    """Carries out `atlas-export`."""
    with atlas_extra():
        from actmine.pipeline.atlas.export import export
    display = Display(options.quiet or options.as_json)
    wanted = [name.strip() for name in options.layers.split(",") if name.strip()]
    opened = open_run(options.run, options.trust)
    written = export(opened, options.out, wanted, display)
    display.say(f"Open {written.page}")
    if options.as_json:
        display.answer(run=opened.path, **asdict(written))
