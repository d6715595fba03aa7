"""Writes an inspection: a PNG for each layer and one page that shows them all."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from actmine.pipeline.inspect.maps import Shown, Standing, class_names, standing_out
from actmine.pipeline.inspect.pictures import layer_sheet
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.run import Run, picture
from actmine.pipeline.storage.files import safe_name, write_bytes

EXEMPLARS = 7
STYLE = "atlas.css"


@dataclass(frozen=True, slots=True)
class Sheet:
    """A picture of the page: its file, what it is called, what it shows in words, and in numbers if of a layer."""

    path: Path
    title: str
    alt: str
    told: Mapping[str, Any] | None = None


def layer_sheets(
    folder: Path, shown: Sequence[Shown], layers: Sequence[Layer], most: int, run: Run | None,
    categories: Sequence[str] | None = None,
) -> Iterator[Sheet]:  # fmt: skip
    """Draws and writes each layer in turn, `FOLDER/NN-LAYER.png`; `categories` are the names of its classes."""
    for place, layer in enumerate(layers):
        units = standing_out(shown, layer.name, most, _usual(run, layer.name))
        known = {each.unit: _known(run, layer.name, each.unit) for each in units} if run else {}
        usual = f"{run.path.name}" if run else ""
        classes = class_names(shown[0], layer.name, categories)
        sheet = layer_sheet(layer.name, shown, units, known, usual, classes)
        words = ", ".join(str(each.unit) for each in units)
        path = folder / f"{place:02d}-{safe_name(layer.name)}.png"
        alt = f"Units of {layer.name} that stand out: {words or 'none'}"
        yield Sheet(save(path, sheet), layer.name, alt, told(shown, layer.name, units, classes))


def told(shown: Sequence[Shown], layer: str, units: Sequence[Standing], classes: Sequence[str] = ()) -> dict[str, Any]:
    """The units of a layer that stand out, as a script reads them: for each picture activation and position of each.

    `y` and `x` are those of the layer's map, null without positions; `deviations` those above the unit's mean over the
    run's dataset, null without one; `label` is the class that a unit of the head stands for.
    """
    found = []
    for each in units:
        pictures = []
        for at, its in enumerate(shown):
            y, x = its.place(layer, each.unit) or (None, None)
            height = None if each.heights is None else each.heights[at]
            activation = each.activations[at]
            pictures.append({"picture": its.name, "activation": activation, "deviations": height, "y": y, "x": x})
        found.append({"unit": each.unit, "label": classes[each.unit] if classes else None, "pictures": pictures})
    return {"layer": layer, "units": found}


def save(path: Path, image: Image.Image) -> Path:
    """Writes a PNG, whole or not at all. Raises `UserError` where it cannot be written."""
    data = io.BytesIO()
    image.save(data, "PNG")
    write_bytes(path, data.getvalue())
    return path


def _usual(run: Run | None, layer: str) -> np.ndarray | None:
    if run is None:
        return None
    units = run.units(layer)
    found: np.ndarray = np.stack([units[name].to_numpy(np.float64) for name in ("activation_mean", "activation_std")])
    return found


def _known(run: Run, layer: str, unit: int) -> tuple[Image.Image | None, Sequence[Image.Image | None]]:
    drawn = picture(run.units(layer, unit).iloc[0]["visualization"])
    crops = run.crops(run.exemplars(layer, unit).head(EXEMPLARS).to_dict("records"))
    return drawn, crops


def write_page(folder: Path, shown: Sequence[Shown], sheets: Sequence[Sheet], about: Sequence[str]) -> Path:
    """`FOLDER/index.html`: the sheets below each other, with an index; it opens from the folder. Returns its path.

    It looks as the atlas does, whose style sheet is put beside it.
    """
    title = html.escape(" and ".join(each.name for each in shown))
    index = "".join(f'<li><a href="#{n}">{html.escape(sheet.title)}</a></li>' for n, sheet in enumerate(sheets))
    figures = "".join(
        f'<figure id="{n}"><img src="{html.escape(quote(sheet.path.name))}" alt="{html.escape(sheet.alt)}" '
        f'width="{sheet_width}" height="{sheet_height}" loading="lazy"></figure>'
        for n, sheet in enumerate(sheets)
        for sheet_width, sheet_height in [_size(sheet.path)]
    )
    first, *others = (html.escape(line) for line in about)
    lines = "".join(f"<p>{line}</p>" for line in others)
    page = _PAGE.format(title=title, first=first, lines=lines, index=index, figures=figures, style=STYLE)
    write_bytes(folder / STYLE, (files("actmine.pipeline.atlas") / "static" / STYLE).read_bytes())
    write_bytes(folder / "index.html", page.encode())
    return folder / "index.html"


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="stylesheet" href="{style}">
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<main id="main">
<h1>{title}</h1>
<p class="lead">{first}</p>
{lines}
<section aria-labelledby="index">
<h2 id="index">Layers</h2>
<ol class="plain columns">{index}</ol>
</section>
<section class="sheets" aria-label="Sheets">{figures}</section>
</main>
<footer class="foot"><p>actmine inspect</p></footer>
</body>
</html>
"""
