"""The atlas's templates, every value of which is escaped, and how pages write figures and names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from jinja2 import ChainableUndefined, Environment, FileSystemLoader
from markupsafe import Markup

from actmine.pipeline.atlas.figures import percent, small
from actmine.pipeline.atlas.keys import KEYS
from actmine.pipeline.atlas.layer_pages import raw, value_text
from actmine.pipeline.atlas.links import mark, segment
from actmine.pipeline.atlas.records import Exemplar, Unit
from actmine.pipeline.exemplars.pictures import SMALL_SIDE
from actmine.pipeline.progress import duration
from actmine.pipeline.sheets.drawing import number

HERE = Path(__file__).parent
OF_CELLS = ("cells.css", "cells.js")
"""Files of maps of activation atlases alone."""
OF_MAPS = ("map-drawing.js", "map-legend.js", "map.css", "map.js")
"""The files that pages of maps need beside what all do."""
STATIC = (
    "atlas.css", "atlas.js", "atlas.svg", "crosshair.js", "keys.js", "look.css", "look.js", *OF_CELLS, *OF_MAPS,
)  # fmt: skip
OF_SERVER = ("crosshair.js", "look.css", "look.js")
"""Those of them that exported pages have no use for."""


@lru_cache(1)
def environment() -> Environment:
    """The templates, every value of which is escaped."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=ChainableUndefined,
    )  # fmt: skip
    made.filters.update(
        breakable=breakable,
        number=number,
        percent=percent,
        value=value_text,
        data=data,
        duration=duration,
        count=lambda value: f"{value:,}",
        segment=segment,
    )
    made.globals.update(mark=mark, crop_alt=crop_alt, box_of=box_of, small=small, least=SMALL_SIDE, all_keys=KEYS)
    return made


def data(unit: Unit, sorts: Iterable[str]) -> Markup:
    """The numbers by which a unit can be sorted, as attributes of its tile."""
    values = ((sort, raw(unit, sort)) for sort in sorts)
    return Markup(" ".join(f'data-{sort}="{"" if value is None else value}"' for sort, value in values))


def breakable(name: str) -> Markup:
    """A name that may go on in a new line behind its dots, dashes and strokes."""
    return Markup("<wbr>").join(re.split(r"(?<=[._/])", name))


def crop_alt(exemplar: Exemplar) -> str:
    """What stands for a crop where it is not seen."""
    label = f", {exemplar.label}" if exemplar.label else ""
    return f"crop of {exemplar.key}{label}, rank {exemplar.rank}, activation {number(exemplar.activation)}"


def box_of(box: tuple[int, int, int, int]) -> dict[str, int]:
    """A box as the attributes of a rectangle, at least one pixel large."""
    left, top, right, bottom = box
    return {"x": left, "y": top, "width": max(right - left, 1), "height": max(bottom - top, 1)}
