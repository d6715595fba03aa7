"""Draws every unit of a layer: batches sized to memory, another try for units that stay at zero."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from pipeline.ascent.canvas import to_bytes, to_rgb
from pipeline.ascent.climb import Climb
from pipeline.ascent.recipe import Preset
from pipeline.engines.engine import device_memory
from pipeline.errors import UserError
from pipeline.layers import Layer, Traced
from pipeline.models import Network
from pipeline.receptive_field import Field

_MOST_TOGETHER = 48  # a single unit, or a retry, costs a whole batch
_BYTES_PER_ELEMENT = 12  # of a value inside the network while ascending (float32): itself, its gradient, scratch
_CPU_BYTES = 512 << 20  # more would not be faster: the maps leave the caches
_GPU_BYTES = 8 << 30


@dataclass(frozen=True, slots=True)
class Visualization:
    """What ascent drew for one unit: `picture` is 8-bit RGB `[H, W, 3]`.

    `activation` is the unit's image activation on that picture, through the unmodified network; `seed` the one its
    noise came from. With `activation` not above zero, none of `attempts` made the unit fire.
    """

    unit: int
    picture: np.ndarray
    activation: float
    seed: int
    attempts: int


def visualize(
    network: Network,
    traced: Traced,
    layer: Layer,
    field: Field,
    units: Sequence[int],
    *,
    preset: Preset,
    seed: int,
    device: torch.device,
) -> Iterator[list[Visualization]]:
    """Draws `units` of `layer` by gradient ascent and yields them in order, in batches sized to memory.

    Canvases just hold one whole receptive `field`, where strides and padding let it lie, or are the network's input
    where that is smaller (pixels). A unit's picture depends on `seed`, the layer and the unit, not on its batch mates.
    Raises `UserError` if the network's input has neither one nor three channels.
    """
    check_channels(network)
    climb = Climb(network.preprocessing, traced, layer, field, preset, device)
    size = batch_size(layer, climb, device_memory(device))
    for begin in range(0, len(units), size):
        yield draw(climb, list(units[begin : begin + size]), size, seed)


def check_channels(network: Network) -> None:
    """Raises `UserError` if the network's input has neither one nor three channels."""
    channels = len(network.preprocessing.mean)
    if channels not in (1, 3):
        raise UserError(
            f"{network.name} takes images of {channels} channels; pictures can be drawn for 1 or 3. "
            "Leave them out with VISUALIZE=0."
        )


def unit_seed(seed: int, layer: str, unit: int, attempt: int) -> int:
    """The seed of one unit's noise, below 2**32: the same on every machine and in every batch."""
    return _hashed(f"{seed}/{layer}/{unit}/{attempt}")


def draw(climb: Climb, units: list[int], size: int, seed: int) -> list[Visualization]:
    """Ascends until each of up to `size` units fires or has used up its attempts; keeps the best of each.

    Every ascent is one of `size` pictures, the missing ones filled up: kernels round differently in batches of
    another size, and sixty steps of ascent make another picture of that.
    """
    name = climb.layer.name
    best: dict[int, Visualization] = {}
    stuck = units
    for attempt in range(climb.preset.attempts):
        full = stuck + stuck[:1] * (size - len(stuck))
        seeds = [unit_seed(seed, name, unit, attempt) for unit in full]
        pictures, activations = climb(full, seeds, _hashed(f"{seed}/{name}/jitter/{attempt}"), attempt)
        drawn = zip(stuck, seeds, to_bytes(pictures), activations.tolist(), strict=False)
        for unit, its_seed, picture, activation in drawn:
            found = Visualization(unit, to_rgb(picture), activation, its_seed, attempt + 1)
            better = max(best.get(unit, found), found, key=_height)
            best[unit] = replace(better, attempts=attempt + 1)
        stuck = [unit for unit in stuck if not best[unit].activation > 0]
        if not stuck:
            break
    return [best[unit] for unit in units]


def _height(visualization: Visualization) -> float:
    return -math.inf if math.isnan(visualization.activation) else visualization.activation


def batch_size(layer: Layer, climb: Climb, total: int | None) -> int:
    """How many pictures fit in memory, evened out over the batches of a whole layer.

    `total` is the memory of a device that has its own (bytes), None for one that uses the system's.
    """
    most = min(max(budget(total) // (_BYTES_PER_ELEMENT * climb.elements()), 1), _MOST_TOGETHER)
    return math.ceil(layer.units / math.ceil(layer.units / most))


def budget(total: int | None) -> int:
    """How much of a device's memory ascent takes (bytes); batches depend on it."""
    return _CPU_BYTES if total is None else min(_GPU_BYTES, total // 4)


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
