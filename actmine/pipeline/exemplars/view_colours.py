"""Signed values as colours, as views have them: zero is grey."""

from __future__ import annotations

import numpy as np

PERCENTILE = 99.5
"""The percentile of the values' sizes that is shown at full colour."""
_ZERO, _FULL = 128, 127


def shown(values: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Signed `values` `[H, W, C]` as 8-bit colours, zero grey, and the size of those at full colour.

    That is `PERCENTILE` of the sizes of all values but zeros, so that a few large ones leave the others visible; above
    and below zero are treated alike. None where there is nothing but zeros, or a value that is no finite number.
    """
    sizes = np.abs(values)
    sizes = sizes[sizes > 0] if np.isfinite(sizes).all() else sizes[:0]
    if not len(sizes):
        return None
    scale = float(np.percentile(sizes, PERCENTILE))
    return (_ZERO + np.rint(_FULL * np.clip(values / scale, -1, 1))).astype(np.uint8), scale
