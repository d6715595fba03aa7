"""Drawings as pixels, in their own size: for screens."""

from __future__ import annotations

from PIL import Image, ImageDraw

from actmine.pipeline.sheets.drawing import PAPER, Drawing, Picture, Rectangle, Text, resized
from actmine.pipeline.sheets.fonts import font, runs


def pixels(drawing: Drawing) -> Image.Image:
    """The drawing as a picture, RGB, of its own size."""
    image = Image.new("RGB", (drawing.width, drawing.height), PAPER)
    pen = ImageDraw.Draw(image)
    for mark in drawing.marks:
        match mark:
            case Rectangle():
                if mark.right - mark.left >= 1 and mark.bottom - mark.top >= 1:
                    pen.rectangle((mark.left, mark.top, mark.right - 1, mark.bottom - 1), fill=mark.fill)
            case Picture():
                shown = resized(mark.image, (mark.right - mark.left, mark.bottom - mark.top))
                image.paste(shown, (mark.left, mark.top))
            case Text():
                _write(pen, mark)
    return image


def _write(pen: ImageDraw.ImageDraw, mark: Text) -> None:
    parts, left, anchor = list(runs(mark.text)), mark.left, mark.anchor
    if len(parts) > 1:
        left, anchor = mark.start, f"l{anchor[1]}"
    for text, name in parts:
        face = font(mark.size, name)
        pen.text((left, mark.top), text, fill=mark.ink, font=face, anchor=anchor)
        left += face.getlength(text)
