"""How the atlas writes shares."""

from __future__ import annotations


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
