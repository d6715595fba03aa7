"""Pages of a picture of one's own: where it is dropped, and which units it drives."""

from __future__ import annotations

from collections.abc import Sequence

from actmine.pipeline.atlas.looked import driven, driven_at, shown_layers
from actmine.pipeline.atlas.looking import DONE, LOADS, LOOKS, MOST_BYTES, WAITS, Job
from actmine.pipeline.atlas.pages import Atlas, rendered
from actmine.pipeline.atlas.places import MOST, place_said

GONE_ = (
    "Pictures are kept in memory alone, and only the last few: this one has gone, or the run has changed since. "
    "Send it again."
)
UNITS_A_LAYER = 12
"""How many units of a layer a page shows, unless it is asked for that layer alone."""
_OPEN = 3
_STATES = {
    WAITS: "Other pictures come first …",
    LOADS: "The network is being loaded, which takes a few seconds the first time …",
    LOOKS: "The network looks at it …",
}


def look_page(atlas: Atlas, recent: Sequence[Job], ready: bool) -> str:
    """Where a picture is chosen or dropped, with those that are still kept."""
    done = [job for job in recent if job.state == DONE]
    return rendered(atlas, "look.html", recent=done, ready=ready, most=MOST_BYTES)


def looked_page(atlas: Atlas, job: Job, at: Sequence[str] = (), layer: str = "") -> str:
    """The units that a picture drives, of all layers or of one alone; those that fire at a place of it.

    While it is under way, a page that says so. Raises `UserError` where a table cannot be read.
    """
    looked = job.looked
    if looked is None:
        return rendered(atlas, "looked.html", job=job, state=_STATES.get(job.state, ""), looked=None)
    names = shown_layers(atlas.queries, looked)
    chosen = [name for name in names if name == layer] or names
    most = MOST if len(chosen) == 1 else UNITS_A_LAYER
    place = place_said(looked.size, *at) if at else None
    there = driven_at(atlas.queries, looked, *place, most=MOST) if place else None
    layers = [driven(atlas.queries, looked, name, most) for name in chosen]
    return rendered(
        atlas, "looked.html", job=job, looked=looked, layers=layers, opened=_OPEN, place=place, there=there,
        alone=len(chosen) == 1 and len(names) > 1,
    )  # fmt: skip
