"""Sheets for paper: PDF and SVG show what the PNG shows, keep text and pixels, and hold as many crops as asked."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.errors import UserError
from actmine.pipeline.run import Run
from actmine.pipeline.run import picture as cell_picture
from actmine.pipeline.sheets.drawing import CONTENT, Drawing, Picture, Text, blank, stacked
from actmine.pipeline.sheets.drawing import MARGIN as OF_SHEET
from actmine.pipeline.sheets.paper import MARGIN, SIZES, pages_of
from actmine.pipeline.sheets.unit_sheet import Look, unit_sheet
from actmine.pipeline.sheets.vector import DENSITY
from actmine.pipeline.sheets.write import write_overviews, write_sheets
from actmine.pipeline.words import Format, Paper
from tests.test_sheets import exemplar, make_run, unit_row

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"


def checkered(side: int, first: tuple[int, int, int], second: tuple[int, int, int]) -> Image.Image:
    """Quarters in two colours, so that a picture upside down or mirrored differs."""
    image = Image.new("RGB", (side, side), first)
    image.paste(second, (0, 0, side // 2, side // 3))
    return image


def some_run(root: Path, crops: int = 8) -> Run:
    colours = [(20 * rank % 256, (255 - 20 * rank) % 256, 90) for rank in range(crops)]
    rows = [
        exemplar(rank, 2.0 + crops - rank, checkered(160, colour, (250, 210, 40)), label_name="Löwenzahn кот")
        for rank, colour in enumerate(colours)
    ]
    return make_run(root, {"a.conv": ([unit_row()], rows)}, checkered(300, (10, 120, 130), (240, 240, 0)))


def drawn(path: Path, like: Image.Image) -> Image.Image:
    """What is between the margins of a PDF of one page, in the size of that of a PNG."""
    document = pypdfium2.PdfDocument(path)
    assert len(document) == 1
    scale = (like.width - 2 * OF_SHEET) / (SIZES[Paper.a4][0] - 2 * MARGIN)
    whole = document[0].render(scale=scale).to_pil().convert("RGB")
    left = top = MARGIN * scale
    size = like.width - 2 * OF_SHEET, like.height - 2 * OF_SHEET
    return whole.resize(size, Image.Resampling.BILINEAR, (left, top, left + size[0], top + size[1]))


def inked(page: Image.Image) -> tuple[int, int, int, int]:
    """The box of all that is not quite white."""
    found = page.convert("L").point(lambda value: 255 * (value < 252)).getbbox()
    assert found
    return found


def on_white(image: Image.Image) -> Image.Image:
    """What is between the margins of a PNG, on white instead of its paper."""
    pixels = np.asarray(image)
    pixels = np.where((pixels == pixels[0, 0]).all(-1, keepdims=True), np.uint8(255), pixels)
    return Image.fromarray(pixels[OF_SHEET:-OF_SHEET, OF_SHEET:-OF_SHEET])


def apart(first: Image.Image, second: Image.Image) -> np.ndarray:
    assert first.size == second.size
    """How far colours are apart, of four by four pixels together: edges lie between pixels of a page."""
    return np.abs(np.asarray(first.reduce(4), np.float32) - np.asarray(second.reduce(4), np.float32)).max(-1)


def words(drawing: Drawing) -> list[str]:
    return [mark.text for mark in drawing.marks if isinstance(mark, Text)]


def pictures(drawing: Drawing) -> list[Picture]:
    return [mark for mark in drawing.marks if isinstance(mark, Picture)]


def sheet(exemplars: Sequence[dict[str, Any]], look: Look = Look(), **unit: Any) -> Drawing:
    rows = [row | {"crop": cell_picture(row["crop"])} for row in exemplars]
    return unit_sheet(unit_row(**unit), rows, [], ["net on photos", ""], look=look)


def test_a_pdf_page_looks_like_the_png(tmp_path):
    run = some_run(tmp_path / "run")
    (png,), (pdf,) = write_sheets(run, []), write_sheets(run, [], kind=Format.pdf)
    assert pdf == png.with_suffix(".pdf")
    image = Image.open(png)
    difference = apart(drawn(pdf, image), on_white(image))
    assert difference.mean() < 2.5
    assert (difference > 60).mean() < 0.005


def test_a_pdf_holds_its_text_as_text(tmp_path):
    run = some_run(tmp_path / "run")
    (path,) = write_sheets(run, [], kind=Format.pdf)
    text = pypdfium2.PdfDocument(path)[0].get_textpage().get_text_range()
    for word in ("a.conv", "Unit 0", "standard deviation", "rank 4", "net on photos", "Löwenzahn кот"):
        assert word in text
    assert "nan" not in text and "token" not in text


@pytest.mark.parametrize(("paper", "size"), [(Paper.a4, (210, 297)), (Paper.letter, (215.9, 279.4))])
def test_a_pdf_is_pages_of_paper_with_a_title_and_white_margins(tmp_path, paper, size):
    run = some_run(tmp_path / "some-run", 40)
    (path,) = write_sheets(run, [], look=Look(columns=5, crops=40), kind=Format.pdf, paper=paper)
    document = pypdfium2.PdfDocument(path)
    assert document.get_metadata_dict()["Title"] == "some-run, a.conv, unit 0"
    assert len(document) == 2
    said, ranks = [], []
    for page in document:
        assert [side * 25.4 / 72 for side in page.get_size()] == pytest.approx(size, abs=0.1)
        image = page.render(scale=1).to_pil()
        assert image.getpixel((0, 0)) == (255, 255, 255)
        around = MARGIN - 2
        left, top, right, bottom = inked(image)
        assert min(left, top, image.width - right, image.height - bottom) >= around
        text = page.get_textpage().get_text_range()
        assert "some-run, a.conv, unit 0" in text
        said.append(text)
        ranks.append(sum(1 for _ in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE])))
    assert "1 of 2" in said[0] and "2 of 2" in said[1] and "Unit 0" not in said[1]
    assert min(ranks) > 0 and sum(ranks) == 40 + 5


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=30), st.sampled_from([*Paper]), st.booleans())
def test_pages_hold_every_mark_once_and_none_beyond_the_margins(heights, paper, cling):
    blocks = []
    for height in heights:
        block = blank(height)
        block.rectangle(0, 0, CONTENT, height, "black")
        blocks.append(block)
    blocks[-1].clings = cling
    whole = stacked(blocks, 20)
    pages = list(pages_of(whole, "title", paper))
    assert [mark for page in pages for mark in page[0][0]] == whole.marks
    width, height = SIZES[paper]
    for (marks, place), _ in pages:
        for mark in marks:
            assert place.across(mark.left) >= MARGIN - 0.01 and place.across(mark.right) <= width - MARGIN + 0.01
            assert place.down(mark.top) >= MARGIN - 0.01 and place.down(mark.bottom) <= height - MARGIN + 0.01
    assert not cling or len(heights) == 1 or len(pages[-1][0][0]) > 1
    assert len(pages) < 2 or sum(heights) > 0.9 * (height - 2 * MARGIN - 20) / (width - 2 * MARGIN) * CONTENT


def test_pictures_in_a_pdf_have_more_pixels_than_the_screen_shows_and_no_more_than_paper_needs(tmp_path):
    large, small = checkered(2000, (1, 2, 3), (4, 5, 6)), checkered(190, (1, 2, 3), (4, 5, 6))
    rows = [exemplar(rank, 10.0 - rank, large if rank % 2 else small) for rank in range(8)]
    run = make_run(tmp_path / "run", {"a": ([unit_row()], rows)})
    (path,) = write_sheets(run, [], kind=Format.pdf)
    page = pypdfium2.PdfDocument(path)[0]
    sides = sorted({item.get_px_size()[0] for item in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE])})
    look = Look()
    assert sides == [190, round(look.cell * DENSITY), round(look.large_cell * DENSITY)]


def test_an_svg_holds_everything_itself_and_every_picture(tmp_path):
    run = some_run(tmp_path / "run")
    (path,) = write_sheets(run, [], kind=Format.svg)
    assert "run, a.conv, unit 0" in path.read_text()  # its title
    tree = ET.parse(path).getroot()
    images = list(tree.iter(f"{SVG}image"))
    assert len(images) == 8 + 5  # crops, and the whole image below the large ones
    assert all(image.get(LINK, "").startswith("data:image/png;base64,") for image in images)
    assert all(use.get(LINK, "").startswith("#") for use in tree.iter(f"{SVG}use"))
    assert not list(tree.iter(f"{SVG}text"))  # outlines need no font where it is opened
    assert not list(tree.iter(f"{SVG}script"))


@pytest.mark.parametrize("kind", [Format.pdf, Format.svg])
def test_the_same_sheet_gives_the_same_bytes(tmp_path, kind):
    run = some_run(tmp_path / "run", 3)
    (path,) = write_sheets(run, [], kind=kind)
    first = path.read_bytes()
    write_sheets(run, [], kind=kind)
    assert path.read_bytes() == first


def test_overviews_have_a_file_for_each_page(tmp_path):
    units = [unit_row(unit) for unit in range(300)]
    run = make_run(tmp_path / "run", {"a": (units, [exemplar(unit=unit) for unit in range(300)])})
    pages = write_overviews(run, [], kind=Format.pdf)
    assert [path.name for path in pages] == ["overview.pdf", "overview-2.pdf", "overview-3.pdf"]
    (first, *_) = write_overviews(run, [])
    image = Image.open(first)
    assert (apart(drawn(pages[0], image), on_white(image)) > 60).mean() < 0.02


def test_a_sheet_has_as_many_crops_and_columns_as_asked():
    rows = [exemplar(rank, 50.0 - rank) for rank in range(40)]
    assert len(pictures(sheet(rows))) == 40
    some = sheet(rows, Look(large=2, columns=4, crops=12))
    assert len(pictures(some)) == 12
    lefts = sorted({mark.left for mark in pictures(some)[2:]})
    assert len(lefts) == 4
    assert "The first 12 of 40 exemplars are shown." in words(some)
    none_large = sheet(rows, Look(large=0, columns=10, crops=20))
    assert len({mark.right - mark.left for mark in pictures(none_large)}) == 1
    assert len(pictures(sheet(rows, Look(large=5, crops=3)))) == 3


@pytest.mark.parametrize("look", [{"columns": 2}, {"columns": 25}, {"large": 11}, {"large": -1}, {"crops": 0}])
def test_a_look_that_cannot_be_drawn_is_refused(look):
    with pytest.raises(UserError, match="Say"):
        Look(**look)


def test_facets_are_letters_behind_the_ranks():
    rows = [exemplar(rank, 10.0 - rank, facet=rank % 2) for rank in range(7)]
    said = words(sheet(rows))
    assert "rank 0, facet a" in said and "rank 1, facet b" in said and "5 b" in said and "6 a" in said
    assert any("2 facets: 4 a, 3 b" in text for text in said)
    assert any(text.startswith("A letter behind the rank is the facet") for text in said)
    for alone in (float("nan"), None, 0):
        without = words(sheet([exemplar(rank, 10.0 - rank, facet=alone) for rank in range(7)]))
        assert "rank 0" in without and not any("facet" in text for text in without)


def test_the_command_writes_the_kind_of_file_it_is_asked_for(tmp_path):
    run = some_run(tmp_path / "run", 3)
    app, command = application(["sheets"]), ["sheets", "--run", str(run.path), "--quiet"]
    done = CliRunner().invoke(app, [*command, "--format", "pdf", "--columns", "4", "--crops", "2", "--large", "1"])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (run.path / "sheets" / "a.conv").iterdir()) == ["0.pdf", "overview.pdf"]
    assert CliRunner().invoke(app, [*command, "--format", "gif"]).exit_code == 2
    assert CliRunner().invoke(app, [*command, "--columns", "1"]).exit_code == 1


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run = some_run(tmp_path / "run", 1)
    with pytest.raises(UserError, match=r"FORMAT=svg needs matplotlib: .*-m pip install 'actmine\[paper\]'"):
        write_sheets(run, [], kind=Format.svg)
