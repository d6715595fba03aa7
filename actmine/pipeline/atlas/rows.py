"""A unit's exemplars as rows that one can open: the strongest, those around percentiles, at random, the lowest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from actmine.pipeline.atlas.extent import EVERYTHING, Extent
from actmine.pipeline.atlas.records import Exemplar, UnitPage
from actmine.pipeline.readings.statistics_options import BOTTOM, RANDOM, TOP

_STRONGEST = {TOP: "the images that drive it hardest", BOTTOM: "the images with its most negative activations"}


@dataclass(frozen=True, slots=True)
class Row:
    """Some exemplars of a unit: of which `band`, what they are called and are; `low` and `high` are the ends of their
    activations. `opened`: the page shows them all at first."""

    band: str
    title: str
    words: str
    exemplars: tuple[Exemplar, ...]
    opened: bool = False

    @property
    def low(self) -> float:
        """Their smallest activation."""
        return min(each.activation for each in self.exemplars)

    @property
    def high(self) -> float:
        """Their largest activation."""
        return max(each.activation for each in self.exemplars)


def rows_of(
    page: UnitPage, firing: Sequence[Exemplar], silent: Sequence[Exemplar], end: str, extent: Extent = EVERYTHING
) -> list[Row]:  # fmt: skip
    """The rows of a unit's page: the end that says what it is first, then its other bands; those of none are left out.

    Of those that the page shows `firing` make it fire; `silent` do not, and are a row of their own. Of other bands as
    many are shown as the `extent` says.
    """
    found = [
        Row(end, "Strongest" if end == TOP else "Lowest", _STRONGEST[end], tuple(firing), True),
        Row("silent", "Silent", f"{len(silent)} more that do not make it fire", tuple(silent), False),
        *(Row(band, *_said(band, its), its[: extent.cut(len(its))]) for band, its in page.bands),
    ]
    return [row for row in found if row.exemplars]


def _said(band: str, its: Sequence[Exemplar]) -> tuple[str, str]:
    """What a band is called, and what it holds."""
    if band == BOTTOM:
        below = its[0].activation < 0
        return "Lowest", _STRONGEST[BOTTOM] if below else f"no image takes it below zero: {len(its)} at the bottom"
    if band == RANDOM:
        return "Random", "images drawn from the whole dataset"
    return f"Percentile {band[1:]}", "images drawn at random from around it"
