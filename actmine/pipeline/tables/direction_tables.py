"""The table `directions/`: which latents of a dictionary lie nearest each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional

from actmine.pipeline.dictionaries.dictionary import Dictionary
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import write_table
from actmine.schemas.directions import DIRECTIONS

MOST_LATENTS = 1 << 14
"""Of wider dictionaries none are compared: it takes products of all pairs."""
NEAREST = 10
_TOGETHER = 512
_LEVEL = 0.05
_CELLS = 1 << 16


def write_directions(run: Path, layer: str, dictionary: Dictionary) -> None:
    """One layer's file; none for a dictionary of code, whose directions are not known, or a very wide one."""
    directions = dictionary.directions()
    if directions is None or not 1 < len(directions) <= MOST_LATENTS:
        return
    unit = functional.normalize(directions.float(), dim=1)
    count = min(NEAREST, len(unit) - 1)
    chance = by_chance(len(unit), unit.shape[1])

    def parts() -> list[pa.Table]:
        found = []
        for start in range(0, len(unit), _TOGETHER):
            rows = torch.arange(start, min(start + _TOGETHER, len(unit)))
            products = unit[rows] @ unit.t()
            products[torch.arange(len(rows)), rows] = -torch.inf
            cosines, places = products.sort(dim=1, descending=True, stable=True)
            its = (rows.repeat_interleave(count), torch.arange(count).repeat(len(rows)))
            columns = [
                pa.array([layer] * len(its[0]), pa.string()),
                *(pa.array(each.numpy().astype(np.int32)) for each in its),
                pa.array(places[:, :count].reshape(-1).numpy().astype(np.int32)),
                pa.array(cosines[:, :count].reshape(-1).numpy()),
                pa.array(np.full(len(its[0]), chance, np.float32)),
            ]  # fmt: skip
            found.append(pa.table(columns, schema=DIRECTIONS))
        return found

    write_table(table_file(run, "directions", layer, new=True), DIRECTIONS, parts())


def by_chance(count: int, width: int) -> float:
    """The cosine that the nearest of `count` - 1 random directions reaches in 1 of 20 cases, in `width` dimensions.

    The cosine of two has a density of (1 - c²)^((width - 3) / 2); its integral is a sum over many small cells.
    """
    if width < 2:
        return 1.0
    cosines = (np.arange(_CELLS) + 0.5) / _CELLS * 2 - 1
    density = (1 - cosines**2) ** ((width - 3) / 2)
    below = np.cumsum(density) / density.sum()
    return float(cosines[np.searchsorted(below ** (count - 1), 1 - _LEVEL).clip(max=_CELLS - 1)])
