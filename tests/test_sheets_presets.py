"""Sheets and overviews by a preset show what it drew, and a preset that drew nothing is refused with those that did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.errors import UserError
from actmine.pipeline.run import Run
from actmine.pipeline.sheets.drawn import Drawn
from actmine.pipeline.sheets.write import write_overviews, write_sheets
from actmine.pipeline.tables.visualization_tables import DRAWN, LayerPictures
from tests.making import encoded
from tests.test_sheets import exemplar, make_run, plain, shows, unit_row

NOISE, WEAKER, LUCID = (11, 22, 33), (99, 22, 33), (44, 155, 66)
LAYER = "a"


def picture_of(unit: int, colour: tuple[int, int, int], activation: float = 5.0, **more: Any) -> dict[str, Any]:
    return dict.fromkeys(DRAWN.names) | {
        "unit": unit, "picture": encoded(plain(5, 5, colour), "PNG"), "activation": activation, "rank": 0, "seed": 0,
        "attempts": 1,
    } | more  # fmt: skip


def drawn_run(root: Path) -> Run:
    """Three units: noise drew two, the first of them in two facets, lucid that one better, none the third."""
    units = [unit_row(unit) for unit in range(3)], [exemplar(unit=unit) for unit in range(3)]
    run = make_run(root, {LAYER: units, "b": ([], [])})
    by_noise = [picture_of(0, WEAKER, 4.0, facet=0), picture_of(0, NOISE, 5.0, facet=1), picture_of(1, NOISE)]
    for preset, rows in (("noise", by_noise), ("lucid", [picture_of(0, LUCID, 9.0)])):
        pictures = LayerPictures(run.path, LAYER, preset, ["noise", "lucid"])
        pictures.add(pa.Table.from_pylist(rows, DRAWN), "recipe")
        pictures.show([row["unit"] for row in rows])
    return run


@pytest.mark.parametrize(
    ("preset", "wanted"), [("", [LUCID, NOISE, None]), ("noise", [NOISE, NOISE, None]), ("lucid", [LUCID, None, None])]
)
def test_a_sheet_and_an_overview_show_what_the_preset_drew_and_else_each_units_best(tmp_path, preset, wanted):
    run = drawn_run(tmp_path / "run")
    sheets = [Image.open(path) for path in write_sheets(run, [LAYER], preset=preset)]
    found = [[colour for colour in (NOISE, WEAKER, LUCID) if shows(sheet, colour)] for sheet in sheets]
    assert found == [[colour] if colour else [] for colour in wanted]
    overview = Image.open(write_overviews(run, [LAYER], preset=preset)[0])
    assert {colour for colour in (NOISE, WEAKER, LUCID) if shows(overview, colour)} == {*wanted} - {None}
    assert all(row["visualization_activation"] in (5.0, 9.0, None) for row in map(Drawn(run, [LAYER], preset).row,
               [LAYER] * 3, run.units(LAYER).to_dict("records")) if preset)  # fmt: skip


@pytest.mark.parametrize(
    ("preset", "layer", "says"),
    [
        ("lucidd", LAYER, "There is no preset 'lucidd'; there are pictures by noise, lucid. Did you mean lucid?"),
        ("maco", LAYER, "has no pictures of these layers by the preset maco: there are pictures by noise, lucid."),
        ("maco", "b", "has no pictures of these layers by the preset maco: nothing is drawn yet."),
    ],
)
def test_a_preset_that_drew_nothing_is_one_sentence_with_those_that_did(tmp_path, preset, layer, says):
    run = drawn_run(tmp_path / "run")
    for write in (write_sheets, write_overviews):
        with pytest.raises(UserError) as caught:
            write(run, [layer], preset=preset)
        assert says in str(caught.value)
    assert not list(run.path.glob("sheets/*/*"))


def test_the_command_takes_a_preset(tmp_path):
    run = drawn_run(tmp_path / "run")
    words = ["sheets", "--run", str(run.path), "--layers", LAYER, "--quiet", "--preset"]
    app = application(["sheets"])
    assert CliRunner().invoke(app, [*words, "noise"]).exit_code == 0
    assert shows(Image.open(run.path / "sheets" / LAYER / "0.png"), NOISE)
    refused = CliRunner().invoke(app, [*words, "vital"])
    assert refused.exit_code == 1 and "noise, lucid" in refused.stderr
