"""Colours of a map: ramps whose lightness runs one way, and a few colours that colour-blind eyes tell apart."""

from __future__ import annotations

import numpy as np

KINDS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#9a8700", "#7b4fa3")
"""Of labels, the commonest first: those of Okabe and Ito (2008), the yellow darker and black a violet, so that each is
seen on light and on dark paper."""
RAMP = ("#e8b04a", "#d9703a", "#ae3f5e", "#6d3178", "#2c1e5c")
"""On light paper, from few to much: ever darker, so that it reads without any colour."""
RAMP_DARK = ("#4b3f92", "#8f3f86", "#d0566b", "#f08c4e", "#fbd77c")
"""On dark paper: ever lighter."""
OTHER, OTHER_DARK = "#c3bdb4", "#4d4842"
"""What has no label of those, or no number."""
STEPS = 64


def ramp(stops: tuple[str, ...] = RAMP, steps: int = STEPS) -> list[str]:
    """Colours between the stops, as many as `steps`."""
    return ["#" + "".join(f"{round(part):02x}" for part in row) for row in _between(stops, steps)]


def _between(stops: tuple[str, ...], steps: int) -> np.ndarray:
    known = np.array([[int(stop[at : at + 2], 16) for at in (1, 3, 5)] for stop in stops])
    at = np.linspace(0, len(stops) - 1, steps)
    return np.stack([np.interp(at, range(len(stops)), known[:, part]) for part in range(3)], 1)


def scale(values: np.ndarray) -> tuple[float, float, float]:
    """What the ends and the middle of a ramp stand for: the 2nd, 50th and 98th percentile of what is known."""
    known = values[np.isfinite(values)]
    low, middle, high = np.percentile(known, (2, 50, 98)) if len(known) else (0.0, 0.0, 0.0)
    return float(low), float(middle), float(high)
