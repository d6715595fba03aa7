"""Single positions of layers, and what a batch of images reads there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Spot = tuple[int, int, int, int]
"""A layer's number, one of its units, and the row and column of its map (0 where there are none)."""


def in_batches(device: torch.device) -> bool:
    """Whether positions of many images go through whole maps together: elsewhere than on a CPU.

    There a kernel's launch costs more than its work on one image; a CPU follows what a position depends on instead.
    """
    return device.type != "cpu"


def picked(outputs: Sequence[Tensor], spots: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Activations `[N]` at `spots`, int64 `[N, 5]`: which output, image of the batch, unit, row and column.

    Outputs are maps `[B, U, H, W]` or, without positions, `[B, U]`. They come output by output: with the activations
    goes which of the spots each is of, `[N]`. Where they are to be read is sent to a device once.
    """
    order = np.argsort(spots[:, 0], kind="stable")
    numbers, counts = np.unique(spots[order, 0], return_counts=True)
    where = torch.from_numpy(np.ascontiguousarray(spots[order, 1:].T, np.int64)).to(outputs[0].device)
    parts = []
    for number, (image, unit, y, x) in zip(numbers.tolist(), where.split(counts.tolist(), 1), strict=True):
        output = outputs[number]
        parts.append(output[image, unit, y, x] if output.dim() == 4 else output[image, unit])
    return torch.cat(parts), order
