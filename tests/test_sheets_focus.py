"""Sheets of the focus: cut from the crop where it is known, the crop as it is elsewhere, and the sheet says which."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.run import open_run
from actmine.pipeline.sheets.region import explanation, region_picture
from actmine.pipeline.sheets.unit_sheet import Look
from actmine.pipeline.sheets.write import write_overviews, write_sheets
from actmine.pipeline.storage.parquet import write_table
from actmine.pipeline.words import Shown
from actmine.schemas.exemplars import FOCUS
from tests.test_sheets import OUTLINE, exemplar, make_run, plain, shows, unit_row, where

INNER, OUTER = (31, 32, 33), (201, 202, 203)
FOUND = dict(zip(FOCUS, (120, 60, 150, 80), strict=True))
"""Within the box 100, 50, 180, 110 of `exemplar`."""


def crop() -> Image.Image:
    """The 80 x 60 pixels of the box; those of the focus in a colour of their own."""
    pixels = np.full((60, 80, 3), OUTER, np.uint8)
    pixels[10:30, 20:50] = INNER
    return Image.fromarray(pixels)


def sheet(run: Path, shown: Shown, **more: object) -> Image.Image:
    return Image.open(write_sheets(make_run(run, {"a": ([unit_row()], [exemplar(crop=crop(), **more)])},
                                            plain(400, 300)), [], shown=shown)[0])  # fmt: skip


def test_the_focus_fills_its_cell_and_the_outline_is_around_it(tmp_path):
    box, focus = (sheet(tmp_path / shown, shown, **FOUND) for shown in Shown)
    assert shows(box, OUTER) and shows(box, INNER)
    assert shows(focus, INNER) and not shows(focus, OUTER)
    left, top, right, bottom = where(focus, INNER)
    assert (right - left, bottom - top) == (Look().large_cell // 30 * 30, Look().large_cell // 30 * 20)
    wide, narrow = (where(each, OUTLINE) for each in (box, focus))
    assert wide[0] < narrow[0] < narrow[2] < wide[2] and wide[1] < narrow[1] < narrow[3] < wide[3]
    assert (narrow[2] - narrow[0] - 4) / (wide[2] - wide[0] - 4) == pytest.approx(30 / 80, abs=0.02)


def test_without_a_focus_all_that_the_unit_sees_is_shown(tmp_path):
    assert shows(sheet(tmp_path / "run", Shown.focus), OUTER)


def test_a_run_of_a_version_that_knew_no_focus_is_drawn_all_the_same(tmp_path):
    run = make_run(tmp_path / "run", {"a": ([unit_row()], [exemplar(crop=crop())])}, plain(400, 300))
    path = run.path / "exemplars" / "a.parquet"
    table = pq.read_table(path).drop_columns(list(FOCUS))
    write_table(path, table.schema, [table])
    for written in (write_sheets(run, [], shown=Shown.focus), write_overviews(run, [], shown=Shown.focus)):
        assert shows(Image.open(written[0]), OUTER)


def test_an_overview_of_best_crops_shows_the_focus_too(tmp_path):
    run = make_run(tmp_path / "run", {"a": ([unit_row()], [exemplar(crop=crop(), **FOUND)])})
    assert shows(Image.open(write_overviews(run, [])[0]), OUTER)
    assert not shows(Image.open(write_overviews(run, [], shown=Shown.focus)[0]), OUTER)


@pytest.mark.parametrize("shown", Shown)
def test_where_boxes_are_not_in_pixels_of_the_image_it_is_shown_whole_and_without_an_outline(shown, tmp_path):
    run = make_run(tmp_path / "run", {"a": ([unit_row()], [exemplar(crop=crop(), **FOUND)])}, plain(400, 300))
    record = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(record | {"boxes": "network input"}))
    for written in (write_sheets, write_overviews):
        picture = Image.open(written(open_run(run.path), [], shown=shown)[0])
        assert shows(picture, OUTER) and not shows(picture, OUTLINE)


def test_the_pixels_of_a_focus_are_those_of_the_crop(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    cut = region_picture(exemplar(**FOUND) | {"crop": noise}, Shown.focus)
    assert cut is not None and np.array_equal(np.asarray(cut), np.asarray(noise)[10:30, 20:50])


def test_the_sheet_says_what_its_crops_are():
    with_focus, without = exemplar(0, **FOUND), [exemplar(rank) for rank in (1, 2, 3)]
    nan = exemplar(1, **dict.fromkeys(FOCUS, float("nan")))
    assert explanation([with_focus, *without], Shown.box)[0].startswith("Crops are what the unit sees of the original")
    first, second = explanation([with_focus, *without], Shown.focus)
    assert "95% of its squared input gradient" in first and second.startswith("Ranks 1 to 3 have no measured focus")
    assert explanation([with_focus, nan], Shown.focus)[1].startswith("Rank 1 has")
    assert explanation([without[0], with_focus | {"rank": 2}, without[2]], Shown.focus)[1].startswith("2 of them have")
    assert explanation([with_focus], Shown.focus) == [first]
    assert "No effective field was measured" in explanation(without, Shown.focus)[1]
    assert explanation([with_focus], None)[0].startswith("Crops are whole images")


def test_the_command_takes_the_choice(tmp_path):
    run = make_run(tmp_path / "run", {"a": ([unit_row()], [exemplar(crop=crop(), **FOUND)])}, plain(400, 300))
    command = ["sheets", "--run", str(run.path), "--quiet", "--field"]
    assert CliRunner().invoke(application(["sheets"]), [*command, "focus"]).exit_code == 0
    assert not shows(Image.open(run.path / "sheets" / "a" / "0.png"), OUTER)
    assert CliRunner().invoke(application(["sheets"]), [*command, "other"]).exit_code == 2
