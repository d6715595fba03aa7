"""How the atlas writes shares, and which pictures it shows pixel by pixel."""

from __future__ import annotations

from actmine.pipeline.exemplars.pictures import SMALL_SIDE


def small(box: tuple[int, int, int, int]) -> bool:
    """Whether a picture of a box (left, top, right, bottom; pixels) is enlarged pixel by pixel: smoothed, it would be a
    blur."""
    return max(box[2] - box[0], box[3] - box[1]) <= SMALL_SIDE


def percent(share: float | None) -> str:
    """A share as percent, in as many digits as tell something: 12%, 1.2%, 0.03%; - for none."""
    if share is None or share != share:
        return "-"
    hundred = share * 100
    return (
        f"{hundred:.0f}%"
        if hundred >= 9.95 or not hundred
        else f"{hundred:.1f}%"
        if hundred >= 0.95
        else f"{hundred:.2g}%"
    )
