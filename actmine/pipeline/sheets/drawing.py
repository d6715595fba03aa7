"""What every sheet is drawn with: colours, marks on a drawing, pictures fitted into cells, blocks stacked.

A drawing is a list of marks, so that one layout becomes pixels (`raster.py`), or pages (`paper.py`) of a vector file
(`vector.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from actmine.pipeline.sheets.fonts import elided, length

WIDTH, MARGIN = 1400, 48
CONTENT = WIDTH - 2 * MARGIN
"""Width of a sheet, of its margins and of what is between them (pixels)."""

PAPER, INK, GREY, FAINT, MAT = "#fbfbf9", "#1d1d1b", "#6b6b66", "#c4c4be", "#efefeb"
"""Background, text, quieter text, lines, and what lies behind pictures."""
BAR, PALE = "#b9b9b2", "#e4e4df"
"""Bars of charts, and lines behind them."""
ACCENT = "#e8471d"
"""Means one thing only: where in its image a crop was cut, the receptive field or its focus."""

PIXELS_SHOW = 4
"""From what enlargement on the pixels of a picture show as pixels."""
Colour = str | tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Filled from `left`, `top` up to `right`, `bottom` (pixels, half-open)."""

    left: float
    top: float
    right: float
    bottom: float
    fill: Colour


@dataclass(frozen=True, slots=True)
class Text:
    """Legible text of a `size` (pixels); its left (l), middle (m) or right (r) end at `left`, its baseline (s) or its
    middle (m) at `top`, as two letters of `anchor` say, Pillow's."""

    left: float
    top: float
    text: str
    size: int
    ink: str
    anchor: str

    @property
    def start(self) -> float:
        """Where its left end is (pixels)."""
        return self.left - {"l": 0.0, "m": 0.5, "r": 1.0}[self.anchor[0]] * length(self.text, self.size)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture `fitted` into what lies between `left`, `top`, `right` and `bottom` (whole pixels, half-open)."""

    left: int
    top: int
    right: int
    bottom: int
    image: Image.Image


Mark = Rectangle | Text | Picture


@dataclass(slots=True)
class Drawing:
    """Marks on paper of `width` by `height` pixels, later ones above those before.

    `breaks` are heights (pixels) at which a page may begin; one that `clings` never begins a page itself.
    """

    width: int
    height: int
    marks: list[Mark] = field(default_factory=list)
    breaks: list[int] = field(default_factory=list)
    clings: bool = False

    def rectangle(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        """Fills a rectangle, half-open."""
        self.marks.append(Rectangle(left, top, right, bottom, fill))

    def frame(self, left: float, top: float, right: float, bottom: float, ink: Colour, width: int) -> None:
        """Draws a frame just inside a rectangle, `width` pixels strong."""
        for box in (
            (left, top, right, top + width),
            (left, bottom - width, right, bottom),
            (left, top + width, left + width, bottom - width),
            (right - width, top + width, right, bottom - width),
        ):
            self.rectangle(*box, ink)

    def rule(self, left: float, top: float, right: float, ink: Colour = FAINT) -> None:
        """Draws a line of one pixel from left to right."""
        self.rectangle(left, top, right, top + 1, ink)

    def write(
        self, left: float, top: float, text: str, size: int, width: float, ink: str = INK, anchor: str = "ls"
    ) -> float:
        """Writes `text`, elided to `width` pixels, at its baseline; `anchor` as in `Text`. Returns its length."""
        text = elided(text, size, width)
        if text:
            self.marks.append(Text(left, top, text, size, ink, anchor))
        return length(text, size)

    def put(
        self, image: Image.Image | None, left: int, top: int, width: int, height: int, instead: str = "none",
        mat: Colour = MAT,
    ) -> tuple[int, int, int, int]:  # fmt: skip
        """Puts `image`, as large as fits, in the middle of a mat of `width` by `height`; or, without one, a word.

        Returns left, top, right and bottom of the image (pixels, half-open).
        """
        self.rectangle(left, top, left + width, top + height, mat)
        if image is None:
            self.write(left + width / 2, top + height / 2, instead, 14, width - 8, GREY, "mm")
            return left, top, left, top
        across, down = fitting(image.size, width, height)
        x, y = left + (width - across) // 2, top + (height - down) // 2
        self.marks.append(Picture(x, y, x + across, y + down, image))
        return x, y, x + across, y + down

    def place(self, other: Drawing, left: int, top: int) -> None:
        """Puts the marks of another drawing here."""
        self.marks += [_moved(mark, left, top) for mark in other.marks]
        self.breaks += [*([] if other.clings else [top]), *(top + each for each in other.breaks)]


def _moved(mark: Mark, left: int, top: int) -> Mark:
    if isinstance(mark, Text):
        return replace(mark, left=mark.left + left, top=mark.top + top)
    if isinstance(mark, Picture):
        return Picture(mark.left + left, mark.top + top, mark.right + left, mark.bottom + top, mark.image)
    return Rectangle(mark.left + left, mark.top + top, mark.right + left, mark.bottom + top, mark.fill)


def number(value: float | None) -> str:
    """Three significant digits, with a thousands comma: 1,070, 58.0, 0.00312, 4.20e-05; - for none."""
    if value is None or value != value:
        return "-"
    if value in (float("inf"), float("-inf")):
        return "infinite" if value > 0 else "-infinite"
    if value == 0:
        return "0"
    digits, exponent = f"{abs(value):.2e}".split("e")
    sign, places = "-" if value < 0 else "", 2 - int(exponent)
    if not -4 <= places <= 6:
        return f"{sign}{digits}e{int(exponent)}"
    return f"{sign}{round(abs(value), places):,.{max(places, 0)}f}"


def percent(share: float | None) -> str:
    """A share from 0 to 1 as per cent with one decimal; only 0 reads 0% and only 1 reads 100%."""
    if share is None or share != share:
        return "-"
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.999 < share < 1:
        return ">99.9%"
    return f"{100 * share:.1f}".removesuffix(".0") + "%"


def fitting(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """Width and height of a picture of `size` that is made as large as fits into `width` by `height` pixels.

    A small one grows by a whole factor, so that its pixels show as pixels.
    """
    scale = min(width / size[0], height / size[1])
    if scale >= PIXELS_SHOW:
        return size[0] * int(scale), size[1] * int(scale)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    """`image` as large as fits into `width` by `height` pixels, in its own proportions and colours; see `fitting`."""
    return resized(image, fitting(image.size, width, height))


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """`image`, RGB, at a `size` (width, height) in its own proportions: pixel by pixel if far larger, else smoothly."""
    image = image if image.mode == "RGB" else image.convert("RGB")
    if size == image.size:
        return image
    if size[0] >= PIXELS_SHOW * image.width:
        return image.resize(size, Image.Resampling.NEAREST)
    smaller = size[0] < image.width
    reduce = Image.Resampling.LANCZOS if smaller else Image.Resampling.BICUBIC
    return image.resize(size, reduce, reducing_gap=3.0 if smaller else None)


def blank(height: int, width: int = CONTENT) -> Drawing:
    """An empty block of `width` by `height` pixels."""
    return Drawing(width, height)


def column(place: int, columns: int, cell: int) -> int:
    """Left edge of the `place`-th of `columns` cells of `cell` pixels that fill the sheet from margin to margin."""
    return place * (CONTENT - cell) // max(columns - 1, 1)


def stacked(blocks: Iterable[Drawing], gap: int) -> Drawing:
    """One sheet of blocks below each other, `gap` pixels between them and margins around."""
    blocks = list(blocks)
    sheet = Drawing(WIDTH, sum(block.height for block in blocks) + gap * (len(blocks) - 1) + 2 * MARGIN)
    top = MARGIN
    for block in blocks:
        sheet.place(block, MARGIN, top)
        top += block.height + gap
    return sheet


def header(layer: str, title: str, about: Iterable[str]) -> Drawing:
    """The head of a sheet: the layer small, the title large, up to two quiet lines `about` the run at the right."""
    block = blank(96)
    block.write(0, 18, layer, 20, CONTENT * 0.6, GREY)
    block.write(-2, 72, title, 46, CONTENT * 0.6)
    for line, text in enumerate(about):
        block.write(CONTENT, 17 + 22 * line, text, 16, CONTENT * 0.4, GREY, "rs")
    block.rule(0, 95, CONTENT)
    return block


def notes(lines: Sequence[str], size: int = 16) -> Drawing:
    """A block of quiet lines below each other."""
    block = blank(22 * len(lines) - 4)
    block.clings = True
    for place, line in enumerate(lines):
        block.write(0, 14 + 22 * place, line, size, CONTENT, GREY)
    return block
