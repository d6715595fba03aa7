"""Which overviews and sheets `mine` draws unless asked: all that fit in a while, spread over the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from actmine.pipeline.cores import usable_cores
from actmine.pipeline.words import OF_A_LAYER
from actmine.pipeline.words import SHEETS_SECONDS as SECONDS

# Measured, in seconds of one core: a unit of an overview, of which one is drawn at a time; a sheet with 50 exemplars.
_A_CELL, _A_SHEET = 3e-3, 0.21


@dataclass(frozen=True, slots=True)
class SheetPlan:
    """Layers with an overview, layers with sheets of their `most` selective units, and whether that is all."""

    overviews: tuple[str, ...]
    sheets: tuple[str, ...]
    most: int
    whole: bool


def sheet_plan(units: Mapping[str, int], cores: int = 0) -> SheetPlan:
    """What fits for layers with so many `units`, in the order of the network; `cores` 0: those there are.

    Layers are left out evenly, the first and the last one never.
    """
    names, lanes = list(units), cores or usable_cores()
    overviews = names
    while len(overviews) > 2 and sum(units[name] for name in overviews) * _A_CELL > SECONDS / 2:
        overviews = _spread(names, len(overviews) - 1)
    room = int(SECONDS / 2 * lanes / _A_SHEET)
    most = next((most for most in OF_A_LAYER if most * len(names) <= room), OF_A_LAYER[-1])
    sheets = _spread(names, max(room // most, 2))
    whole = len(overviews) == len(sheets) == len(names) and most == OF_A_LAYER[0]
    return SheetPlan(tuple(overviews), tuple(sheets), most, whole)


def _spread(names: Sequence[str], count: int) -> list[str]:
    if count >= len(names):
        return list(names)
    return [names[place] for place in np.unique(np.linspace(0, len(names) - 1, count).round().astype(int))]
