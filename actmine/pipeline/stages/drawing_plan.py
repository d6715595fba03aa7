"""Which units are drawn unless somebody says so: all, if that is done in a while, else as many of each layer as are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from actmine.pipeline.ascent.climb import Climb
from actmine.pipeline.ascent.recipe import Preset
from actmine.pipeline.choose import choose_units
from actmine.pipeline.cores import usable_cores
from actmine.pipeline.engines.engine import Engine
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from actmine.pipeline.run import Run

SECONDS = 600.0
"""How long drawing may take that nobody asked for."""
_OF_A_LAYER = (12, 6, 3, 1)
# Measured (docs/benchmarks.md): seconds of a step of one unit, and more for each number inside the network.
_A_STEP, _A_NUMBER = {"cpu": 2e-4, "cuda": 3e-5}, {"cpu": 4.8e-9, "cuda": 5.2e-11}
_LAYERS_LOOKED_AT = 12  # the cost of those between is taken to lie between theirs


@dataclass(frozen=True, slots=True)
class Plan:
    """`units` of each layer that are to be drawn (None: all), about how long that takes, and all of them (seconds)."""

    units: Mapping[str, Sequence[int]] | None
    seconds: float
    whole: float


def plan(run: Run, layers: Sequence[Layer], costs: Mapping[str, float]) -> Plan:
    """All units of `layers` if they are drawn in about `SECONDS`; else the most selective ones of each, as sheets.

    `costs` are those of `seconds_a_unit`.
    """
    whole = sum(layer.units * costs[layer.name] for layer in layers)
    if whole <= SECONDS:
        return Plan(None, whole, whole)
    names = [layer.name for layer in layers]
    for most in _OF_A_LAYER:
        units = choose_units(run, names, None, most)
        seconds = sum(len(units[name]) * costs[name] for name in names)
        if seconds <= SECONDS:
            return Plan(units, seconds, whole)
    return Plan({name: [] for name in names}, 0.0, whole)


def seconds_a_unit(
    network: Network, traced: Traced, layers: Sequence[Layer], preset: Preset, engine: Engine
) -> dict[str, float]:
    """About how long a unit of each layer takes, by name (seconds).

    It is arithmetic, good to a factor of two or three: the same machine makes the same plan again.
    """
    fields, kind = receptive_fields(traced, layers), engine.device.type
    lanes = usable_cores() if kind == "cpu" else 1
    steps = sum(stage.steps for stage in preset.stages)
    at_full_size = sum(stage.steps * stage.canvas**2 for stage in preset.stages)
    looked_at = np.unique(np.linspace(0, len(layers) - 1, _LAYERS_LOOKED_AT).round().astype(int))
    found = []
    for layer in (layers[number] for number in looked_at):
        climb = Climb(network.preprocessing, traced, layer, fields[layer.name], preset, engine.here)
        numbers = at_full_size * climb.elements() / lanes
        found.append(steps * _A_STEP.get(kind, _A_STEP["cpu"]) + numbers * _A_NUMBER.get(kind, _A_NUMBER["cpu"]))
    each = np.interp(np.arange(len(layers)), looked_at, found)
    return {layer.name: float(cost) for layer, cost in zip(layers, each, strict=True)}
