"""Which layers and units of a run are meant: names and globs, lists of units, the most selective ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np

from actmine.pipeline import naming
from actmine.pipeline.errors import UserError, near_matches
from actmine.pipeline.run import Run
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import read_rows


def parse_units(text: str) -> list[int]:
    """The units of a list such as `3,7,10-20` (both ends included), ascending. Raises `UserError` on anything else."""
    return sorted({unit for first, last in parse_spans(text) for unit in range(first, last + 1)})


def parse_spans(text: str) -> list[tuple[int, int]]:
    """The first and the last unit of each span of such a list, as it says them. Raises `UserError` on anything else."""
    found = []
    for part in text.split(","):
        span = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part)
        if not span:
            raise UserError(f"{part.strip()!r} is no unit. Write numbers and spans such as 3,7,10-20.")
        first, last = int(span[1]), int(span[2] or span[1])
        if last < first or last - first > 1_000_000:
            raise UserError(f"{part.strip()!r} is no span of units. Write the smaller number first, as in 10-20.")
        found.append((first, last))
    return found


def spans(units: Sequence[int]) -> str:
    """Ascending units as `parse_units` reads them: `3,7,10-20`."""
    runs: list[list[int]] = []
    for unit in units:
        if runs and unit == runs[-1][1] + 1:
            runs[-1][1] = unit
        else:
            runs.append([unit, unit])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def choose_layers(run: Run, wanted: Sequence[str]) -> list[str]:
    """The run's layers that any name or glob of `wanted` selects, in the network's order; all if it is empty.

    Raises `UserError` for a name or glob that selects none.
    """
    known = list(run.layers["layer"])
    chosen: set[str] = set()
    for name in wanted:
        found = [name] if name in known else [layer for layer in known if fnmatchcase(layer, name)]
        if not found:
            hint = near_matches(name, known) or f" It has {known[0]} to {known[-1]}, {len(known)} in all."
            raise UserError(f"{run.path} has no layer {name!r}.{hint}")
        chosen.update(found)
    return [layer for layer in known if layer in chosen or not wanted]


def choose_units(
    run: Run, layers: Sequence[str], units: Sequence[int] | None, most: int | None
) -> dict[str, list[int]]:
    """The units of each layer: those of `units` that it has (None: all), only the `most` selective of them.

    Selective first: those that fire, by the purity of a label that may be named, then by activation. Raises
    `UserError` for a unit that none of the layers has.
    """
    widths = dict(zip(run.layers["layer"], run.layers["units"].astype(int), strict=True))
    _refuse_unknown(units or (), {layer: widths[layer] for layer in layers})
    chosen = {}
    for layer in layers:
        of_layer = [unit for unit in (range(widths[layer]) if units is None else units) if unit < widths[layer]]
        chosen[layer] = of_layer if most is None else sorted(_most_selective(run, layer, of_layer, most))
    return chosen


def _refuse_unknown(units: Sequence[int], widths: dict[str, int]) -> None:
    widest, width = max(widths.items(), key=lambda layer: layer[1])
    unknown = next((unit for unit in units if not 0 <= unit < width), None)
    if unknown is not None:
        which = f"Layer {widest}" if len(widths) == 1 else f"None of the {len(widths)} chosen layers"
        verb = "has no" if len(widths) == 1 else "has a"
        raise UserError(f"{which} {verb} unit {unknown}. {widest} has the units 0 to {width - 1}.")


def _most_selective(run: Run, layer: str, units: Sequence[int], most: int) -> list[int]:
    table = read_rows(table_file(run.path, "units", layer), ["unit", "activation_max", *naming.COLUMNS])
    purity = np.where(naming.held(table, naming.SHARED), naming.numbers(table, "label_purity"), 0.0)
    rows = zip(table["unit"].to_pylist(), np.nan_to_num(naming.numbers(table, "activation_max")), purity, strict=True)
    wanted = set(units)
    firing = [(-pure, -most_active, unit) for unit, most_active, pure in rows if unit in wanted and most_active > 0]
    return [unit for _, _, unit in sorted(firing)[:most]]
