"""Which unit of a layer a picture suits best: image activations made comparable by the dataset's mean and deviation."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

COLUMNS = ("activation_mean", "activation_std", "firing_rate")
"""Of the units table: what units are compared by."""


class Ranking:
    """The units of one layer, `units` being their table with at least `COLUMNS`, in order.

    Units that have no deviation or that never fired over the dataset are left out.
    """

    def __init__(self, units: pa.Table) -> None:
        mean, deviation, firing = (units[name].to_numpy().astype(np.float64) for name in COLUMNS)
        self.compared = np.isfinite(mean) & np.isfinite(deviation) & (deviation > 0) & (firing > 0)
        self.mean = np.where(self.compared, mean, 0.0)
        self.deviation = np.where(self.compared, deviation, 1.0)

    def rank(self, unit: int, readings: np.ndarray) -> int | None:
        """How many units a picture with these image activations `[U]` suits better than `unit`; None if left out."""
        heights = (readings.astype(np.float64) - self.mean) / self.deviation
        if not self.compared[unit] or np.isnan(heights[unit]):
            return None
        return int((self.compared & (heights > heights[unit])).sum())
