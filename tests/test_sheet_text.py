"""Text of sheets: every character is drawn from a font that has it, or is a dot; too long text loses its middle."""

from __future__ import annotations

import pytest
from PIL import Image

from actmine.pipeline.sheets import fonts
from actmine.pipeline.sheets.drawing import Drawing
from actmine.pipeline.sheets.raster import pixels


@pytest.fixture
def no_other_fonts(monkeypatch):
    monkeypatch.setattr(fonts, "others", lambda: ())
    fonts._spelled.cache_clear()
    yield
    fonts._spelled.cache_clear()


@pytest.mark.usefixtures("no_other_fonts")
def test_text_keeps_to_characters_that_the_font_has_where_there_is_no_other():
    assert fonts.legible("Straße – café №5") == "Strasse - cafe No5"
    assert fonts.legible("猫 cat") == "· cat"
    assert fonts.legible("猫犬 鳥x") == "· x"
    assert not fonts.says_something("猫")


def test_a_word_that_the_embedded_font_lacks_is_drawn_whole_in_another():
    dejavu = next((name for name in fonts.others() if "DejaVu" in name), None)
    if not dejavu:
        pytest.skip("no DejaVu Sans here")
    assert list(fonts.runs("Straße dog")) == [("Straße", dejavu), (" dog", fonts.EMBEDDED)]
    assert list(fonts.runs("две кошки")) == [("две кошки", dejavu)]
    assert fonts.says_something("кошка")


def test_words_from_right_to_left_stay_together_and_apart_from_others():
    if not any("DejaVu" in name for name in fonts.others()):
        pytest.skip("no DejaVu Sans here")
    assert [text for text, _ in fonts.runs("שלום עולם dog")] == ["שלום עולם", " dog"]


def test_controls_and_new_lines_do_not_reach_the_paper():
    assert fonts.legible("a\u202eb\nc\x00") == "ab c"
    assert fonts.legible("  a   b ") == "a b"


def test_text_is_as_long_as_what_is_drawn_of_it():
    for text in ("West Highland white terrier", "Straße – café №5", "猫 cat"):
        block = Drawing(600, 40)
        length = block.write(10, 30, text, 24, 500, "#000000")
        dark = pixels(block).convert("L").point(lambda value: 255 if value < 200 else 0)
        left, _, right, _ = dark.getbbox()
        assert abs((right - left) - length) < 5


@pytest.mark.parametrize("anchor", ["ls", "mm", "rs"])
def test_text_of_two_fonts_stands_where_one_font_does(anchor):
    found = []
    for text in ("dog dog", "кот dog"):
        block = Drawing(400, 60)
        length = block.write(200, 30, text, 24, 300, "#000000", anchor)
        dark: Image.Image = pixels(block).convert("L").point(lambda value: 255 if value < 200 else 0)
        left, _, right, _ = dark.getbbox()
        found.append({"l": left, "m": (left + right) / 2, "r": right}[anchor[0]])
        assert right - left <= length + 2
    assert abs(found[0] - found[1]) <= 4


def test_long_text_is_shortened_in_its_middle_to_the_width():
    for word in ("West_Highland_white_terrier", "Вест-хайленд-уайт-терьер-и-ещё"):
        text = fonts.elided(word, 14, 100)
        assert text.startswith(word[:4])
        assert text.endswith(word[-4:])
        assert "…" in text
        assert fonts.length(text, 14) <= 100
    assert fonts.elided("cat", 14, 100) == "cat"
