"""Which visualization of a unit is shown: the one that the units table holds, or that by a preset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from actmine.pipeline.errors import UserError, near_matches
from actmine.pipeline.run import Run
from actmine.pipeline.spoken import command
from actmine.pipeline.tables.visualization_tables import SHOWN, LayerPictures, presets_of
from actmine.pipeline.words import PRESETS

_LAYERS = 4  # of which pictures are kept in memory


class Drawn:
    """The visualizations of some layers of a run by `preset`; if that is empty, those of the units table."""

    def __init__(self, run: Run, layers: Sequence[str], preset: str = "") -> None:
        """Raises `UserError` for a preset that there is not, or by which none of `layers` has a picture."""
        self.run, self.preset = run, preset
        self._of = lru_cache(_LAYERS)(self._read)
        if not preset:
            return
        there = presets_of(run.path, layers)
        known = f"there are pictures by {', '.join(there)}" if there else "nothing is drawn yet"
        if preset not in PRESETS:
            raise UserError(f"There is no preset {preset!r}; {known}.{near_matches(preset, PRESETS)}")
        if preset not in there:
            some = ",".join(layers) if len(layers) <= 3 else ""
            fix = command("visualize", run=run.path, preset=preset, layers=some)
            raise UserError(f"{run.path} has no pictures of these layers by the preset {preset}: {known}. {fix}")

    def row(self, layer: str, unit: Mapping[str, Any]) -> dict[str, Any]:
        """A row of the units table, with the best picture by the preset in it; without one where it has none."""
        if not self.preset:
            return dict(unit)
        return {**unit, **dict.fromkeys(SHOWN), **self._of(layer).get(int(unit["unit"]), {})}

    def _read(self, layer: str) -> dict[int, dict[str, Any]]:
        pictures = LayerPictures(self.run.path, layer, self.preset)
        units = range(int(self.run.layers["units"].iloc[self.run.at(layer)]))
        rows = pictures.best(units, [*SHOWN.values()]).to_pylist()
        return {row["unit"]: {name: row[source] for name, source in SHOWN.items()} for row in rows}
