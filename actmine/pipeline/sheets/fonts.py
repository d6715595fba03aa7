"""Text that always renders: in Pillow's embedded font, and what that lacks in a font of this machine, or as a dot."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from unicodedata import combining

from PIL import ImageFont

EMBEDDED = ""
"""The name of the font that comes with Pillow, the same on every machine."""
_OTHERS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "NotoSansArabic-Regular.ttf",
    "NotoSansHebrew-Regular.ttf", "NotoSansDevanagari-Regular.ttf", "NotoSansBengali-Regular.ttf",
    "NotoSansTamil-Regular.ttf", "NotoSansThai-Regular.ttf", "NotoSansEthiopic-Regular.ttf",
    "DroidSansFallbackFull.ttf",
    "wqy-microhei.ttc", "Arial Unicode.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc",
    "segoeui.ttf", "msyh.ttc", "YuGothM.ttc", "malgun.ttf", "Nirmala.ttc",
)  # fmt: skip
"""Files of fonts that Linux, macOS and Windows are known to have, for many scripts, in the order they are asked."""
_ASK = 24
_NO_CHARACTER = "\uffff"
_DOT = "·", EMBEDDED
_INSTEAD = {
    "ß": "ss", "ø": "o", "Ø": "O", "œ": "oe", "Œ": "OE", "æ": "ae", "Æ": "AE", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D",
    "ı": "i", "µ": "u", "μ": "u", "×": "x", "−": "-", "–": "-", "—": "-", "‐": "-", "•": "·",
}  # fmt: skip


@cache
def font(size: int, name: str = EMBEDDED) -> ImageFont.FreeTypeFont:
    """A font by the name of its file; `size` in pixels."""
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)  # type: ignore[return-value]


@cache
def others() -> tuple[str, ...]:
    """The fonts of this machine for what the embedded one lacks, those that are there."""
    return tuple(found for name in _OTHERS if (found := _found(name)))


def _found(name: str) -> str | None:
    spec = find_spec("matplotlib")
    beside = [Path(place, "mpl-data/fonts/ttf", name) for place in (spec and spec.submodule_search_locations) or ()]
    for path in (name, *map(str, beside)):
        try:
            return str(ImageFont.truetype(path, _ASK).path)
        except OSError:
            continue
    return None


def legible(text: str) -> str:
    """`text` on one line in characters that there is a font for; each run of others is a dot."""
    return "".join(char for char, _ in _spelled(text))


def says_something(text: str) -> bool:
    """Whether a letter or digit is left of `text` in characters that there is a font for."""
    return any(char.isalnum() for char in legible(text))


def runs(text: str) -> Iterator[tuple[str, str]]:
    """The parts of a legible `text` with the name of the font of each."""
    for name, chars in groupby(_spelled(text), key=lambda pair: pair[1]):
        yield "".join(char for char, _ in chars), name


def length(text: str, size: int) -> float:
    """How wide a legible `text` is (pixels)."""
    return sum(font(size, name).getlength(part) for part, name in runs(text))


def elided(text: str, size: int, width: float) -> str:
    """`text` made `legible` and, where it is wider than `width` pixels, shortened in its middle."""
    text = legible(text if len(text) <= 400 else f"{text[:200]}{text[-200:]}")
    if length(text, size) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        kept = (low + high + 1) // 2
        low, high = (kept, high) if length(_middle_out(text, kept), size) <= width else (low, kept - 1)
    return _middle_out(text, low)


def _middle_out(text: str, kept: int) -> str:
    tail = kept // 2
    return f"{text[: kept - tail].rstrip()}…{text[len(text) - tail :].lstrip() if tail else ''}"


@lru_cache(4096)
def _spelled(text: str) -> tuple[tuple[str, str], ...]:
    """Each character that is drawn, with the name of its font."""
    spelled: list[tuple[str, str]] = []
    for word in unicodedata.normalize("NFC", text).split():
        letters = "".join(char for char in word if unicodedata.category(char) not in ("Cc", "Cf"))
        drawn = _word(letters)
        if drawn[:1] == spelled[-1:] == [_DOT]:
            drawn = drawn[1:]
        if drawn and spelled:
            # between words of one font the blank is in it too: words that run from right to left stay in one run
            spelled.append((" ", drawn[0][1] if drawn[0][1] == spelled[-1][1] else EMBEDDED))
        spelled += drawn
    return tuple(spelled)


def _word(letters: str) -> list[tuple[str, str]]:
    """A word in one font if any has all of it, else each character in what there is for it."""
    name = next((name for name in (EMBEDDED, *others()) if all(_has_glyph(char, name) for char in letters)), None)
    if name is not None:
        return [(char, name) for char in letters]
    drawn: list[tuple[str, str]] = []
    for char in letters:
        for pair in _drawn(char, drawn[-1][1] if drawn else EMBEDDED):
            if pair != _DOT or drawn[-1:] != [_DOT]:
                drawn.append(pair)
    return drawn


def _drawn(char: str, before: str) -> list[tuple[str, str]]:
    """A character behind one in the font `before`: in a font that has it, as what it is made of, or a dot."""
    name = next((name for name in (before, EMBEDDED, *others()) if _has_glyph(char, name)), None)
    if name is not None:
        return [(char, name)]
    if unicodedata.category(char).startswith("M"):
        return []
    instead = _INSTEAD.get(char) or [part for part in unicodedata.normalize("NFKD", char) if not combining(part)]
    known = instead != [char] and all(_has_glyph(part, EMBEDDED) for part in instead)
    return [(part, EMBEDDED) for part in instead] if known else [_DOT]


@lru_cache(16384)
def _has_glyph(char: str, name: str) -> bool:
    return char.isascii() or _shape(char, name) != _shape(_NO_CHARACTER, name)


@lru_cache(16384)
def _shape(char: str, name: str) -> tuple[tuple[int, int], bytes]:
    mask = font(_ASK, name).getmask(char)
    return mask.size, bytes(mask)
