"""Draws every unit of a layer: batches sized to memory, another try for units that stay at zero."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.ascent.canvas import to_bytes, to_rgb
from pipeline.ascent.climb import Climb
from pipeline.ascent.facets import find_facets
from pipeline.ascent.recipe import Guide
from pipeline.ascent.references import Exemplar
from pipeline.errors import UserError
from pipeline.network.layers import Layer
from pipeline.network.models import Network

_MOST_TOGETHER, _MOST_ON_GPU = 48, 128  # a single unit, or a retry, costs a whole batch
_BYTES_PER_ELEMENT = 12  # of a value inside the network while ascending (float32): itself, its gradient, scratch
_CPU_BYTES = 512 << 20  # more would not be faster: the maps leave the caches
_GPU_BYTES = 8 << 30


@dataclass(frozen=True, slots=True)
class Visualization:
    """What ascent drew for one unit: `picture` is 8-bit RGB `[H, W, 3]`.

    `readings` are the image activations of all units of the layer on that picture, through the unmodified network,
    float32 `[U]`, `activation` the unit's own; `seed` the one its noise came from. With `activation` not above zero,
    none of `attempts` made the unit fire. Where a unit has several pictures, `facet` is the number of this one,
    `exemplars` the ranks of those it stands for, and `silhouette` how well the unit's facets stand apart (-1 to 1).
    """

    unit: int
    picture: np.ndarray
    readings: np.ndarray
    seed: int
    attempts: int
    facet: int | None = None
    exemplars: tuple[int, ...] = ()
    silhouette: float | None = None

    @property
    def activation(self) -> float:
        """The unit's own image activation."""
        return float(self.readings[self.unit])


def check_channels(network: Network) -> None:
    """Raises `UserError` if the network's input has neither one nor three channels."""
    channels = len(network.preprocessing.mean)
    if channels not in (1, 3):
        raise UserError(
            f"{network.name} takes images of {channels} channels; pictures can be drawn for 1 or 3. "
            "Leave them out with VISUALIZE=0."
        )


def unit_seed(seed: int, layer: str, unit: int, attempt: int, facet: int | None = None) -> int:
    """The seed of the noise of one unit (or facet), below 2**32: the same on every machine and in every batch."""
    return _hashed(f"{seed}/{layer}/{unit if facet is None else f'{unit}.{facet}'}/{attempt}")


@dataclass(frozen=True, slots=True)
class _Wish:
    """One picture to draw: of a unit, or of a facet of it, whose `exemplars` are ranks."""

    unit: int
    guide: Guide
    facet: int | None = None
    exemplars: tuple[int, ...] = ()
    silhouette: float | None = None


def draw(
    climb: Climb,
    units: list[int],
    size: int,
    seed: int,
    exemplars: Mapping[int, Sequence[Exemplar]] | None = None,
) -> list[Visualization]:
    """Ascends until each of up to `size` units fires or has used up its attempts; keeps the best of each.

    Of a preset with facets a unit has a picture for each of its facets, one after the other. `exemplars` of each unit
    are what such recipes need that ask for references. Every ascent is one of `size` pictures, the missing ones filled
    up: kernels round differently in batches of another size, and sixty steps of ascent make another picture of that.
    """
    wishes = [wish for unit in units for wish in _wishes(climb, unit, (exemplars or {}).get(unit, ()))]
    return [
        visualization
        for begin in range(0, len(wishes), size)
        for visualization in _drawn(climb, wishes[begin : begin + size], size, seed)
    ]


def _wishes(climb: Climb, unit: int, exemplars: Sequence[Exemplar]) -> list[_Wish]:
    if not climb.preset.references:
        return [_Wish(unit, Guide())]
    references = climb.placing(exemplars)
    if not climb.preset.facets:
        return [_Wish(unit, Guide(references=references))]
    facets = find_facets(climb.embedded(references).numpy()) if exemplars else []
    if not facets:  # it has not met one image
        return [_Wish(unit, Guide(), 0)]
    return [
        _Wish(
            unit, Guide(start=references[list(facet.nearest)].mean(0)), number,
            tuple(exemplars[member].rank for member in facet.members), facet.silhouette,
        )
        for number, facet in enumerate(facets)
    ]  # fmt: skip


def _drawn(climb: Climb, wishes: list[_Wish], size: int, seed: int) -> list[Visualization]:
    name = climb.layer.name
    best: dict[int, Visualization] = {}
    stuck = list(range(len(wishes)))
    for attempt in range(climb.preset.attempts):
        full = [wishes[number] for number in stuck + stuck[:1] * (size - len(stuck))]
        seeds = [unit_seed(seed, name, wish.unit, attempt, wish.facet) for wish in full]
        jitter_seed = _hashed(f"{seed}/{name}/jitter/{attempt}")
        units, guides = [wish.unit for wish in full], [wish.guide for wish in full]
        pictures, readings = climb(units, seeds, jitter_seed, attempt, guides)
        drawn = zip(stuck, full, seeds, to_bytes(pictures), readings.cpu().numpy(), strict=False)
        for number, wish, its_seed, picture, its_readings in drawn:
            found = Visualization(
                wish.unit, to_rgb(picture), its_readings.copy(), its_seed, attempt + 1, wish.facet, wish.exemplars,
                wish.silhouette,
            )  # fmt: skip
            better = max(best.get(number, found), found, key=_height)
            best[number] = replace(better, attempts=attempt + 1)
        stuck = [number for number in stuck if not best[number].activation > 0]
        if not stuck:
            break
    return [best[number] for number in range(len(wishes))]


def _height(visualization: Visualization) -> float:
    return -math.inf if math.isnan(visualization.activation) else visualization.activation


def batch_size(layer: Layer, climb: Climb, total: int | None) -> int:
    """How many pictures fit in memory, evened out over the batches of a whole layer.

    `total` is the memory of a device that has its own (bytes), None for one that uses the system's.
    """
    together = _MOST_TOGETHER if total is None else _MOST_ON_GPU
    most = min(max(budget(total) // (_BYTES_PER_ELEMENT * climb.elements()), 1), together)
    return math.ceil(layer.units / math.ceil(layer.units / most))


def budget(total: int | None) -> int:
    """How much of a device's memory ascent takes (bytes); batches depend on it."""
    return _CPU_BYTES if total is None else min(_GPU_BYTES, total // 4)


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
