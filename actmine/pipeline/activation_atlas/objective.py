"""The objective of a cell's drawing: its direction, whitened, and how straight a vector points that way."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from actmine.pipeline.ascent.objectives import Direction
from actmine.pipeline.storage.fingerprint import described

POWER = 4.0
"""Of the cosine, as in the notebook of Carter et al."""
LEAST = 0.1
"""The cosine below which a vector is treated as one of that cosine, likewise: it begins somewhere."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Aligned(Direction):
    """Projection on a whitened direction times a power of the cosine with it, at one position (Carter et al. 2019).

    `weights` `[N, U]` are the whitened directions of cells, of length 1; a unit's number names a row. The cosine keeps
    the vector from growing along other directions on the way. `means` `[N, U]` are the means of the cells.
    """

    means: Tensor = field(default_factory=lambda: torch.empty(0, 0))

    def __repr__(self) -> str:
        return f"Aligned(weights={described(self.weights)}, means={described(self.means)}, power={POWER})"

    @property
    def one_position(self) -> bool:
        """Nothing else is read."""
        return True

    def projected(self, outputs: Tensor) -> Tensor:
        """Projections on the `N` directions, then cosines with the means, of `[B, U, …]`: `[B, 2 * N, …]`."""
        projections = Direction.projected(self, outputs)
        means = functional.normalize(self.means.to(outputs.device, outputs.dtype), dim=1)
        cosines = torch.einsum("bu...,nu->bn...", functional.normalize(outputs, dim=1), means)
        return torch.cat([projections, cosines], 1)

    def __call__(self, outputs: Tensor, units: Tensor) -> Tensor:
        """Of `[B, U, H, W]` or `[B, U]`, `[B]`."""
        if outputs.dim() == 4:
            outputs = outputs[:, :, outputs.shape[2] // 2, outputs.shape[3] // 2]
        rows = self.weights[units.to(self.weights.device)].to(outputs.device, outputs.dtype)  # not all at each step
        along = (outputs * rows).sum(1)
        cosine = along / (outputs.norm(dim=1) * rows.norm(dim=1) + 1e-12)
        return along * cosine.clamp_min(LEAST) ** POWER
