"""How a layer's page shows its units: what they can be sorted by, and in how many pages a wide layer comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from actmine.pipeline.atlas.catalogue import Catalogue
from actmine.pipeline.atlas.figures import percent
from actmine.pipeline.atlas.links import BY_NUMBER, Choice
from actmine.pipeline.atlas.records import Unit
from actmine.pipeline.sheets.drawing import number

ON_ONE_PAGE = 2048
"""A layer of more units is wide: it comes in pages."""
UNITS_A_PAGE = 512
"""How many units a page of a wide layer shows."""
_AROUND = 1


@dataclass(frozen=True, slots=True)
class Sort:
    """Something that units can be sorted by: in words, the field of `Unit`, how it is written."""

    words: str
    field: str
    form: str = "number"


SORTS = {
    "unit": Sort("number", "unit"),
    "activation_max": Sort("maximum", "maximum"),
    "firing_rate": Sort("firing rate", "rate", "percent"),
    "density": Sort("density", "density", "percent"),
    "label_purity": Sort("purity of its label", "purity", "percent"),
    "best_node_correlation": Sort("correlation with its kind", "node_correlation", "fixed"),
    "best_label_correlation": Sort("correlation with its label", "correlation", "fixed"),
    "visualization_ratio": Sort("ratio", "ratio", "times"),
    "class_selectivity": Sort("selectivity", "selectivity", "fixed"),
    "best_label_auc": Sort("AUC of its label", "auc", "fixed"),
    "interpretability_exemplars": Sort("interpretability", "understood", "fixed"),
}
"""What a layer's units can be sorted by, by the column of units/."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The units of one page, in order; those that were not chosen are `hidden`, and on pages of wide layers left out.

    `count` were chosen, the page begins with the one at `first`, and there are `pages` of them.
    """

    choice: Choice
    units: tuple[Unit, ...]
    hidden: frozenset[int]
    count: int
    first: int = 0
    pages: int = 1


def wide(units: int) -> bool:
    """Whether a layer of so many units comes in pages."""
    return units > ON_ONE_PAGE


def sorts_of(units: Catalogue) -> dict[str, Sort]:
    """What the units of a layer can be sorted by."""
    return {name: sort for name, sort in SORTS.items() if name == "unit" or units.knows(name)}


def shown(units: Catalogue, choice: Choice, noted: Sequence[int] = ()) -> Shown | None:
    """What a choice shows of a layer; one that cannot be sorted so is by number. None for a page beyond the last.

    Units that are `noted`, of which a note holds the label that is looked for, are chosen too.
    """
    if choice.sort not in sorts_of(units):
        choice = replace(choice, sort="unit")
    chosen = units.matching(choice.label) | np.isin(units.unit, list(noted))
    order, count = units.order(choice.sort, choice.reverse), int(chosen.sum())
    if not wide(len(units)):
        hidden = frozenset(units.unit[~chosen].tolist())
        return Shown(choice, tuple(units.all[row] for row in order), hidden, count) if choice.page == 1 else None
    pages = pages_of(count)
    if not 1 <= choice.page <= pages:
        return None
    first = (choice.page - 1) * UNITS_A_PAGE
    rows = order[chosen[order]][first : first + UNITS_A_PAGE]
    return Shown(choice, tuple(units.records(rows)), frozenset(), count, first, pages)


def pages_of(count: int) -> int:
    """How many pages so many units of a wide layer take."""
    return max(1, -(-count // UNITS_A_PAGE))


def choices(units: Catalogue) -> Iterator[Choice]:
    """Every page that an export writes of a layer: of a wide one all pages in every order, both ways round."""
    if not wide(len(units)):
        yield BY_NUMBER
        return
    for sort in sorts_of(units):
        for reverse in (False, True):
            yield from (Choice(sort, reverse, "", page) for page in range(1, pages_of(len(units)) + 1))


def page_with(unit: int, units: int) -> Choice:
    """Which page of a layer of so many units shows a unit, where they are in the order of their numbers."""
    return Choice(page=unit // UNITS_A_PAGE + 1) if wide(units) else BY_NUMBER


def near(page: int, pages: int) -> list[int]:
    """The numbers of pages that a page names: the first, the last and those around it; 0 where some are left out."""
    named = [each for each in range(1, pages + 1) if each in (1, pages) or abs(each - page) <= _AROUND]
    return [
        each for at, each in enumerate(named) for each in ([0, each] if at and named[at - 1] < each - 1 else [each])
    ]


def raw(unit: Unit, sort: str) -> float | None:
    """The number by which a unit is sorted."""
    value: float | None = getattr(unit, SORTS[sort].field)
    return value


def value_text(unit: Unit, sort: str) -> str:
    """What a tile says beside its number."""
    sort = "activation_max" if sort == "unit" else sort
    value, form = raw(unit, sort), SORTS[sort].form
    if form == "percent":
        return percent(value)
    if form == "fixed":
        return "-" if value is None or np.isnan(value) else f"{value:.3f}"
    return number(value) + (" ×" if form == "times" and value is not None else "")
