"""Writes an inspection: a PNG for each layer and one page that shows them all."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.inspect.maps import Shown, standing_out
from pipeline.inspect.pictures import layer_sheet
from pipeline.network.layers import Layer
from pipeline.run import Run, picture
from pipeline.storage.files import safe_name, write_bytes

EXEMPLARS = 7


@dataclass(frozen=True, slots=True)
class Sheet:
    """A picture of the page: its file, what it is called, what it shows in words."""

    path: Path
    title: str
    alt: str


def layer_sheets(
    folder: Path, shown: Sequence[Shown], layers: Sequence[Layer], most: int, run: Run | None
) -> Iterator[Sheet]:
    """Draws and writes each layer in turn, `FOLDER/NN-LAYER.png`."""
    for place, layer in enumerate(layers):
        units = standing_out(shown, layer.name, most, _usual(run, layer.name))
        known = {each.unit: _known(run, layer.name, each.unit) for each in units} if run else {}
        usual = f"{run.path.name}" if run else ""
        sheet = layer_sheet(layer.name, shown, units, known, usual)
        words = ", ".join(str(each.unit) for each in units)
        path = folder / f"{place:02d}-{safe_name(layer.name)}.png"
        yield Sheet(save(path, sheet), layer.name, f"Units of {layer.name} that stand out: {words or 'none'}")


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
    """`FOLDER/index.html`: the sheets below each other, with an index; it opens from the folder. Returns its path."""
    title = html.escape(" and ".join(each.name for each in shown))
    index = "".join(f'<li><a href="#{n}">{html.escape(sheet.title)}</a></li>' for n, sheet in enumerate(sheets))
    figures = "".join(
        f'<figure id="{n}"><img src="{html.escape(sheet.path.name)}" alt="{html.escape(sheet.alt)}" loading="lazy">'
        f"</figure>"
        for n, sheet in enumerate(sheets)
    )
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in about)
    page = _PAGE.format(title=title, lines=lines, index=index, figures=figures)
    write_bytes(folder / "index.html", page.encode())
    return folder / "index.html"


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1400px; margin: 2rem auto; padding: 0 1rem; }}
ol {{ columns: 16rem; padding-left: 1.5rem; }}
figure {{ margin: 2rem 0; }}
img {{ width: 100%; height: auto; }}
</style>
<h1>{title}</h1>
{lines}
<ol>{index}</ol>
{figures}
</html>
"""
