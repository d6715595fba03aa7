"""Drawings as PDF and SVG: text and lines stay sharp at any size, pictures keep more pixels than a screen shows.

Matplotlib writes the files. Text stays text in a PDF, except in fonts that come in collections; that and all text of an
SVG become outlines, which look the same wherever they are opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from actmine.pipeline.errors import UserError
from actmine.pipeline.sheets.drawing import PIXELS_SHOW, Drawing, Mark, Picture, Rectangle, Text, resized
from actmine.pipeline.sheets.fonts import EMBEDDED, font, runs
from actmine.pipeline.sheets.paper import SIZES, Place, pages_of
from actmine.pipeline.spoken import install
from actmine.pipeline.words import Paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DENSITY = 1.5
"""How many pixels of a picture there are, at most, for each pixel of the drawing: 270 a printed inch on A4."""
_MATPLOTLIB = Lock()  # its caches of fonts and figures are not made for threads
_RULES = {"pdf.fonttype": 42, "pdf.compression": 6, "svg.fonttype": "path", "svg.hashsalt": "actmine"}
_SIDES = {"l": "left", "m": "center", "r": "right"}
_STAYS_TEXT = ("", ".ttf")  # the embedded font, and files of one font, which a PDF can hold


def check_vector(kind: str) -> None:
    """Raises `UserError` where files of this `kind` (pdf or svg) cannot be written."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(f"FORMAT={kind} needs matplotlib: {install('paper')}") from error


def write_vector(drawing: Drawing, path: Path, kind: str, title: str = "", paper: Paper = Paper.a4) -> None:
    """Writes a drawing, white behind it; `kind` is pdf, as many pages of `paper` as it takes, or svg, one of its size.

    `title` is that of the document, and stands at the foot of each page. The same drawing gives the same bytes.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import PdfPages

    with _MATPLOTLIB, rc_context(_RULES):
        if kind == "svg":
            figure = _figure(drawing.width, drawing.height)
            _draw(figure, drawing.marks, Place())
            figure.savefig(path, format=kind, dpi=72, metadata={"Title": title, "Date": None})
            return
        with PdfPages(path, metadata={"Title": title, "CreationDate": None}) as document:
            for page in pages_of(drawing, title, paper):
                figure = _figure(*SIZES[paper])
                for marks, place in page:
                    _draw(figure, marks, place)
                document.savefig(figure, dpi=72)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure((width / 72, height / 72), dpi=72, facecolor="white")


def _draw(figure: Figure, marks: Sequence[Mark], place: Place) -> None:
    first = len(figure.get_children())
    for order, mark in enumerate(marks, start=first):
        match mark:
            case Rectangle():
                _rectangle(figure, mark, place, order)
            case Picture():
                figure.add_artist(_picture(mark, place, order, figure.bbox.height))
            case Text():
                _text(figure, mark, place, order)


def _rectangle(figure: Figure, mark: Rectangle, place: Place, order: int) -> None:
    from matplotlib.patches import Rectangle as Patch
    from matplotlib.transforms import IdentityTransform

    colour = mark.fill if isinstance(mark.fill, str) else tuple(value / 255 for value in mark.fill)
    size = (mark.right - mark.left) * place.scale, (mark.bottom - mark.top) * place.scale
    corner = place.across(mark.left), figure.bbox.height - place.down(mark.bottom)
    patch = Patch(corner, *size, facecolor=colour, edgecolor="none", zorder=order)
    patch.set_transform(IdentityTransform())
    figure.add_artist(patch)


def _picture(mark: Picture, place: Place, order: int, height: float) -> Any:
    """An artist that hands the picture on with all its pixels; matplotlib's own ones resample it to the screen's."""
    from matplotlib.artist import Artist
    from matplotlib.transforms import Affine2D

    size = mark.right - mark.left, mark.bottom - mark.top
    shown = _dense(mark.image, *size)

    class Whole(Artist):
        def draw(self, renderer: Any) -> None:
            colours = np.asarray(shown.convert("RGBA").transpose(Image.Transpose.FLIP_TOP_BOTTOM))
            graphics = renderer.new_gc()
            to_page = Affine2D().scale(size[0] * place.scale, size[1] * place.scale)
            renderer.draw_image(graphics, place.across(mark.left), height - place.down(mark.bottom), colours, to_page)
            graphics.restore()

    artist = Whole()
    artist.set_zorder(order)
    return artist


def _dense(image: Image.Image, width: int, height: int) -> Image.Image:
    """A picture with as many pixels as it has, up to `DENSITY` for each of the drawing; tiny ones pixel by pixel."""
    if image.width > width * DENSITY:
        return resized(image, (round(width * DENSITY), round(height * DENSITY)))
    return resized(image, (width, height)) if width >= PIXELS_SHOW * image.width else image


def _text(figure: Figure, mark: Text, place: Place, order: int) -> None:
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import PathPatch
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    parts, left, side = list(runs(mark.text)), mark.left, mark.anchor[0]
    if len(parts) > 1 or parts[0][1] != EMBEDDED:
        left, side = mark.start, "l"
    top, size = mark.top, mark.size * place.scale
    if mark.anchor[1] == "m":
        above, below = font(mark.size).getmetrics()
        top += (above - below) / 2
    base = figure.bbox.height - place.down(top)
    for text, name in parts:
        face = FontProperties(fname=name or embedded().name)
        if Path(name).suffix.lower() in _STAYS_TEXT:
            figure.text(place.across(left) / figure.bbox.width, base / figure.bbox.height, text, fontproperties=face,
                        color=mark.ink, fontsize=size, va="baseline", ha=_SIDES[side], zorder=order,
                        parse_math=False)  # fmt: skip
        else:
            outline = PathPatch(TextPath((0, 0), text, size=size, prop=face), facecolor=mark.ink, lw=0, zorder=order)
            outline.set_transform(Affine2D().translate(place.across(left), base))
            figure.add_artist(outline)
        left += font(mark.size, name).getlength(text)


@cache
def embedded() -> Any:
    """Pillow's font as a file with a name, which matplotlib asks for; it goes with the process."""
    file = NamedTemporaryFile(prefix="actmine-", suffix=".ttf")  # noqa: SIM115
    file.write(font(16).font_bytes)
    file.flush()
    return file
