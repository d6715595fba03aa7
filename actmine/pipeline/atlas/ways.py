"""From one unit to the next in the order of the list that one came from: a layer's, a search's or an image's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from actmine.pipeline.atlas.images import Topping
from actmine.pipeline.atlas.layer_pages import page_with, sorts_of
from actmine.pipeline.atlas.links import FROM_ANYWHERE, Came, Choice
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.atlas.search import listed

Place = tuple[str, int]
"""A unit: its layer and number."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Where a unit stands in the list that one `came` from: at `at` of `count`, between two others.

    `up` is how its layer's page shows it.
    """

    came: Came
    at: int
    count: int
    before: Place | None
    after: Place | None
    up: Choice


def steps(queries: Queries, layer: str, unit: int, came: Came, topping: Callable[[], Topping]) -> Steps:
    """The steps from a unit; among all of its layer by number if the list that is asked for does not hold it.

    Raises `UserError` where a table cannot be read.
    """
    count = queries.layers[layer].units
    came = _known(queries, layer, came)
    places = [] if came == FROM_ANYWHERE else _list(queries, layer, came, topping)
    if (layer, unit) not in places:
        before = (layer, unit - 1) if unit else None
        after = (layer, unit + 1) if unit + 1 < count else None
        return Steps(FROM_ANYWHERE, unit, count, before, after, page_with(unit, count))
    at = places.index((layer, unit))
    chosen = came.image is None and not came.text
    up = replace(came.choice, page=page_with(at, count).page) if chosen else page_with(unit, count)
    after = places[at + 1] if at + 1 < len(places) else None
    return Steps(came, at, len(places), places[at - 1] if at else None, after, up)


def _known(queries: Queries, layer: str, came: Came) -> Came:
    """The list that is asked for, with nothing that there is not."""
    if came.image is not None or came.text:
        return came
    choice = replace(came.choice, page=1, label=came.choice.label.strip())
    if choice.sort != "unit" and choice.sort not in sorts_of(queries.units(layer)):
        choice = replace(choice, sort="unit")
    return Came(choice)


def _list(queries: Queries, layer: str, came: Came, topping: Callable[[], Topping]) -> list[Place]:
    """All units of a list, in its order."""
    if came.image is not None:
        names = list(queries.layers)
        return [(names[number], unit) for number, unit, _ in topping().of(came.image)]
    if came.text:
        return [(each.layer, each.unit) for each in listed(queries, came.text, came.under)]
    units = queries.units(layer)
    order = units.order(came.choice.sort, came.choice.reverse)
    return [(layer, each) for each in units.unit[order[units.matching(came.choice.label)[order]]].tolist()]
