"""`atlas-export`: the pages of the atlas as plain files."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from actmine.console import Display
from actmine.options.atlas_export import AtlasExport
from actmine.pipeline.atlas.extra import atlas_extra
from actmine.pipeline.run import open_run


def atlas_export(options: AtlasExport, display: Display) -> dict[str, Any]:
    """Carries out `atlas-export`; its answer is what `--json` says."""
    with atlas_extra():
        from actmine.pipeline.atlas.export import export
    wanted = [name.strip() for name in options.layers.split(",") if name.strip()]
    opened = open_run(options.run, options.trust)
    written = export(opened, options.out, wanted, display)
    display.say(f"Open {written.page}")
    return dict(run=opened.path, **asdict(written))
