"""`publish`: a run in a folder, on S3 or on the hub, for others."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from actmine.console import Display
from actmine.options.publish import Publish
from actmine.pipeline.atlas.extent import Extent
from actmine.pipeline.atlas.extra import atlas_extra
from actmine.pipeline.progress import in_bytes
from actmine.pipeline.run import open_run


def publish(options: Publish, display: Display) -> dict[str, Any]:
    """Carries out `publish`; its answer is what `--json` says."""
    with atlas_extra():
        from actmine.pipeline.publishing.publish import Publication, publish
    opened = open_run(options.run)
    layers = tuple(name.strip() for name in options.layers.split(",") if name.strip())
    extent = Extent(options.exemplars, options.image_pages and options.pictures, options.pictures)
    what = Publication(extent, layers, options.notes, options.license, options.title, options.public)
    plan, done = publish(opened, options.to, what, display, options.plan)
    if done is None:
        return {"run": opened.path, "place": options.to, "plan": asdict(plan)}
    removed = f", {done.removed:,} removed" if done.removed else ""
    display.say(
        f"{done.place} holds {done.files:,} files of together {in_bytes(done.nbytes)}: {done.written:,} written, "
        f"{done.kept:,} there before{removed}."
    )
    return {"run": opened.path, "plan": asdict(plan), **asdict(done)}
