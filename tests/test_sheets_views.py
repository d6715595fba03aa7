"""Sheets with views: below their crops, cut as they are, nine beside nine, page after page; what is said without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.errors import UserError
from actmine.pipeline.run import Run
from actmine.pipeline.sheets.region import view_picture
from actmine.pipeline.sheets.unit_sheet import Look
from actmine.pipeline.sheets.view_grids import grid_pages
from actmine.pipeline.sheets.write import write_grids, write_sheets
from actmine.pipeline.storage.parquet import write_table
from actmine.pipeline.words import Shown
from actmine.schemas.exemplars import FOCUS
from actmine.schemas.views import INPUT_BOX, VIEWS
from tests.test_sheets import CROP, cell, exemplar, make_run, plain, shows, unit_row, where

SEEN, OTHER = (1, 200, 90), (200, 40, 255)
"""Colours of views at full strength."""


def add_views(run: Run, rows: list[dict[str, Any]], method: str = "deconvnet", layer: str = "a") -> Run:
    """Writes views of exemplars to a run; `rows` say what they differ in from that of rank 0 of unit 0."""
    usual = dict.fromkeys(INPUT_BOX, 0) | {
        "layer": layer, "unit": 0, "rank": 0, "image_id": 0, "method": method, "view": cell(plain(20, 20, SEEN)),
        "scale": 1.0, "recipe": "x",
    }  # fmt: skip
    table = pa.Table.from_pylist([usual | row for row in rows], VIEWS)
    write_table(run.path / "views" / f"{layer}-{method}.parquet", VIEWS, [table])
    return run


def one_unit(root: Path, ranks: int = 12, crop: Image.Image | None = None) -> Run:
    return make_run(root, {"a": ([unit_row()], [exemplar(rank, 20.0 - rank, crop) for rank in range(ranks)])})


def sheet(run: Run, **how: Any) -> Image.Image:
    return Image.open(write_sheets(run, [], **how)[0])


def test_a_view_lies_right_below_its_crop_as_large_as_that(tmp_path):
    run = add_views(one_unit(tmp_path / "run", 1, plain(40, 40)), [{}])
    drawn = sheet(run)
    crop, view = where(drawn, CROP), where(drawn, SEEN)
    assert (view[0], view[2] - view[0]) == (crop[0], Look().large_cell // 20 * 20)
    assert crop[3] <= view[1] <= crop[3] + 12


def test_without_views_or_where_none_are_wanted_a_sheet_is_as_it_was(tmp_path):
    run = one_unit(tmp_path / "run")
    before = np.asarray(sheet(run))
    add_views(run, [{}])
    assert shows(sheet(run), SEEN)
    assert np.array_equal(np.asarray(sheet(run, views=False)), before)


def test_a_view_of_another_image_is_not_passed_off_as_that_of_the_exemplar(tmp_path):
    assert not shows(sheet(add_views(one_unit(tmp_path / "run"), [{"image_id": 7}])), SEEN)


def test_the_method_may_be_chosen_and_deconvnet_comes_first(tmp_path):
    run = add_views(one_unit(tmp_path / "run"), [{}])
    add_views(run, [{"view": cell(plain(20, 20, OTHER))}], "guided")
    assert shows(sheet(run), SEEN) and not shows(sheet(run), OTHER)
    assert shows(sheet(run, method="guided"), OTHER)


def test_an_exemplar_without_a_view_leaves_its_place_empty(tmp_path):
    assert shows(sheet(add_views(one_unit(tmp_path / "run"), [{"view": None}, {"rank": 1}])), SEEN)


def test_a_view_is_cut_to_the_focus_as_its_crop_is():
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[5:15, 10:25] = SEEN
    row = exemplar(**dict(zip(FOCUS, (120, 60, 150, 80), strict=True))) | {"view": cell(Image.fromarray(pixels))}
    cut = view_picture(row, Shown.focus)  # the box has 80 x 60 pixels of the image, the view half as many
    assert cut is not None and cut.size == (15, 10) and (np.asarray(cut) == SEEN).all()
    assert view_picture(row, Shown.box).size == view_picture(row, None).size == (40, 30)


def test_a_grid_has_each_view_left_and_its_patch_at_the_same_place_right(tmp_path):
    colours = [(rank * 20 + 5, 50, 60) for rank in range(9)]
    rows = [exemplar(rank, 20.0 - rank, plain(30, 30, colours[rank])) for rank in range(9)]
    run = make_run(tmp_path / "run", {"a": ([unit_row()], rows)})
    views = [{"rank": rank, "view": cell(plain(30, 30, (1, 150, colours[rank][0])))} for rank in range(9)]
    page = Image.open(write_grids(add_views(run, views), [])[0])
    assert page.width == 1400
    offsets = set()
    for rank, colour in enumerate(colours):
        view, patch = where(page, (1, 150, colour[0])), where(page, colour)
        offsets.add((patch[0] - view[0], patch[1] - view[1]))
        first = where(page, (1, 150, colours[0][0]))
        step = view[2] - view[0]
        assert (view[0] - first[0]) // step == rank % 3 and (view[1] - first[1]) // step == rank // 3
    (offset,) = offsets
    assert offset[0] > 250 and offset[1] == 0


def test_a_view_that_is_reduced_keeps_its_strength_and_its_zero(tmp_path):
    fine = np.full((300, 300, 3), 128, np.uint8)
    fine[100:200, 100:200] = np.random.default_rng(0).choice([1, 255], (100, 100, 1)).astype(np.uint8)
    run = add_views(one_unit(tmp_path / "run", 1), [{"view": cell(Image.fromarray(fine))}])
    page = np.asarray(Image.open(write_grids(run, [])[0])).astype(int)
    left, top, right, bottom = where(Image.open(run.path / "sheets" / "a" / "views.png"), (128, 128, 128))
    view = page[top:bottom, left:right]
    assert view.min() < 10 and view.max() > 246
    assert (view[:20] == 128).all() and (view[-20:] == 128).all()


def test_units_go_on_from_page_to_page_and_silent_ones_have_empty_cells(tmp_path):
    units = [unit_row(unit, activation_max=0.0 if unit == 1 else 10.0) for unit in range(20)]
    rows = [exemplar(0, 9.0 * (unit != 1), plain(6, 6, (unit, 9, 9)), unit=unit) for unit in range(20)]
    run = make_run(tmp_path / "run", {"a": (units, rows)})
    add_views(run, [{"unit": unit} for unit in range(20) if unit != 1])
    pages = write_grids(run, [])
    assert [path.name for path in pages] == ["views.png", "views-2.png"]
    first, second = map(Image.open, pages)
    assert shows(first, (0, 9, 9)) and not shows(first, (1, 9, 9)) and not shows(first, (16, 9, 9))
    assert shows(second, (16, 9, 9)) and shows(second, (19, 9, 9))
    some = Image.open(write_grids(run, [], [3, 17])[0])
    assert shows(some, (3, 9, 9)) and shows(some, (17, 9, 9)) and not shows(some, (4, 9, 9))


def test_a_page_is_drawn_when_it_is_asked_for_of_its_own_units_alone():
    read: list[int] = []

    def each() -> Any:
        for unit in range(200):
            read.append(unit)
            yield unit_row(unit), [exemplar() | {"view": cell(plain()), "crop": plain()}]

    pages = grid_pages("a", 200, each(), "deconvnet", [])
    assert not read
    for page in (1, 2, 3):
        next(pages)
        assert len(read) == 16 * page


def test_layers_without_views_are_left_out_and_if_all_are_it_says_what_to_do(tmp_path):
    rows = ([unit_row()], [exemplar()])
    run = make_run(tmp_path / "run", {"a": rows, "b": rows})
    with pytest.raises(UserError, match=r"no such views yet\. .*-m actmine views --run .* --layers a"):
        write_grids(run, ["a"])
    add_views(run, [{}], layer="b")
    assert [path.parent.name for path in write_grids(run, [])] == ["b"]
    with pytest.raises(UserError, match="--method guided"):
        write_grids(run, [], method="guided")


def test_the_command_draws_grids_and_leaves_views_out(tmp_path):
    run = add_views(one_unit(tmp_path / "run"), [{}])
    command = ["sheets", "--run", str(run.path), "--quiet"]
    done = CliRunner().invoke(application(["sheets"]), [*command, "--grids", "--no-views"])
    assert done.exit_code == 0, done.output
    assert shows(Image.open(run.path / "sheets" / "a" / "views.png"), SEEN)
    assert not shows(Image.open(run.path / "sheets" / "a" / "0.png"), SEEN)
    done = CliRunner().invoke(application(["sheets"]), [*command, "--method", "deconv"])
    assert done.exit_code == 1 and "There is no METHOD 'deconv'" in done.output
