"""What a sheet says of a unit above its crops: its visualization, its numbers and its activations by rank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from string import ascii_lowercase
from typing import Any

from PIL import Image

from pipeline import naming
from pipeline.sheets.drawing import CONTENT, GREY, INK, Drawing, blank, number, percent
from pipeline.sheets.fonts import says_something

_PICTURE = 264
_PLOT_GUTTER = 150
_GREY_BAR, _DARK_BAR = "#cfcfc9", "#8b8b85"


def summary(
    unit: Mapping[str, Any], firing: Sequence[Mapping[str, Any]], visualization: Image.Image | None, large: int
) -> Drawing:
    """Its visualization, its numbers, its labels in words, and its activations by rank, the first `large` darker."""
    block = blank(_PICTURE + 44 if visualization else 236)
    left = 0
    if visualization:
        _visualization(block, unit, visualization)
        left = _PICTURE + 40
    named = naming.labels_of(unit)
    facts = [
        (number(unit["activation_max"]), "maximum"),
        (number(unit["activation_mean"]), "mean over images"),
        (number(unit["activation_std"]), "standard deviation"),
        (percent(unit["firing_rate"]), "of images fire it"),
        _label(unit, named),
    ]
    step = (CONTENT - left) / len(facts)
    for place, (value, name) in enumerate(facts):
        block.write(left + place * step, 26, value, 30, step - 16)
        block.write(left + place * step, 48, name, 14, step - 16, GREY)
    block.write(left, 88, _sentence(named, unit, firing), 17, CONTENT - left)
    _bars(block, unit, firing, left, 112, CONTENT - left, block.height - 112, large)
    return block


def _label(unit: Mapping[str, Any], named: Mapping[str, str]) -> tuple[str, str]:
    """The label to show: the share of the exemplars that have it, or the correlation with it, and its name."""
    if not named:
        return "-", "no label"
    kind, name = next(iter(named.items()))
    score = unit[naming.STATEMENTS[kind].score]
    return (
        (percent(score), f"of exemplars: {name}") if kind == naming.SHARED else (f"{score:.2f}", f"correlation, {name}")
    )


def silent_summary(unit: Mapping[str, Any], visualization: Image.Image | None) -> Drawing:
    """Instead of all that for a unit that fires nowhere: why."""
    block = blank(_PICTURE + 48 if visualization else 96)
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
    block.write(0, _PICTURE + 20, title, 14, _PICTURE)
    block.write(0, _PICTURE + 40, reached, 14, _PICTURE, GREY)


def _bars(
    block: Drawing, unit: Mapping[str, Any], firing: Sequence[Mapping[str, Any]],
    left: int, top: int, width: int, height: int, large: int,
) -> None:  # fmt: skip
    """Activation by rank; the dataset's maximum and mean are named in the gutter at the right."""
    values = [row["activation"] for row in firing]
    peak = max((value for value in values if isfinite(value)), default=1.0)
    room, base = width - _PLOT_GUTTER, top + height - 22
    tall = base - top - 8
    step = min(room / len(values), 44)
    for place, value in enumerate(values):
        x = left + place * step
        y = base - tall * min(value / peak, 1)
        shown = _DARK_BAR if place < large else _GREY_BAR
        block.rectangle(x, min(y, base - 1), x + max(step * 0.78, 1), base + 1, shown)
    block.rule(left, base, left + room)
    top_y, mean = base - tall, unit["activation_mean"]
    mean_y = base - tall * mean / peak if mean is not None and 0 < mean <= peak else None
    block.write(left + room + 12, top_y, f"maximum {number(unit['activation_max'])}", 13, _PLOT_GUTTER - 12,
          GREY, "lm")  # fmt: skip
    if mean_y is not None:
        for x in range(left, left + room, 8):
            block.rule(x, mean_y, x + 4, INK)
        block.write(left + room + 12, max(mean_y, top_y + 17), f"mean {number(mean)}", 13, _PLOT_GUTTER - 12,
              GREY, "lm")  # fmt: skip
    first, last = firing[0]["rank"], firing[-1]["rank"]
    block.write(left, base + 18, f"rank {first}", 13, 80, GREY)
    if step * len(values) > 160:
        block.write(left + step * len(values) - step * 0.22, base + 18, f"rank {last}", 13, 80, GREY, "rs")


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
