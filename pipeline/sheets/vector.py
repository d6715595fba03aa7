"""Drawings as PDF and SVG: text and lines stay sharp at any size, pictures keep more pixels than a screen shows.

Matplotlib writes the files. Text in the embedded font stays text in a PDF; all other text becomes outlines, which look
the same wherever they are opened.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pipeline.errors import UserError
from pipeline.sheets.drawing import PAPER, PIXELS_SHOW, Drawing, Picture, Rectangle, Text, resized
from pipeline.sheets.fonts import EMBEDDED, font, runs
from pipeline.spoken import install

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DENSITY = 1.5
"""How many pixels of a picture there are, at most, for each pixel of the drawing: 320 a printed inch on A4."""
_MATPLOTLIB = Lock()  # its caches of fonts and figures are not made for threads
_RULES = {"pdf.fonttype": 42, "pdf.compression": 6, "svg.fonttype": "path", "svg.hashsalt": "actmine"}
_SIDES = {"l": "left", "m": "center", "r": "right"}
_UNDATED = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


def check_vector(kind: str) -> None:
    """Raises `UserError` where files of this `kind` (pdf or svg) cannot be written."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(f"FORMAT={kind} needs matplotlib: {install('paper')}") from error


def write_vector(drawing: Drawing, path: Path, kind: str) -> None:
    """Writes a drawing as one page; `kind` is pdf or svg. A pixel becomes a point.

    The same drawing gives the same bytes.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with _MATPLOTLIB, rc_context(_RULES):
        figure = Figure((drawing.width / 72, drawing.height / 72), dpi=72, facecolor=PAPER)
        for order, mark in enumerate(drawing.marks):
            match mark:
                case Rectangle():
                    _rectangle(figure, mark, order)
                case Picture():
                    figure.add_artist(_picture(mark, order, drawing.height))
                case Text():
                    _text(figure, mark, order)
        figure.savefig(path, format=kind, dpi=72, metadata=_UNDATED[kind])


def _rectangle(figure: Figure, mark: Rectangle, order: int) -> None:
    from matplotlib.patches import Rectangle as Patch
    from matplotlib.transforms import IdentityTransform

    height = figure.bbox.height
    colour = mark.fill if isinstance(mark.fill, str) else tuple(value / 255 for value in mark.fill)
    size = mark.right - mark.left, mark.bottom - mark.top
    patch = Patch((mark.left, height - mark.bottom), *size, facecolor=colour, edgecolor="none", zorder=order)
    patch.set_transform(IdentityTransform())
    figure.add_artist(patch)


def _picture(mark: Picture, order: int, height: int) -> Any:
    """An artist that hands the picture on with all its pixels; matplotlib's own ones resample it to the screen's."""
    from matplotlib.artist import Artist
    from matplotlib.transforms import Affine2D

    size = mark.right - mark.left, mark.bottom - mark.top
    shown = _dense(mark.image, *size)

    class Whole(Artist):
        def draw(self, renderer: Any) -> None:
            colours = np.asarray(shown.convert("RGBA").transpose(Image.Transpose.FLIP_TOP_BOTTOM))
            graphics = renderer.new_gc()
            to_page = Affine2D().scale(*size)
            renderer.draw_image(graphics, mark.left, height - mark.bottom, colours, to_page)
            graphics.restore()

    artist = Whole()
    artist.set_zorder(order)
    return artist


def _dense(image: Image.Image, width: int, height: int) -> Image.Image:
    """A picture with as many pixels as it has, up to `DENSITY` for each of the drawing; tiny ones pixel by pixel."""
    if image.width > width * DENSITY:
        return resized(image, (round(width * DENSITY), round(height * DENSITY)))
    return resized(image, (width, height)) if width >= PIXELS_SHOW * image.width else image


def _text(figure: Figure, mark: Text, order: int) -> None:
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import PathPatch
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    parts, left, side = list(runs(mark.text)), mark.left, mark.anchor[0]
    if len(parts) > 1 or parts[0][1] != EMBEDDED:
        left, side = mark.start, "l"
    base = figure.bbox.height - mark.top
    if mark.anchor[1] == "m":
        above, below = font(mark.size).getmetrics()
        base -= (above - below) / 2
    for text, name in parts:
        face = FontProperties(fname=name or _embedded().name)
        if name == EMBEDDED:
            figure.text(left / figure.bbox.width, base / figure.bbox.height, text, fontproperties=face, color=mark.ink,
                        fontsize=mark.size, va="baseline", ha=_SIDES[side], zorder=order, parse_math=False)  # fmt: skip
        else:
            outline = PathPatch(
                TextPath((0, 0), text, size=mark.size, prop=face), facecolor=mark.ink, lw=0, zorder=order
            )
            outline.set_transform(Affine2D().translate(left, base))
            figure.add_artist(outline)
        left += font(mark.size, name).getlength(text)


@cache
def _embedded() -> Any:
    """Pillow's font as a file with a name, which matplotlib asks for; it goes with the process."""
    file = NamedTemporaryFile(prefix="actmine-", suffix=".ttf")  # noqa: SIM115
    file.write(font(16).font_bytes)
    file.flush()
    return file
