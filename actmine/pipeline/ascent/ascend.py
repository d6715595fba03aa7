"""Draws every unit of a layer: batches sized to memory, another try for units that stay at zero."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from actmine.pipeline.ascent.canvas import to_bytes, to_rgb
from actmine.pipeline.ascent.climb import Climb
from actmine.pipeline.ascent.facets import find_facets
from actmine.pipeline.ascent.recipe import Guide
from actmine.pipeline.ascent.references import Exemplar
from actmine.pipeline.errors import UserError, is_memory_full
from actmine.pipeline.network.devices import free
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.network.models import Network

_MOST_TOGETHER, _MOST_ON_GPU = 16, 256  # a single unit, or a retry, costs a whole batch
_MOST_NUMBERS = 1 << 30  # that a batch computes on a CPU: what takes long is divided, so that every core has a part
_CPU_BYTES = 256 << 20  # more would not be faster: the maps leave the caches
_CPU_BYTES_PER_ELEMENT = 12  # of a value inside the network while ascending (float32)
_GPU_BYTES = 16 << 30
_GPU_BYTES_PER_ELEMENT = 8  # tensors alone take 3 to 6; the rest is room for what kernels need


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
class _Task:
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
    cores: int = 1,
) -> list[Visualization]:
    """Ascends until each of the units fires or has used up its attempts; keeps the best of each.

    Of a preset with facets a unit has a picture for each of its facets, one after the other. `exemplars` of each unit
    are what such recipes need that ask for references. Every ascent is one of `size` pictures, the missing ones filled
    up: kernels round differently in batches of another size, and sixty steps of ascent make another picture of that.
    Only where a GPU has no room for so many, because others use it, half as many rise together.
    On a CPU that many `cores` work, each on an ascent of its own: several on one would round differently.
    """
    tasks = [task for unit in units for task in _to_draw(climb, unit, (exemplars or {}).get(unit, ()))]
    groups = [tasks[begin : begin + size] for begin in range(0, len(tasks), size)]
    if climb.device.type != "cpu":
        return [found for group in groups for found in _fitting(climb, group, size, seed)]
    stopped, on_step = threading.Event(), climb.on_step

    def step() -> None:
        if stopped.is_set():
            raise _Stopped
        on_step()

    climb.on_step = step
    pool = ThreadPoolExecutor(max(cores, 1), "ascent", torch.set_num_threads, (1,))
    try:
        return [found for each in pool.map(lambda group: _fitting(climb, group, size, seed), groups) for found in each]
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
        climb.on_step = on_step


class _Stopped(Exception):
    """Nobody waits for the ascent any more."""


def _to_draw(climb: Climb, unit: int, exemplars: Sequence[Exemplar]) -> list[_Task]:
    if not climb.preset.references:
        return [_Task(unit, Guide())]
    references = climb.placing(exemplars)
    if not climb.preset.facets:
        return [_Task(unit, Guide(references=references))]
    facets = find_facets(climb.embedded(references).numpy()) if exemplars else []
    if not facets:  # it has not met one image
        return [_Task(unit, Guide(), 0)]
    return [
        _Task(
            unit, Guide(start=references[list(facet.nearest)].mean(0)), number,
            tuple(exemplars[member].rank for member in facet.members), facet.silhouette,
        )
        for number, facet in enumerate(facets)
    ]  # fmt: skip


def _fitting(climb: Climb, tasks: list[_Task], size: int, seed: int) -> list[Visualization]:
    """As `_drawn`, by ascents of half as many pictures where a GPU has no room for `size`."""
    try:
        return _drawn(climb, tasks, size, seed)
    except RuntimeError as error:
        if size == 1 or not is_memory_full(error):
            raise
    free()
    half = math.ceil(size / 2)
    parts = [tasks[begin : begin + half] for begin in range(0, len(tasks), half)]
    return [found for part in parts for found in _fitting(climb, part, half, seed)]


def _drawn(climb: Climb, tasks: list[_Task], size: int, seed: int) -> list[Visualization]:
    name = climb.layer.name
    best: dict[int, Visualization] = {}
    stuck = list(range(len(tasks)))
    for attempt in range(climb.preset.attempts):
        full = [tasks[number] for number in stuck + stuck[:1] * (size - len(stuck))]
        seeds = [unit_seed(seed, name, task.unit, attempt, task.facet) for task in full]
        jitter_seed = _hashed(f"{seed}/{name}/jitter/{attempt}")
        units, guides = [task.unit for task in full], [task.guide for task in full]
        pictures, readings = climb(units, seeds, jitter_seed, attempt, guides)
        drawn = zip(stuck, full, seeds, to_bytes(pictures), readings.cpu().numpy(), strict=False)
        for number, task, its_seed, picture, its_readings in drawn:
            found = Visualization(
                task.unit, to_rgb(picture), its_readings.copy(), its_seed, attempt + 1, task.facet, task.exemplars,
                task.silhouette,
            )  # fmt: skip
            better = max(best.get(number, found), found, key=_height)
            best[number] = replace(better, attempts=attempt + 1)
        stuck = [number for number in stuck if not best[number].activation > 0]
        if not stuck:
            break
    return [best[number] for number in range(len(tasks))]


def _height(visualization: Visualization) -> float:
    return -math.inf if math.isnan(visualization.activation) else visualization.activation


def batch_size(layer: Layer, climb: Climb, total: int | None) -> int:
    """How many pictures fit in memory, evened out over the batches of a whole layer.

    `total` is the memory of a device that has its own (bytes), None for one that uses the system's.
    """
    inside = max(climb.elements(), 1)
    fitting = budget(total) // ((_CPU_BYTES_PER_ELEMENT if total is None else _GPU_BYTES_PER_ELEMENT) * inside)
    if total is None:
        steps = sum(stage.steps * stage.canvas**2 for stage in climb.preset.stages)
        most = min(fitting, _MOST_TOGETHER, int(_MOST_NUMBERS / (steps * inside)))
    else:
        most = min(fitting, _MOST_ON_GPU)
    return math.ceil(layer.units / math.ceil(layer.units / max(most, 1)))


def budget(total: int | None) -> int:
    """How much of a device's memory ascent takes (bytes); batches depend on it."""
    return _CPU_BYTES if total is None else min(_GPU_BYTES, total // 4)


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
