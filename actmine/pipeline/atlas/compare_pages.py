"""Pages of a run beside another: all best matches, a unit beside its match, and units through checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from actmine.pipeline.atlas.comparing import Comparison, in_common
from actmine.pipeline.atlas.links import Picture, segment
from actmine.pipeline.atlas.pages import Atlas, rendered
from actmine.pipeline.atlas.records import Exemplar, Match, Moment, Unit
from actmine.pipeline.atlas.short_names import shortened
from actmine.pipeline.readings.statistics_options import TOP

PAIRS_A_PAGE = 48
STRIPS_A_PAGE = 24
_SHOWN_EXEMPLARS = 30
ORDERS = {"alike": "most alike first", "unlike": "least alike first", "none": "no match beyond chance"}


@dataclass(frozen=True, slots=True)
class Pair:
    """A unit, its best match in another run, and whether each is the other's."""

    unit: Unit
    match: Match
    mutual: bool


def comparison_page(atlas: Atlas, address: str, order: str = "", layer: str = "", page: int = 1) -> str | None:
    """A run beside another: how many units have a match, where it lies, and the pairs of `layer`, or of all.

    None where there is no such comparison or page. Raises `UserError` for a damaged table.
    """
    found = atlas.others.comparisons.named(address)
    if found is None:
        return None
    order = order if order in ORDERS else "alike"
    best = found.best
    places = _ordered(found, order, layer)
    pages = max(1, -(-len(places) // PAIRS_A_PAGE))
    if not 1 <= page <= pages:
        return None
    pairs = [
        Pair(unit, atlas.others.matches.match(found.name, best.row(at)), bool(found.mutual[at]))
        for at in places[(page - 1) * PAIRS_A_PAGE : page * PAIRS_A_PAGE].tolist()
        if (unit := atlas.queries.tile(best.layers[best.layer[at]], int(best.unit[at])))
    ]
    return rendered(
        atlas, "compare.html", json=atlas.links.rows("matches"),
        found=found, pairs=pairs, order=order, orders=ORDERS, layer=layer, page=page,
        pages=pages, count=len(places), middle=_median(best.similarity), reached=_median(best.chance),
        their_short=shortened(best.other_layers), own_name=atlas.queries.run.path.name, **_of_other(found),
    )  # fmt: skip


def _ordered(found: Comparison, order: str, layer: str) -> np.ndarray:
    best = found.best
    chosen = ~best.beyond if order == "none" else best.beyond
    if layer in best.layers:
        chosen = chosen & (best.layer == best.layers.index(layer))
    places = np.flatnonzero(chosen)
    sign = 1 if order == "unlike" else -1
    return places[np.lexsort((best.unit[places], best.layer[places], sign * best.similarity[places]))]


def _of_other(found: Comparison) -> dict[str, Any]:
    """What pages say of the other run: its name for people, and where it is."""
    if found.other is None:
        return {"other_name": found.name, "other_place": ""}
    record = found.other.queries.run.record
    return {"other_name": f"{record['model']} on {record['dataset']}", "other_place": found.other.place}


def pair_page(atlas: Atlas, address: str, layer: str, unit: int) -> str | None:
    """A unit beside its best match in another run: exemplars of both, those in common marked; None without a match."""
    found = atlas.others.comparisons.named(address)
    ours = atlas.queries.unit(layer, unit) if found and layer in atlas.queries.layers else None
    if found is None or ours is None:
        return None
    matches = [each for each in atlas.others.matches.of(layer, unit) if each.run == found.name]
    if not matches:
        return None
    match = matches[0]
    its = found.other.unit(match.layer, match.unit) if found.other else None
    own = _top(atlas.queries.exemplars(layer, unit), atlas.queries.end)
    theirs: list[Exemplar] = []
    if found.other and its:
        theirs = _top(found.other.queries.exemplars(match.layer, match.unit), found.other.queries.end)
    shared = in_common(own, theirs)
    seen = ours.images or atlas.queries.run.record.get("counts", {}).get("seen") or 0
    return rendered(
        atlas, "pair.html", json=atlas.links.rows("layer", layer, unit, "matches"),
        found=found, layer=atlas.queries.layers[layer], unit=ours, match=match, its=its,
        matches=matches[1:], own=own[:_SHOWN_EXEMPLARS], theirs=theirs[:_SHOWN_EXEMPLARS], shared=shared,
        by_chance=len(own) * len(theirs) / seen if seen else None, most=min(len(own), len(theirs)),
        ranks={each.image_id: each.rank for each in own}, their_ranks={each.image_id: each.rank for each in theirs},
        beside=lambda each: Picture(layer, unit, "beside", (segment(found.name), str(each.rank))),
        others=shortened([each.layer for each in matches]), own_name=atlas.queries.run.path.name, **_of_other(found),
    )  # fmt: skip


def _top(exemplars: list[Exemplar], end: str) -> list[Exemplar]:
    return [each for each in exemplars if each.band == end and (each.activation > 0 or end != TOP)]


@dataclass(frozen=True, slots=True)
class Strip:
    """A unit through the checkpoints that are shown."""

    unit: Unit
    moments: tuple[Moment, ...]


def training_page(atlas: Atlas, at: int | None = None, lost: bool = False, page: int = 1) -> str | None:
    """All units through checkpoints: how many are as in the end from when on, and those that are so from `at` on.

    `at` may be the number of checkpoints: units that only the end has. With `lost` those that vary at `at`, and that no
    unit of the end is like. None where units were not followed, and for what there is not.
    """
    training = atlas.others.training
    names = training.names
    if not names:
        return None
    if at is None:
        born = np.bincount(np.concatenate([*training.births.values(), [0]]), minlength=len(names) + 1)
        at = 0 if lost else int(np.flatnonzero(born).max())
    if not 0 <= at <= len(names) - lost:
        return None
    chosen = [
        (layer, unit)
        for layer, births in training.births.items()
        for unit in (training.losses[at].get(layer, np.empty(0)) if lost else np.flatnonzero(births == at)).tolist()
    ]
    pages = max(1, -(-len(chosen) // STRIPS_A_PAGE))
    if not 1 <= page <= pages:
        return None
    strips = [
        Strip(unit, training.of(layer, number))
        for layer, number in chosen[(page - 1) * STRIPS_A_PAGE : page * STRIPS_A_PAGE]
        if (unit := atlas.queries.tile(layer, number))
    ]
    rows = [(layer, len(births), np.bincount(births, minlength=len(names) + 1).tolist())
            for layer, births in training.births.items()]  # fmt: skip
    return rendered(
        atlas, "training.html", json=atlas.links.rows("checkpoints"),
        about=training.about, names=names, at=at, lost=lost, strips=strips, page=page,
        pages=pages, count=len(chosen), rows=rows,
    )  # fmt: skip


def _median(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None
