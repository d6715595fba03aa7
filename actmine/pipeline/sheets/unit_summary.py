"""What a sheet says of a unit above its crops: its visualization, its numbers, and its activations over the dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from string import ascii_lowercase
from typing import Any

from PIL import Image

from actmine.pipeline import naming
from actmine.pipeline.sheets.charts import HEIGHT, WIDTH, Distribution, distribution, marked
from actmine.pipeline.sheets.drawing import BAR, CONTENT, GREY, INK, PALE, Drawing, blank, number, percent
from actmine.pipeline.sheets.fonts import says_something

_PICTURE = 264
_FACTS = 5
_BESIDE, _BARS, _BELOW, _GUTTER = 108, 94, 66, 110  # pixels: above a chart, of its bars, below and beside them


def summary(
    unit: Mapping[str, Any], firing: Sequence[Mapping[str, Any]], visualization: Image.Image | None, large: int
) -> Drawing:
    """Its visualization, its numbers, its labels in words, and the activations of all images, on which exemplars are
    marked, the first `large` stronger.
    """
    chart = _chart(unit, firing)
    tall = 0 if chart is None else _BARS + _BELOW if chart.bars else _BELOW
    block = blank(max(_PICTURE + 68 if visualization else 0, _BESIDE + tall))
    left = 0
    if visualization:
        _visualization(block, unit, visualization)
        left = _PICTURE + 40
    named = naming.labels_of(unit)
    facts = [
        (number(unit["activation_max"]), "maximum"),
        (number(unit["activation_mean"]), "mean over images"),
        _spread(unit),
        (percent(unit["firing_rate"]), "of images fire it"),
        *([_label(unit, named)] if named else []),
    ]
    step = (CONTENT - left) / _FACTS
    for place, (value, name) in enumerate(facts):
        block.write(left + place * step, 26, value, 30, step - 16)
        block.write(left + place * step, 49, name, 16, step - 16, GREY)
    block.write(left, 90, _sentence(named, unit, firing), 18, CONTENT - left)
    if chart:
        _draw(block, chart, left, max(_BESIDE, block.height - 62 - tall) + tall - _BELOW, CONTENT - left, large)
    return block


def _spread(unit: Mapping[str, Any]) -> tuple[str, str]:
    """The deviation of a unit; of a latent, which is 0 almost always, at how many positions it fires."""
    density = unit.get("density")
    if density is None or density != density:
        return number(unit["activation_std"]), "standard deviation"
    return percent(density), "of positions fire it"


def _label(unit: Mapping[str, Any], named: Mapping[str, str]) -> tuple[str, str]:
    """The first label that is `named`: the share of the exemplars that have it, or their correlation; its name."""
    kind, name = next(iter(named.items()))
    score = unit[naming.STATEMENTS[kind].score]
    return (
        (percent(score), f"of exemplars: {name}") if kind == naming.SHARED else (f"{score:.2f}", f"correlation, {name}")
    )


def silent_summary(unit: Mapping[str, Any], visualization: Image.Image | None) -> Drawing:
    """Instead of all that for a unit that fires nowhere: why."""
    block = blank(_PICTURE + 72 if visualization else 96)
    left = 0
    if visualization:
        _visualization(block, unit, visualization)
        left = _PICTURE + 40
    number_seen = f"{unit['images_seen']:,} image{'' if unit['images_seen'] == 1 else 's'}"
    strongest = unit["activation_max"]
    if strongest is None or strongest != strongest:
        reason = "None of its activations is a number."
    else:
        reason = f"Its strongest activation among {number_seen} is {number(strongest)}: no region drives it."
    block.write(left, 36, "never fires on this dataset", 30, CONTENT - left)
    block.write(left, 72, reason, 17, CONTENT - left, GREY)
    return block


def _visualization(block: Drawing, unit: Mapping[str, Any], visualization: Image.Image) -> None:
    block.put(visualization, 0, 0, _PICTURE, _PICTURE)
    ratio = unit["visualization_ratio"]
    reached = f"drives it to {number(unit['visualization_activation'])}"
    if ratio is not None and ratio == ratio:
        reached += f", {number(ratio)} x its maximum"
    activation = unit["visualization_activation"]
    found = activation is not None and activation > 0
    title = "what the unit itself prefers" if found else "ascent found nothing that fires it"
    if preset := unit.get("visualization_preset"):
        block.write(0, _PICTURE + 66, f"preset {preset}", 16, _PICTURE, GREY)
    block.write(0, _PICTURE + 22, title, 16, _PICTURE)
    block.write(0, _PICTURE + 44, reached, 16, _PICTURE, GREY)


def _chart(unit: Mapping[str, Any], firing: Sequence[Mapping[str, Any]]) -> Distribution | None:
    """The image activations of the dataset with the exemplars in their places; of a run that did not keep how they are
    distributed these alone, from zero. None where all are alike.
    """
    activations = [row["activation"] for row in firing]
    counts, least = unit.get("activation_histogram"), unit.get("activation_min")
    if counts is not None and not isinstance(counts, float):
        least = None if least is None or least != least else least
        return distribution(counts, least, unit["activation_max"], activations)
    finite = [value for value in activations if isfinite(value)]
    return marked(finite) if finite else None


def _draw(block: Drawing, chart: Distribution, left: int, base: int, width: int, large: int) -> None:
    """A chart `width` pixels wide, its axis at `base`; the first `large` marks are stronger."""
    room = width - (_GUTTER if chart.lines else 0)
    across, down = room / WIDTH, _BARS / HEIGHT
    for y, images in chart.lines:
        block.rule(left, round(base - _BARS + y * down), left + room, PALE)
        block.write(left + room + 10, base - _BARS + y * down, f"{images:,} images", 15, _GUTTER - 10, GREY, "lm")
    for x, _, wide, high in chart.bars:
        block.rectangle(left + x * across, base - high * down, left + (x + wide) * across, base, BAR)
    block.rule(left, base, left + room, GREY)
    for place, x in reversed([*enumerate(chart.marks)]):
        strong = place < large
        start = round(left + x * across)
        end = base + (18 if strong else 12)
        block.rectangle(start - strong, base + 3, start + 1 + strong, end, INK if strong else GREY)
    for x, value in chart.ticks:
        at = left + x * across
        anchor = "ls" if x < WIDTH * 0.03 else "rs" if x > WIDTH * 0.97 else "ms"
        block.write(at, base + 38, number(value), 15, 100, GREY, anchor)
    said = f"{chart.images:,} images by their activation, on a logarithmic scale; the" if chart.bars else "The"
    further = ", the strong ones those that are large below" if large else ""
    block.write(left, base + 62, f"{said} strokes are the exemplars{further}.", 16, width, GREY)


def words_of(name: object, label: object, key: str) -> str:
    """A label as people read it: its name, else its number, else the image's key."""
    if isinstance(name, str) and says_something(name):
        return naming.in_words(name) or key
    return naming.in_words(None, label) or key


def labels_of(firing: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """How often each label is among exemplars."""
    names = (words_of(row["label_name"], row["label"], "") for row in firing)
    return Counter(name for name in names if name)


def _sentence(named: Mapping[str, str], unit: Mapping[str, Any], firing: Sequence[Mapping[str, Any]]) -> str:
    """The labels of the exemplars in words where they share one, what the unit tells apart, and facets if several."""
    facets = Counter(filter(None, map(facet_of, firing)))
    of_each = ", ".join(f"{count} {name}" for name, count in sorted(facets.items()))
    labels = labels_of(firing) if naming.SHARED in named else Counter()
    said = _labels_in_words(labels, len(firing))
    if naming.SHARED in named and naming.NODE in named:
        said += (
            f"; of kinds it tells {_short(named[naming.NODE])} best (correlation {unit['best_node_correlation']:.2f})"
        )
    return f"{said}; {len(facets)} facets: {of_each}" if len(facets) > 1 else said


def facet_of(exemplar: Mapping[str, Any]) -> str:
    """The facet that an exemplar belongs to, as a letter; empty where none is known."""
    facet = exemplar.get("facet")
    return "" if facet is None or facet != facet else ascii_lowercase[int(facet)]


def _labels_in_words(labels: Counter[str], exemplars: int) -> str:
    if exemplars == 1:
        return "1 exemplar"
    often = [(name, count) for name, count in labels.most_common(4) if count > 1]
    if not often:
        return f"{exemplars:,} exemplars"
    rest = exemplars - sum(count for _, count in often)
    listed = ", ".join(f"{count} {_short(name)}" for name, count in often)
    return f"{exemplars:,} exemplars: {listed}" + (f", {rest} other" if rest else "")


def _short(name: str) -> str:
    return name if len(name) < 60 else name[:40] + "…" + name[-15:]
