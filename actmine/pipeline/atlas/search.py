"""Search in a run: layers and labels by a part of their names, units by number, images by their keys and labels."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import replace

from actmine.pipeline import naming
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.atlas.records import Found, Unit

MOST = 60
"""The most of a kind that a page lists."""
MOST_OF_A_LABEL = 24
MOST_LABELS = 12
MOST_NEAR = 6


def search(queries: Queries, text: str) -> Found:
    """What `text` may mean: a part of a name, case aside; `7`, `unit 7` or `block5 7`: units of layers so named."""
    text = text.strip()
    if not text:
        return Found(text)
    wanted = text.casefold()
    layers = [layer for name, layer in queries.layers.items() if wanted in name.casefold()]
    units, labels, images = _units(queries, text), _labels(queries, wanted), queries.images.named(text, MOST + 1)
    cut = any(len(each) > most for each, most in ((layers, MOST), (units, MOST), (labels, MOST_LABELS), (images, MOST)))
    found = Found(
        text, tuple(layers[:MOST]), tuple(units[:MOST]),
        tuple((label, tuple(of_label)) for label, of_label in labels[:MOST_LABELS]),
        tuple(images[:MOST]), cut,
    )  # fmt: skip
    return found if found.any else replace(found, near=_near(queries, text))


def listed(queries: Queries, text: str, under: str = "") -> list[Unit]:
    """The units that a page of what was found lists by number, or `under` a label; none where it has no such label."""
    text = text.strip()
    if not under:
        return _units(queries, text)[:MOST]
    found = _labels(queries, text.casefold())[:MOST_LABELS] if text else []
    return next((units for label, units in found if label == under), [])


def _units(queries: Queries, text: str) -> list[Unit]:
    asked = re.fullmatch(r"(?:(.*?)[\s/:#]+)??(?:unit\s*)?(\d{1,9})", text, re.I)
    if not asked:
        return []
    layer, number = (asked[1] or "").strip().casefold(), int(asked[2])
    named = [name for name, each in queries.layers.items() if layer in name.casefold() and number < each.units]
    exact = [name for name in named if name.casefold() == layer]
    found = (queries.tile(name, number) for name in exact or named)
    return [unit for unit in found if unit]


def _labels(queries: Queries, wanted: str) -> list[tuple[str, list[Unit]]]:
    """The labels that hold `wanted` and their units, the surest first: as many as a page lists, and one more."""
    found: dict[str, list[tuple[float, float, str, int]]] = {}
    counts: Counter[str] = Counter()
    for layer in queries.layers:
        for name, its in queries.units(layer).named.items():
            if naming.is_in(wanted, name):
                counts[name] += len(its)
                found.setdefault(name, []).extend((q, score, layer, row) for q, score, row in its[:MOST_OF_A_LABEL])
    labels = sorted(found, key=lambda label: (label.casefold() != naming.in_words(wanted), -counts[label], label))
    return [
        (label, [queries.units(layer).records([row])[0] for _, _, layer, row in best])
        for label in labels[: MOST_LABELS + 1]
        for best in [sorted(found[label], key=lambda each: each[:2])[:MOST_OF_A_LABEL]]
    ]


def _near(queries: Queries, text: str) -> tuple[str, ...]:
    """Names of labels, layers and labels of images that look like what was written."""
    known = [name for layer in queries.layers for name in (layer, *queries.units(layer).named)]
    folded = {naming.in_words(name).casefold(): name for name in (*queries.images.labels(), *known)}
    near = difflib.get_close_matches(naming.in_words(text).casefold(), folded, n=MOST_NEAR, cutoff=0.6)
    return tuple(folded[name] for name in near)
